//! The library on every backend: one program for all tests that can share a process.
//!
//! The test of the stack (`tests/stack.rs`) has a process of its own, since it looks at memory that
//! other threads would change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod altmap;
mod any_order;
mod battery;
mod caching_cpus;
mod capacities;
mod churn;
mod corpus;
mod costs;
mod creators;
mod damage;
mod dropped;
mod failures;
mod fold;
mod ground_truth;
mod huge_leaves;
mod live;
mod marks;
mod misuse;
mod neighbouring_tails;
mod own_descriptor;
mod properties;
mod shared_tables;
mod shared_tails;
mod stats;
mod third_party;
mod visits;
