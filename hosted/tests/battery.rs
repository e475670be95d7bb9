//! The conformance battery, on every backend.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use conformance::{Outcome, checks};
use hosted::{
    AArch64_4K, AArch64_16K, AArch64_64K, HostedAltmap, HostedHarness, Machine, Power, Sim, X86_64,
    X86_64La57,
};

/// Runs every check, on a machine of its own or on one machine for all, and lists what did not
/// pass.
fn battery<B: Power>(fresh: bool, may_skip: &[&str]) {
    let reserved = HostedHarness::<B>::reserved();
    let machine = || Machine::<B>::new(&HostedHarness::<B>::config()).unwrap();
    let node = Machine::<B>::NODES[0];
    let mut outcomes = Vec::new();
    if fresh {
        for index in 0..checks::<HostedHarness<'_, B>>().count() {
            let machine = machine();
            // SAFETY: 1 to 4: the machine has memory there, for this altmap alone, one vmemmap and
            // one thread.
            let altmap = unsafe { HostedAltmap::new(&B::MODEL, machine.memory(), reserved, node) };
            let altmap = altmap.unwrap();
            let mut harness = HostedHarness::new(&machine, &altmap).unwrap();
            let check = checks().nth(index).unwrap();
            outcomes.push((check.name(), conformance::run_one(&mut harness, &check)));
            if !machine.violations().is_empty() {
                eprintln!("{}: {}", check.name(), machine.violations());
            }
        }
    } else {
        let machine = machine();
        // SAFETY: 1 to 4: as above.
        let altmap = unsafe { HostedAltmap::new(&B::MODEL, machine.memory(), reserved, node) };
        let altmap = altmap.unwrap();
        let mut harness = HostedHarness::new(&machine, &altmap).unwrap();
        let mut report = |name, outcome| outcomes.push((name, outcome));
        conformance::run(&mut harness, &mut report);
    }
    let skips = |name| may_skip.contains(&name);
    let bad = outcomes.iter().filter(|(name, outcome)| match outcome {
        Outcome::Passed => skips(*name),
        Outcome::Skipped(_) => !skips(*name),
        Outcome::Failed(_) => true,
    });
    let bad: Vec<String> = bad.map(|(name, o)| format!("{name}: {o}")).collect();
    assert!(bad.is_empty(), "{}: {bad:#?}", B::NAME);
    assert!(outcomes.len() > 35);
}

/// What the oracle has no tables for.
const SIM_SKIPS: [&str; 1] = ["other_roots_are_told_of_the_roots_entries"];

#[test]
fn the_oracle_passes_the_battery() {
    battery::<Sim>(true, &SIM_SKIPS);
    battery::<Sim>(false, &SIM_SKIPS);
}

#[test]
fn x86_64_passes_the_battery_on_a_machine_for_each_check() {
    battery::<X86_64>(true, &[]);
}

#[test]
fn x86_64_passes_the_battery_on_one_machine_for_all_checks() {
    battery::<X86_64>(false, &[]);
}

#[test]
fn x86_64_la57_passes_the_battery() {
    battery::<X86_64La57>(true, &[]);
    battery::<X86_64La57>(false, &[]);
}

/// Nobody is told of root entries where all address spaces share TTBR1.
const ARM_SKIPS: [&str; 1] = ["other_roots_are_told_of_the_roots_entries"];

#[test]
fn aarch64_4k_passes_the_battery() {
    battery::<AArch64_4K>(true, &ARM_SKIPS);
    battery::<AArch64_4K>(false, &ARM_SKIPS);
}

/// A huge leaf describes 8 GiB, more than the device has in a piece, and the altmap is a subsection.
const ARM_16K_SKIPS: [&str; 4] = [
    "other_roots_are_told_of_the_roots_entries",
    "the_predecessors_huge_leaf_is_never_read_as_a_table",
    "a_foreign_huge_leaf_next_door_is_never_read_as_a_table",
    "an_altmap_that_runs_out_leaves_nothing_behind",
];

/// A huge leaf describes 512 GiB, more than the device has at all.
const ARM_64K_SKIPS: [&str; 8] = [
    "other_roots_are_told_of_the_roots_entries",
    "a_subsection_is_never_mapped_by_a_huge_leaf",
    "a_huge_leaf_is_freed_as_a_block",
    "without_blocks_huge_leaves_become_base_pages_and_say_so",
    "the_predecessors_huge_leaf_is_never_read_as_a_table",
    "a_foreign_huge_leaf_next_door_is_never_read_as_a_table",
    "part_of_a_huge_leaf_goes_offline_and_leaves_the_rest",
    "an_altmap_that_runs_out_leaves_nothing_behind",
];

#[test]
fn aarch64_16k_passes_the_battery() {
    battery::<AArch64_16K>(true, &ARM_16K_SKIPS);
    battery::<AArch64_16K>(false, &ARM_16K_SKIPS);
}

#[test]
fn aarch64_64k_passes_the_battery() {
    battery::<AArch64_64K>(true, &ARM_64K_SKIPS);
    battery::<AArch64_64K>(false, &ARM_64K_SKIPS);
}
