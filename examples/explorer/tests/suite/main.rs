//! The program as people use it: arguments in, output and exit status out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod arguments;
mod combinations;
mod corpus;
mod counts;
mod documents;
mod dumps;
mod fold;
mod geometry;
mod help;
mod lazy;
mod memory;
mod messages;
mod online;
mod packed;
mod pictures;
mod plan;
mod program;
mod progress;
mod reorder;
mod survey;
