//! Any bytes are the seed of a world, and whatever is done in it holds.
#![no_main]

use hosted::churn;
use hosted::{AArch64_4K, AArch64_16K, Sim, X86_64, X86_64La57};
use libfuzzer_sys::fuzz_target;
use mm_core::descriptor::{Mask, Pointer};

/// How many operations there are in a world.
const OPERATIONS: u64 = 256;

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, rest)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let seed = u64::from_le_bytes(*seed);
    let done = match rest.first().copied().unwrap_or(0) % 6 {
        0 => churn::run_world::<Sim, Mask>(seed, OPERATIONS),
        1 => churn::run_world::<X86_64, Pointer>(seed, OPERATIONS),
        2 => churn::run_world::<X86_64, Mask>(seed, OPERATIONS),
        3 => churn::run_world::<X86_64La57, Mask>(seed, OPERATIONS),
        4 => churn::run_world::<AArch64_4K, Pointer>(seed, OPERATIONS),
        _ => churn::run_world::<AArch64_16K, Mask>(seed, OPERATIONS),
    };
    if let Err(error) = done {
        panic!("{error}");
    }
});
