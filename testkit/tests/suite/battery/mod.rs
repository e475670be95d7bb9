//! The conformance battery, on every backend.

mod backends;

use backends::AtTheEnds;
use conformance::Outcome;
use hosted::{Backend, BackendKind, MachineConfig};
use mm_core::addr::{NodeId, Order, Pfn};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{InUse, Replacement};
use testkit::{HostedAltmap, HostedHarness, TestMachine, on_backends};

/// From how many bytes on the descriptors that fill a huge leaf are too many to be written time and
/// again.
const LARGE_LEAF: u64 = 512 << 20;

/// How large a stack is that a kernel may have at boot, where nobody reads beside the writer, and how large
/// it has to be where somebody does.
const SMALL_STACK: usize = 32 << 10;
const SMALL_STACK_WITH_READERS: usize = 48 << 10;

/// Whether each check has a machine of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Machines {
    OneForEach,
    OneForAll,
    /// The checks have one, on which nobody reads beside the writer.
    WithoutReaders,
}

/// Makes the machine that checks run on.
type NewMachine<'n> = &'n dyn Fn() -> TestMachine;

/// The altmap that the battery is given.
fn altmap_of(machine: &TestMachine) -> HostedAltmap<'_> {
    let (model, node) = (machine.model(), TestMachine::NODES[0]);
    let reserved = HostedHarness::reserved(&model);
    // SAFETY: 1 to 3: the machine has memory there, for this altmap and one vmemmap alone.
    let altmap = unsafe { HostedAltmap::new(&model, machine.memory(), reserved, node) };
    altmap.unwrap()
}

type Outcomes = Vec<(&'static str, Outcome)>;

/// Runs every check on a machine of its own.
#[inline(never)]
fn on_a_machine_for_each(new: NewMachine<'_>) -> Outcomes {
    let mut outcomes = Vec::new();
    for name in HostedHarness::check_names() {
        let machine = new();
        let altmap = altmap_of(&machine);
        let mut harness = HostedHarness::new(&machine, &altmap).unwrap();
        outcomes.push((name, harness.run_one(name).unwrap()));
        if !machine.violations().is_empty() {
            eprintln!("{name}: {}", machine.violations());
        }
    }
    outcomes
}

/// Runs all checks on one machine.
// Not inlined, as the other is not: the test of a small stack is about the battery.
#[inline(never)]
fn on_one_machine(new: NewMachine<'_>, readers: bool) -> Outcomes {
    let machine = new();
    let altmap = altmap_of(&machine);
    let mut harness = HostedHarness::new(&machine, &altmap).unwrap();
    if !readers {
        harness = harness.without_readers();
    }
    let mut outcomes = Vec::new();
    harness.run(&mut |name, outcome| outcomes.push((name, outcome)));
    outcomes
}

/// Runs every check on such machines, and lists what did not pass. Skipped is exactly what
/// `skipped` names.
fn battery_on(new: NewMachine<'_>, machines: Machines, skipped: &[&[&str]]) {
    let outcomes = match machines {
        Machines::OneForEach => on_a_machine_for_each(new),
        Machines::OneForAll => on_one_machine(new, true),
        Machines::WithoutReaders => on_one_machine(new, false),
    };
    let skips = |name| skipped.iter().any(|names| names.contains(&name));
    let bad = outcomes.iter().filter(|(name, outcome)| match outcome {
        Outcome::Passed => skips(*name),
        Outcome::Skipped(_) => !skips(*name),
        Outcome::Failed(_) => true,
    });
    let bad: Vec<String> = bad.map(|(name, o)| format!("{name}: {o}")).collect();
    assert!(bad.is_empty(), "{}: {bad:#?}", new().facts().name);
    let names = skipped.iter().copied().flatten();
    let unknown: Vec<_> = names
        .filter(|skipped| !outcomes.iter().any(|(name, _)| name == *skipped))
        .collect();
    assert!(unknown.is_empty(), "there are no such checks: {unknown:#?}");
}

/// For those that cannot exchange entries in use, or can and do not split leaves.
const CAN_EXCHANGE: &[&str] = &[
    "a_fold_is_refused_where_entries_in_use_cannot_be_exchanged",
    "part_of_a_shared_table_stays_where_entries_in_use_cannot_be_exchanged",
    "orders_stay_where_entries_in_use_cannot_be_exchanged",
    "a_huge_leaf_that_cannot_be_split_keeps_its_pages",
];

/// For allocators that take blocks back only whole.
const CAN_SPLIT: &[&str] = &["blocks_that_cannot_be_split_are_not_asked_for"];

/// Of the root's entries.
const NOT_TOLD: &[&str] = &["other_roots_are_told_of_the_roots_entries"];

/// About the library's tables, and what CPUs make of them.
const NO_TABLES: &[&str] = &[
    "an_entry_that_is_in_use_and_not_present_stays",
    "a_huge_leaf_is_not_stored_over_a_table_of_others",
    "tables_come_from_the_node_that_was_asked",
    "an_address_that_is_not_translated_is_no_other",
    "cpus_forget_the_way_to_a_table_that_went",
    "only_tables_that_are_alike_become_one",
    "a_shared_table_that_is_unmapped_in_part_stays",
    "a_table_is_unlinked_before_it_is_freed",
    "shared_tables_cost_one_for_each_tail_frame",
    "every_size_of_piece_gives_the_same_tables",
    "part_of_a_shared_table_goes_offline_and_the_rest_stays",
    "part_of_a_shared_table_stays_where_entries_in_use_cannot_be_exchanged",
    "a_copy_of_a_table_that_finds_no_frame_changes_nothing",
    "whole_tables_go_offline_without_memory",
    "a_shared_table_goes_with_its_last_link",
    "a_shared_table_that_is_split_everywhere_is_freed_after_the_flush",
    "a_failed_online_leaves_no_shared_table_behind",
    "shared_tables_can_be_unfolded_and_folded",
    "folding_base_pages_links_shared_tables",
    "an_unfold_of_shared_tables_that_finds_no_frame_changes_nothing",
    "regions_side_by_side_share_tables_at_their_borders",
    "pages_change_together_with_the_tables_that_they_share",
    "what_shared_tables_need_suffices_and_less_changes_nothing",
];

/// What readers find.
const NO_READERS: &[&str] = &[
    "readers_find_memory_when_all_of_it_is_online_and_none_after_the_wait",
    "readers_find_pages_as_before_or_as_after_while_their_order_changes",
    "readers_find_the_same_pages_while_they_are_folded_and_unfolded",
    "readers_get_no_reference_to_what_is_frozen_and_find_it_again_when_it_thaws",
];

/// The descriptors of what a huge leaf describes fill 512 MiB there, those of a compound page that
/// spans two leaf tables twice as much: too much to be written time and again.
const LARGE_TABLES: &[&str] = &[
    "unfolding_all_brings_back_the_leaf_that_parts_left_out",
    "neighbours_of_what_is_folded_stay_as_they_are",
    "without_blocks_unfolding_gives_base_pages_and_says_so",
    "shared_tables_can_be_unfolded_and_folded",
    "folding_base_pages_links_shared_tables",
    "an_unfold_of_shared_tables_that_finds_no_frame_changes_nothing",
    "pages_that_a_huge_leaf_describes_change_and_it_comes_back",
    "what_shared_tables_need_suffices_and_less_changes_nothing",
];

/// What takes the exchange of entries in use.
const EXCHANGES: &[&str] = &[
    "a_shared_table_that_is_split_everywhere_is_freed_after_the_flush",
    "part_of_a_shared_table_goes_offline_and_the_rest_stays",
    "a_copy_of_a_table_that_finds_no_frame_changes_nothing",
    "shared_tables_can_be_unfolded_and_folded",
    "folding_base_pages_links_shared_tables",
    "an_unfold_of_shared_tables_that_finds_no_frame_changes_nothing",
    "folding_names_the_right_heads_by_pointer",
    "fold_then_unfold_returns_to_the_frames_of_the_start",
    "unfolding_brings_the_huge_leaf_back",
    "unfolding_all_brings_back_the_leaf_that_parts_left_out",
    "what_came_online_folded_can_be_unfolded_and_folded_again",
    "folding_one_by_one_is_the_same_as_all_at_once",
    "folding_twice_changes_nothing",
    "a_fold_is_flushed_by_the_batch",
    "folding_keeps_what_the_kernel_wrote_in_the_heads_page",
    "unfolded_descriptors_are_writable_and_nobody_elses",
    "neighbours_of_what_is_folded_stay_as_they_are",
    "tails_in_memory_of_boot_are_initialised_when_it_is_folded",
    "tails_of_others_are_not_folded_over",
    "what_is_not_whole_and_online_is_not_folded",
    "a_failed_fold_changes_nothing",
    "a_failed_unfold_changes_nothing",
    "without_blocks_unfolding_gives_base_pages_and_says_so",
    "marks_survive_fold_and_unfold",
    "folding_gives_frames_back_to_the_altmap",
    "an_unfold_that_exhausts_the_altmap_changes_nothing",
    "what_an_altmap_reserves_is_not_folded",
    "counters_do_not_underflow_on_a_failed_fold",
    "pages_of_every_order_become_pages_of_every_other",
    "pages_change_together_with_the_tables_that_they_share",
    "pages_that_a_huge_leaf_describes_change_and_it_comes_back",
    "a_huge_leaf_that_cannot_be_split_keeps_its_pages",
    "frames_of_a_change_come_from_the_altmap_and_go_back_to_it",
    "a_part_leaves_the_largest_pages_that_fit",
    "memory_of_many_orders_goes_offline_to_the_last_frame",
    "what_is_beside_a_change_of_orders_stays_as_it_is",
    "a_change_of_orders_next_to_foreign_memory_leaves_it_alone",
    "what_is_needed_suffices_and_less_changes_nothing",
    "what_shared_tables_need_suffices_and_less_changes_nothing",
    "a_reserve_is_filled_wholly_or_not_at_all",
    "one_reserve_serves_any_number_of_changes",
    "steps_change_whole_units_and_leave_the_rest",
    "first_descriptors_keep_what_the_kernel_wrote_and_others_are_new",
    "packed_pages_become_pages_of_another_order_and_what_they_were",
    "readers_find_pages_as_before_or_as_after_while_their_order_changes",
    "readers_find_the_same_pages_while_they_are_folded_and_unfolded",
];

/// The checks that cannot be done there.
fn skipped(new: NewMachine<'_>) -> Vec<&'static [&'static str]> {
    let machine = new();
    let model = machine.model();
    let table = machine.take_table(HostedHarness::foreign(&model)).unwrap();
    let exchange = match table.replacement() {
        Replacement::Refused => EXCHANGES,
        _ => CAN_EXCHANGE,
    };
    let mut skipped = vec![exchange, CAN_SPLIT];
    if !machine.facts().has_tables {
        // Nobody translates there, either.
        skipped.extend([NO_TABLES, NO_READERS]);
    }
    if machine.cpus().root_changes().is_none() {
        skipped.push(NOT_TOLD);
    }
    let leaf = machine.facts().huge_leaf.unwrap_or(Order::BASE).frames() * model.granule().bytes();
    if leaf >= LARGE_LEAF {
        skipped.push(LARGE_TABLES);
    }
    skipped
}

/// The battery on a backend, whose kernel can keep CPUs away from addresses or not.
fn battery(kind: BackendKind, machines: Machines, quiesce: bool) {
    let config = MachineConfig {
        quiesce,
        ..HostedHarness::config(&kind.model())
    };
    let new = || TestMachine::new(kind, &config).unwrap();
    let mut skipped = skipped(&new);
    if machines == Machines::WithoutReaders {
        skipped.push(NO_READERS);
    }
    battery_on(&new, machines, &skipped);
}

fn the_battery_passes_on_a_machine_for_each_check(kind: BackendKind) {
    battery(kind, Machines::OneForEach, true);
}

/// As `conformance::Parts` says, for leaves of 512 pages.
#[test]
fn two_to_the_13_frames_of_ram_are_enough() {
    let config = MachineConfig {
        ram_frames: 1 << 13,
        ..HostedHarness::config(&BackendKind::X86_64.model())
    };
    let new = || TestMachine::new(BackendKind::X86_64, &config).unwrap();
    battery_on(&new, Machines::OneForEach, &skipped(&new));
}

fn the_battery_passes_on_one_machine_for_all_checks(kind: BackendKind) {
    battery(kind, Machines::OneForAll, true);
}

on_backends!(all:
    the_battery_passes_on_a_machine_for_each_check,
    the_battery_passes_on_one_machine_for_all_checks,
);

#[test]
fn aarch64_without_a_quiesce_hook_passes_the_battery() {
    for machines in [Machines::OneForEach, Machines::OneForAll] {
        battery(BackendKind::AArch64_4K, machines, false);
    }
}

#[test]
fn a_vmemmap_and_ram_at_the_ends_pass_the_battery() {
    let mut config = HostedHarness::config(&AtTheEnds::MODEL);
    // The first frames are RAM, and described like any others.
    config.devices.retain(|range| range.start() != Pfn::ZERO);
    let new = || TestMachine::of::<AtTheEnds>(&config).unwrap();
    let machine = new();
    let first = machine.frames().allocate(Order::BASE, NodeId::new(0));
    let first = first.unwrap();
    assert_eq!(
        first.first(),
        Pfn::ZERO,
        "frame 0 is the first that is taken"
    );
    // SAFETY: 1 and 2: allocated just now, and not mapped.
    if let Released::Last(owned) = unsafe { machine.frames().release(first, 1) } {
        // SAFETY: 1: it released the block just now.
        unsafe { machine.frames().free(owned) };
    }
    for machines in [Machines::OneForEach, Machines::OneForAll] {
        battery_on(&new, machines, &[CAN_EXCHANGE, CAN_SPLIT]);
    }
}

/// A kernel runs it at boot, on a stack of a few pages. The simulation's own calls are included here.
#[test]
fn the_battery_runs_on_a_small_stack() {
    for (machines, stack) in [
        (Machines::WithoutReaders, SMALL_STACK),
        (Machines::OneForAll, SMALL_STACK_WITH_READERS),
    ] {
        let battery = move || battery(BackendKind::X86_64, machines, true);
        let small = std::thread::Builder::new().stack_size(stack);
        small.spawn(battery).unwrap().join().unwrap();
    }
}

/// The list of what goes wrong elsewhere is in a comment; what it names is there.
#[test]
fn the_checks_that_are_said_to_notice_what_goes_wrong_elsewhere_exist() {
    let source = include_str!("../../../../conformance/src/checks/mod.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<_> = rows.skip(1).collect();
    assert_eq!(rows.len(), 24, "things that were seen elsewhere");
    let known = HostedHarness::check_names();
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for row in rows {
        let (_, noticed_by) = row.split_once(" | ").unwrap();
        let quoted = noticed_by.split('`').skip(1).step_by(2);
        let names: Vec<_> = quoted.filter(|name| !name.contains(' ')).collect();
        let files = noticed_by.split([' ', ';', ',']);
        let mut files = files.filter(|word| word.starts_with("testkit/")).peekable();
        assert!(!names.is_empty() || files.peek().is_some(), "{row}");
        for name in names {
            assert!(known.contains(&name), "{name}");
        }
        for file in files {
            assert!(std::path::Path::new(tests).join(file).exists(), "{file}");
        }
    }
}
