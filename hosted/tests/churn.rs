//! A million operations on each backend.
//!
//! More of them, or others: `CHURN_OPERATIONS=10000000 CHURN_SEED=7 cargo test -p hosted --test
//! churn`. One world again, as a failure names it: `CHURN_WORLD=0x1234`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::churn::{self, Tally};
use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Power, Sim, X86_64, X86_64La57};
use mm_core::addr::Granule;
use mm_core::descriptor::{Mask, Pointer, TailEncoding};

/// How many operations there are on each backend, unless somebody asks for others.
const OPERATIONS: u64 = 1 << 20;

/// A number from the environment, decimal or hexadecimal.
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn holds<B: Power, E: TailEncoding>(seed: u64, operations: u64) -> Tally {
    let done = match asked("CHURN_WORLD") {
        Some(world) => churn::run_world::<B, E>(world, 4096),
        None => churn::run::<B, E>(asked("CHURN_SEED").unwrap_or(seed), operations),
    };
    done.unwrap_or_else(|error| panic!("{error}"))
}

fn a_million_operations_hold<B: Power>(seed: u64) {
    let operations = asked("CHURN_OPERATIONS").unwrap_or(OPERATIONS);
    let half = operations / 2;
    let pointers = holds::<B, Pointer>(seed, half);
    let masks = holds::<B, Mask>(seed + 100, operations - half);
    println!("{}: {pointers:?} {masks:?}", B::NAME);
    if asked("CHURN_WORLD").is_some() {
        return;
    }
    assert!(pointers.operations + masks.operations >= operations);
    // Operations that do nothing prove nothing. Of what takes long, one in many thousand has to do.
    for tally in [pointers, masks] {
        let often = [
            tally.online,
            tally.populated,
            tally.offline,
            tally.folded,
            tally.unfolded,
            tally.reshaped,
            tally.marked,
            tally.altmap,
            tally.refused,
            tally.undone,
        ];
        let enough = often.iter().all(|count| *count >= half / 200);
        assert!(enough, "{}: {tally:?}", B::NAME);
    }
    // Larger pages have larger tables: a huge leaf of theirs is too large to be written often.
    let has_huge = B::MODEL.granule() == Granule::Size4K;
    let seldom = |count: fn(&Tally) -> u64| count(&pointers) + count(&masks) >= operations / 10_000;
    assert!(seldom(|tally| tally.huge) || !has_huge);
    assert!(seldom(|tally| tally.joined) || !has_huge);
    // The page table without tables needs no memory to part a leaf.
    let kept = pointers.kept + masks.kept;
    assert!(kept >= operations >> 20 || !has_huge || !B::HAS_TABLES);
    assert!(seldom(|tally| tally.parted));
    assert!(seldom(|tally| tally.shared_tables) || !B::SHARES_TABLES);
    assert!(masks.per_order > half / 200 && pointers.per_order == 0);
}

#[test]
fn a_million_operations_hold_on_the_oracle() {
    a_million_operations_hold::<Sim>(1);
}

#[test]
fn a_million_operations_hold_on_x86_64() {
    a_million_operations_hold::<X86_64>(2);
}

#[test]
fn a_million_operations_hold_on_x86_64_la57() {
    a_million_operations_hold::<X86_64La57>(3);
}

#[test]
fn a_million_operations_hold_on_aarch64_4k() {
    a_million_operations_hold::<AArch64_4K>(4);
}

#[test]
fn a_million_operations_hold_on_aarch64_16k() {
    a_million_operations_hold::<AArch64_16K>(5);
}

#[test]
fn a_million_operations_hold_on_aarch64_64k() {
    a_million_operations_hold::<AArch64_64K>(6);
}
