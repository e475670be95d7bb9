//! What this crate and the engine on its formats promise, on a simulated machine that watches.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod choices;
mod foreign;
mod format;
mod groups;
mod machine;
mod mailbox;
mod map;
mod read;
mod registers;
mod reports;
mod roots;
mod tlb;
mod unmap;
mod x86_64_crate;
