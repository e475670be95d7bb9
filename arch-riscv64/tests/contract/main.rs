//! What this crate and the engine on its formats promise, on simulated harts that cache all that they may.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod entries;
mod fences;
mod flaws;
mod machine;
mod map;
mod models;
mod setup;
