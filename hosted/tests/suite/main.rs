//! Machines and backends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod abilities;
mod attributes;
mod machine;
mod other_granule;
mod out_of_reach;
mod readme;
