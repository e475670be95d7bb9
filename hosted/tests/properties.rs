//! Random scripts: tables in hardware format, the oracle and a plain model agree after every operation.

use hosted::script::{self, OP_BYTES};
use hosted::{X86_64, X86_64La57, X86Backend};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// How many scripts for each backend, and operations in each at most.
const SCRIPTS: u32 = 192;
const OPERATIONS: usize = 16;

fn scripts_hold<B: X86Backend, E: TailEncoding>() {
    let persistence = FileFailurePersistence::Direct("tests/data/properties.regressions");
    let mut runner = TestRunner::new(Config {
        cases: SCRIPTS,
        failure_persistence: Some(Box::new(persistence)),
        ..Config::default()
    });
    let ops = vec(any::<[u8; OP_BYTES]>(), 1..OPERATIONS);
    let outcome = runner.run(&(any::<u8>(), ops), |(place, ops)| {
        let bytes: Vec<u8> = [place]
            .into_iter()
            .chain(ops.into_iter().flatten())
            .collect();
        script::run::<B, E>(&bytes, OPERATIONS).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{}: {error}", B::NAME);
    }
}

#[test]
fn any_script_holds_on_4_levels() {
    scripts_hold::<X86_64, Pointer>();
}

#[test]
fn any_script_holds_on_5_levels_and_with_masks() {
    scripts_hold::<X86_64La57, Mask>();
}
