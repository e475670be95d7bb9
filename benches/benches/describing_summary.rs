//! What describing memory takes: by which stores, on how many threads, beside `memset` of the same bytes, in
//! interleaved rounds. Medians; `--quick` for fewer rounds, `--sizes` for 1 to 128 MiB of descriptors.
//!
//! `cargo xtask bench` has the same in its report. This is for measuring nothing else, on a quiet machine.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

#[path = "report/bump.rs"]
#[allow(dead_code, reason = "the report counts instructions by it, too")]
mod bump;
mod describing;

use figures::{Figures, Pages};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let rounds = match () {
        () if asked("--test") => 1,
        () if asked("--quick") => 15,
        () => 101,
    };
    let sizes = |shift: u32| {
        [
            (Pages::Size4K, 64_u64 << shift),
            (Pages::Size2M, 512_u64 << shift),
        ]
    };
    let cases = match asked("--sizes") {
        false if rounds == 1 => vec![(Pages::Size4K, 128)],
        false => describing::CASES.to_vec(),
        true => (0..8).flat_map(sizes).collect(),
    };
    let figures = Figures {
        memset_ns: 0.0,
        rows: Vec::new(),
        instructions: Vec::new(),
        operations: Vec::new(),
        growth: Vec::new(),
        describing: describing::measure(&cases, rounds),
    };
    println!("{}", figures.describing_table());
}
