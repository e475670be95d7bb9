//! What this library's operations cost, side by side with other ways to do the same.
//!
//! 262144 page-table entries are written and cleared by several contenders on the same memory, which
//! are in `benches/contenders`: what they need of other crates is for development only.
//!
//! The memory is touched before anything is measured, frames for tables come from a stack, no TLB
//! is flushed, and descriptor frames are numbers only: what is left is the cost of the entries.
//!
//! And ways to ask about a frame, by a [`RealArray`]: descriptors that are where a CPU would find them.
#![deny(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

mod arena;
mod engine;
mod instructions;
mod page_at_a_time;
mod pattern;
mod real_array;
mod stopwatch;

pub use arena::Arena;
pub use engine::{Engine, NoCpu};
pub use instructions::instructions;
pub use page_at_a_time::PageAtATime;
pub use pattern::{Pattern, Runs};
pub use real_array::{Frames, Host, NoGuard, Ram, RealArray};
pub use stopwatch::Stopwatch;

use mm_core::addr::{VirtAddr, VirtRange};
use std::time::Duration;

/// How many rounds a benchmark's arguments ask for: `quick` with `--quick`, otherwise `all`. `cargo test --benches`
/// runs benchmarks too, with `--test`, for one round.
pub fn rounds(quick: usize, all: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    match (has("--test"), has("--quick")) {
        (true, _) => 1,
        (_, true) => quick,
        _ => all,
    }
}

/// The median of `times`, of which there is one at least.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// How many entries are written and cleared: those of 512 leaf tables, the vmemmap of 64 GiB.
pub const ENTRIES: u64 = 262_144;

/// How many leaf tables they fill.
pub const LEAF_TABLES: usize = 512;

/// The entries' addresses, from the start of the 4-level vmemmap.
pub fn addresses() -> VirtRange {
    let base = arch_x86_64::MODEL_4_LEVEL.config().vmemmap_base;
    VirtRange::new(base, ENTRIES * 4096).unwrap()
}

/// The address of the entry number `index`.
pub fn address(index: u64) -> VirtAddr {
    addresses().start().checked_add(index * 4096).unwrap()
}
