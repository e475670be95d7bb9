//! Random scripts: tables in hardware format, the oracle and a plain model agree after every
//! operation.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::script::{self, OP_BYTES, Tally};
use hosted::{AArch64_4K, RadixBackend, X86_64, X86_64La57};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use std::cell::RefCell;

/// How many scripts for each backend, and operations in each at most.
const SCRIPTS: u32 = 160;
const OPERATIONS: usize = 80;

fn scripts_hold<B: RadixBackend, E: TailEncoding>() {
    let persistence = FileFailurePersistence::Direct("tests/data/properties.regressions");
    let mut runner = TestRunner::new(Config {
        cases: SCRIPTS,
        failure_persistence: Some(Box::new(persistence)),
        ..Config::default()
    });
    let tallies = RefCell::new(Vec::new());
    let ops = vec(any::<[u8; OP_BYTES]>(), 1..OPERATIONS);
    let outcome = runner.run(&(any::<u8>(), ops), |(place, ops)| {
        let bytes: Vec<u8> = [place]
            .into_iter()
            .chain(ops.into_iter().flatten())
            .collect();
        let tally = script::run::<B, E>(&bytes, OPERATIONS).map_err(TestCaseError::fail)?;
        tallies.borrow_mut().push(tally);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{}: {error}", B::NAME);
    }
    // Scripts that do nothing prove nothing.
    let tallies = tallies.into_inner();
    let least = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let done = [
        (least(|tally| tally.online), 200),
        (least(|tally| tally.huge), 10),
        (least(|tally| tally.unavailable), 1),
        (least(|tally| tally.remote), 5),
        (least(|tally| tally.altmap), 20),
        (least(|tally| tally.compound_altmap), 5),
        (least(|tally| tally.offline), 200),
        (least(|tally| tally.refused), 100),
        (least(|tally| tally.undone), 10),
        (least(|tally| tally.exhausted), 3),
        (least(|tally| tally.planted), 20),
        (least(|tally| tally.accessed), 20),
    ];
    let enough = done.iter().all(|(done, least)| done >= least);
    assert!(enough, "{}: {done:?}", B::NAME);
}

#[test]
fn any_script_holds_on_4_levels() {
    scripts_hold::<X86_64, Pointer>();
}

#[test]
fn any_script_holds_on_5_levels_and_with_masks() {
    scripts_hold::<X86_64La57, Mask>();
}

#[test]
fn any_script_holds_on_aarch64() {
    scripts_hold::<AArch64_4K, Mask>();
}
