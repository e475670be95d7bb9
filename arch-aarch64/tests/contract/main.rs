//! What this crate and the engine on its formats promise, on a simulated machine that watches.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod choices;
mod descriptors;
mod foreign;
mod machine;
mod map;
mod models;
mod registers;
mod source;
mod tlb;
mod unmap;
