//! The protocol, run through by a model checker: every interleaving of small cases, and every value
//! that a load may return.
//!
//! The functions are those of the library. What is around them is a model: two frames, whose
//! descriptors are reached through a page table (`world`). The writer does what the library does, step
//! by step. Each test has its counterparts with one ordering or one step left out, which have to fail.
//!
//! The checker does one read-modify-write after another, each at a moment of its own. Processors may order
//! those of two words in other ways, so it cannot tell what is there for that alone: `latest`, and what `set`
//! and `link` acquire. They are for the case `a_bit_is_set_while_the_last_one_is_cleared`, where two CPUs change
//! the bits and the entry, each in another order. Whoever is second at the entry has to see what the first one
//! did to the bits: the first one's `latest` releases that, the second one's `link` acquires it. By the bits it
//! is the same, so that a processor would have to break both.

mod changes;
mod freezes;
mod offline;
mod packed;
mod world;

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use world::Flaw;

/// Runs `case` in every way that it can go, without a flaw.
fn holds(case: impl Fn(Flaw) + Sync + Send + Copy + 'static) {
    loom::model(move || case(Flaw::None));
}

/// The same, in every way in which the checker takes a CPU away from a thread that could go on at most
/// three times. With three threads there are too many others to run through all of them.
fn holds_for_most(case: impl Fn(Flaw) + Sync + Send + Copy + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(3);
    checker.check(move || case(Flaw::None));
}

/// Runs `case` with `flaw` until it fails, which it has to.
fn fails(flaw: Flaw, case: impl Fn(Flaw) + Sync + Send + Copy + 'static) {
    // There is one hook for all tests.
    static QUIET: Mutex<()> = Mutex::new(());
    let _one = QUIET
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let hook = std::panic::take_hook();
    // What the checker prints of a failure is none here.
    std::panic::set_hook(Box::new(|_| ()));
    let run = catch_unwind(AssertUnwindSafe(|| loom::model(move || case(flaw))));
    std::panic::set_hook(hook);
    assert!(run.is_err(), "{flaw:?} is not noticed");
}
