//! Pieces in any order and grouping, regions side by side, and whoever else lives there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod alignment;
mod borders;
mod permutations;
mod strangers;

use hosted::testbed::{SHARED_TAILS, pagemap};
