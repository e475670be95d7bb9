//! The library on every backend, in one program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod altmap;
mod any_order;
mod audits;
mod battery;
mod beside_cpus;
mod boot;
mod caching_cpus;
mod capacities;
mod churn;
mod corpus;
mod costs;
mod counts;
mod creators;
mod damage;
mod describing;
mod dropped;
mod engines;
mod failures;
mod filled_root;
mod fold;
mod ground_truth;
mod huge_leaves;
mod live;
mod marks;
mod neighbouring_tails;
mod own_descriptor;
mod packed;
mod properties;
mod readers;
mod reorder;
mod shared_tables;
mod shared_tails;
mod statics;
mod stats;
mod third_party;
