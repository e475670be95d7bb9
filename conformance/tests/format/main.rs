//! The contract of formats against one that keeps it, and against others that break one duty each.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod sound;

use conformance::Outcome;
use conformance::format::{checks, run};
use mm_core::paging::EntryFormat;
use sound::Sound;
use std::collections::BTreeSet;

/// The names of the checks that `F` fails.
fn failed<F: EntryFormat>() -> Vec<&'static str> {
    let mut failed = Vec::new();
    let passed = run::<F>(&mut |name, outcome| {
        if matches!(outcome, Outcome::Failed(_)) {
            failed.push(name);
        }
    });
    assert_eq!(passed, failed.is_empty());
    failed
}

#[test]
fn a_format_that_keeps_its_duties_passes_every_check() {
    assert!(run::<Sound>(&mut |name, outcome| {
        assert_eq!(outcome, Outcome::Passed, "{name}");
    }));
}

#[test]
fn names_of_checks_are_different() {
    let names: Vec<&str> = checks::<Sound>().map(|check| check.name()).collect();
    let different: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(different.len(), names.len());
}

#[test]
fn every_check_fails_some_format_that_breaks_what_it_is_about() {
    let broken: BTreeSet<&str> = broken::noticed_by().collect();
    for check in checks::<Sound>() {
        assert!(broken.contains(check.name()), "{}", check.name());
    }
}
