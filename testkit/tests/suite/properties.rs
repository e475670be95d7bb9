//! Random scripts: tables in hardware format, the oracle and a plain model agree after every
//! operation.
//!
//! More of them, or others: `SCRIPTS=20 SCRIPTS_SEED=7 cargo test -p testkit properties` runs
//! twenty times as many.

use hosted::BackendKind;
use mm_core::addr::Granule;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use testkit::on_backends;
use testkit::script::{self, Encoding, OP_BYTES, Tally, Width};

/// How many wide scripts for each backend, how many narrow ones, and operations in each at most.
const WIDE: u32 = 120;
const NARROW: u32 = 1200;
const OPERATIONS: usize = 80;

/// How often each thing has to happen at least, in wide scripts and in narrow ones, where pages are
/// 4 KiB; where they are larger, a table is seldom filled, and a huge leaf too large to be.
type Least = (fn(&Tally) -> u64, [u64; 2]);
const ALWAYS: [Least; 25] = [
    (|tally| tally.online, [200, 2000]),
    (|tally| tally.packed, [20, 300]),
    (|tally| tally.repacked, [4, 40]),
    (|tally| tally.remote, [5, 100]),
    (|tally| tally.altmap, [10, 200]),
    (|tally| tally.compound_altmap, [3, 50]),
    (|tally| tally.offline, [100, 1000]),
    (|tally| tally.folded, [20, 100]),
    (|tally| tally.unfolded, [20, 150]),
    (|tally| tally.reshaped, [5, 50]),
    (|tally| tally.fold_refused, [100, 1000]),
    (|tally| tally.marked, [40, 400]),
    (|tally| tally.marks_kept, [1, 20]),
    (|tally| tally.marks_gone, [10, 100]),
    (|tally| tally.written, [30, 300]),
    (|tally| tally.refused, [300, 3000]),
    (|tally| tally.other_altmap, [3, 50]),
    (|tally| tally.undone, [10, 100]),
    (|tally| tally.planted, [15, 150]),
    (|tally| tally.reordered, [40, 400]),
    (|tally| tally.reordered_parts, [5, 50]),
    (|tally| tally.reorder_refused, [100, 1000]),
    (|tally| tally.too_small, [1, 10]),
    (|tally| tally.filled, [100, 1000]),
    (|tally| tally.fill_undone, [1, 20]),
];
const WITH_TABLES: [Least; 9] = [
    (|tally| tally.shared, [3, 1]),
    (|tally| tally.fold_undone, [0, 10]),
    (|tally| tally.accessed, [50, 500]),
    (|tally| tally.held, [5, 100]),
    (|tally| tally.busy, [0, 5]),
    (|tally| tally.frozen, [3, 30]),
    (|tally| tally.thawed, [1, 10]),
    (|tally| tally.reordered_frozen, [1, 30]),
    (|tally| tally.changed_frozen, [1, 10]),
];
const WITH_SMALL_TABLES: [Least; 6] = [
    (|tally| tally.fold_undone, [1, 10]),
    (|tally| tally.huge, [3, 0]),
    (|tally| tally.split_offline, [2, 5]),
    (|tally| tally.split, [1, 0]),
    (|tally| tally.joined, [2, 5]),
    (|tally| tally.exhausted, [1, 0]),
];

/// A number from the environment.
fn from_environment(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// A seed by which everything happens often enough.
const fn usual_seed(backend: BackendKind, width: Width) -> u32 {
    match (backend, width) {
        (BackendKind::RiscV64Sv57, Width::Wide) => 2,
        (BackendKind::AArch64_64K, Width::Narrow) => 1,
        _ => 0,
    }
}

/// Runs random scripts, every other one with each encoding.
fn scripts_hold(backend: BackendKind, width: Width) {
    let times = from_environment("SCRIPTS").unwrap_or(1);
    let persistence = FileFailurePersistence::Direct("tests/suite/data/properties.regressions");
    let config = Config {
        cases: times * if width == Width::Wide { WIDE } else { NARROW },
        failure_persistence: Some(Box::new(persistence)),
        ..Config::default()
    };
    // The same ones each time, so that whoever changes something can tell what has changed.
    let [seed, backend_seed] = [
        from_environment("SCRIPTS_SEED").unwrap_or(usual_seed(backend, width)),
        backend as u32,
    ];
    let seed: Vec<u8> = [seed, backend_seed, 0, 0, 0, 0, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let done = RefCell::new(Tally::default());
    let ops = vec(any::<[u8; OP_BYTES]>(), 1..OPERATIONS);
    let script = (any::<bool>(), any::<u8>(), ops);
    let outcome = runner.run(&script, |(mask, place, ops)| {
        let bytes = [place].into_iter().chain(ops.into_iter().flatten());
        let bytes: Vec<u8> = bytes.collect();
        let encoding = if mask {
            Encoding::Mask
        } else {
            Encoding::Pointer
        };
        let tally = script::run_on(backend, encoding, width, &bytes, OPERATIONS);
        *done.borrow_mut() += tally.map_err(TestCaseError::fail)?;
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Scripts that do nothing prove nothing.
    let done = done.into_inner();
    let tables: &[Least] = match backend.has_tables() {
        true => &WITH_TABLES,
        false => &[],
    };
    let small: &[Least] = match backend.model().granule() {
        Granule::Size4K => &WITH_SMALL_TABLES,
        _ => &[],
    };
    let all = ALWAYS.iter().chain(tables).chain(small);
    let enough = |(count, [wide, narrow]): &Least| {
        count(&done) >= if width == Width::Wide { *wide } else { *narrow }
    };
    println!("{} {width:?}: {done:?}", backend.name());
    let few = all.filter(|least| !enough(least)).count();
    assert!(
        few == 0,
        "{} {width:?}: {few} too rare in {done:?}",
        backend.name()
    );
}

fn any_wide_script_holds(kind: BackendKind) {
    scripts_hold(kind, Width::Wide);
}

fn any_narrow_script_holds(kind: BackendKind) {
    scripts_hold(kind, Width::Narrow);
}

on_backends!(all: any_wide_script_holds, any_narrow_script_holds);
