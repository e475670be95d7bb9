//! Pieces in any order and grouping, regions side by side, and whoever else lives there.

mod alignment;
mod borders;
mod foreign_neighbours;
mod permutations;

use testkit::testbed::{SHARED_TAILS, pagemap};
