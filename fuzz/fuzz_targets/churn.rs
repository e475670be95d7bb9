//! Any bytes are the seed of a world, and whatever is done in it holds.
#![no_main]

use hosted::churn::{self, Tally};
use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Power, Sim, X86_64, X86_64La57};
use libfuzzer_sys::fuzz_target;
use mm_core::descriptor::{Mask, Pointer};

/// How many operations there are in a world.
const OPERATIONS: u64 = 256;

fn run<B: Power>(choice: u8, seed: u64) -> Result<Tally, String> {
    match choice % 2 {
        0 => churn::run_world::<B, Pointer>(seed, OPERATIONS),
        _ => churn::run_world::<B, Mask>(seed, OPERATIONS),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, rest)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let seed = u64::from_le_bytes(*seed);
    let choice = rest.first().copied().unwrap_or(0);
    let done = match choice / 2 % 6 {
        0 => run::<Sim>(choice, seed),
        1 => run::<X86_64>(choice, seed),
        2 => run::<X86_64La57>(choice, seed),
        3 => run::<AArch64_4K>(choice, seed),
        4 => run::<AArch64_16K>(choice, seed),
        _ => run::<AArch64_64K>(choice, seed),
    };
    if let Err(error) = done {
        panic!("{error}");
    }
});
