//! Operations at random: a million on one backend of x86-64 and on one of AArch64, whose ways to exchange entries in use
//! differ; a quarter of that on the others of these and without tables; an eighth on each mode of RISC-V, whose entries are
//! alike and whose tables are those of other backends.
//!
//! More of them, or others: `CHURN_OPERATIONS=10000000 CHURN_SEED=7 cargo test -p testkit churn`. One world again, as a failure names it: `CHURN_WORLD=0x1234`.

use hosted::BackendKind;
use mm_core::addr::Granule;
use testkit::churn::{self, Tally};
use testkit::on_backends;
use testkit::script::Encoding;

/// How many operations there are where there are most, unless somebody asks for others.
const OPERATIONS: u64 = 1 << 20;

/// How many there are on `kind` unless somebody asks for others.
fn usual_operations(kind: BackendKind) -> u64 {
    match kind {
        BackendKind::RiscV64Sv39 | BackendKind::RiscV64Sv48 | BackendKind::RiscV64Sv57 => {
            OPERATIONS / 8
        }
        BackendKind::X86_64 | BackendKind::AArch64_4K => OPERATIONS,
        _ => OPERATIONS / 4,
    }
}

/// A number from the environment, decimal or hexadecimal.
fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn holds(kind: BackendKind, encoding: Encoding, seed: u64, operations: u64) -> Tally {
    let done = match from_environment("CHURN_WORLD") {
        Some(world) => churn::run_world(kind, encoding, world, 4096),
        None => {
            let seed = from_environment("CHURN_SEED").unwrap_or(seed);
            churn::run(kind, encoding, seed, operations)
        }
    };
    done.unwrap_or_else(|error| panic!("{error}"))
}

/// All of them on one backend. Each has seeds of its own.
fn operations_at_random_hold(kind: BackendKind) {
    let seed = 1 + kind as u64;
    let operations = from_environment("CHURN_OPERATIONS").unwrap_or(usual_operations(kind));
    let half = operations / 2;
    let pointers = holds(kind, Encoding::Pointer, seed, half);
    let masks = holds(kind, Encoding::Mask, seed + 100, operations - half);
    println!("{}: {pointers:?} {masks:?}", kind.name());
    if from_environment("CHURN_WORLD").is_some() {
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
            tally.reordered,
            tally.reordered_parts,
            tally.marked,
            tally.altmap,
            tally.refused,
            tally.undone,
        ];
        let enough = often.iter().all(|count| *count >= half / 200);
        assert!(enough, "{}: {tally:?}", kind.name());
        // What is packed is not reshaped, and half of the worlds with masks pack heads.
        assert!(tally.reshaped >= half / 300, "{}: {tally:?}", kind.name());
    }
    // Larger pages have larger tables: a huge leaf of theirs is too large to be written often.
    let has_huge = kind.model().granule() == Granule::Size4K;
    let seldom = |count: fn(&Tally) -> u64| count(&pointers) + count(&masks) >= operations / 10_000;
    assert!(seldom(|tally| tally.huge) || !has_huge);
    assert!(seldom(|tally| tally.joined) || !has_huge);
    assert!(seldom(|tally| tally.packed));
    // The page table without tables needs no memory to split a leaf.
    let kept = pointers.kept + masks.kept;
    assert!(kept >= operations >> 20 || !has_huge || !kind.has_tables());
    assert!(seldom(|tally| tally.split_offline));
    assert!(seldom(|tally| tally.shared_tables) || !kind.has_tables());
    assert!(seldom(|tally| tally.stopped));
    assert!(seldom(|tally| tally.too_small));
    assert!(seldom(|tally| tally.reordered_frozen) || !kind.has_tables());
    assert!(seldom(|tally| tally.changed_frozen) || !kind.has_tables());
    assert!(seldom(|tally| tally.frozen) || !kind.has_tables());
    assert!(seldom(|tally| tally.busy) || !kind.has_tables());
    assert!(masks.per_order > half / 200 && pointers.per_order == 0);
}

on_backends!(all: operations_at_random_hold);
