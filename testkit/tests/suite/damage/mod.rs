//! The battery against page tables, allocators and altmaps that were damaged on purpose: the check
//! that is named after it has to notice each of them.

mod arm;
mod entries;
mod frames;
mod harness;
mod kinds;
mod table;

use conformance::{Cause, Outcome};
use kinds::Damage;
use testkit::HostedHarness;

/// Damage, and checks each of which has to fail by it, and by nothing else.
const NOTICED_BY: &[(Damage, &[&str])] = &[
    (
        Damage::ForgetsARelease,
        &[
            "base_pages_cost_a_frame_each",
            "the_last_piece_to_go_takes_the_tail_with_it",
            "the_last_user_of_a_tail_frees_it_and_the_next_gets_a_new_one",
            "neighbours_of_a_packed_head_keep_what_the_kernel_wrote",
        ],
    ),
    (
        Damage::FreesBeforeItFlushes,
        &[
            "compound_pages_cost_two_frames_each",
            "a_failed_online_leaves_nothing_behind",
            "a_shared_table_goes_with_its_last_link",
            "the_last_leaf_that_is_cleared_takes_its_tables_along",
        ],
    ),
    (
        Damage::FlushesByThePage,
        &["going_offline_is_flushed_by_the_run_and_not_by_the_page"],
    ),
    (
        Damage::LeavesTheLastPage,
        &[
            "the_last_section_of_a_region_does_not_leak",
            "memory_of_many_orders_goes_offline_to_the_last_frame",
        ],
    ),
    (
        Damage::LinksTheWrongTail,
        &[
            "tails_are_shared_within_a_compound_page_and_nowhere_else",
            "every_descriptor_finds_its_head_by_a_pointer",
            "two_orders_have_two_tails",
        ],
    ),
    (
        Damage::MapsTailsWritable,
        &[
            "shared_tails_are_read_only",
            "packed_heads_lie_side_by_side_and_all_else_is_one_frame",
        ],
    ),
    (
        Damage::KeepsWhatItTook,
        &[
            "a_failed_online_leaves_nothing_behind",
            "a_failed_populate_leaves_earlier_pieces_alone",
            "a_failed_online_leaves_no_packed_head_behind",
        ],
    ),
    (
        Damage::HidesWhatItMapped,
        &[
            "a_failed_online_leaves_nothing_behind",
            "a_failed_online_leaves_no_tail_for_all_behind",
            "an_altmap_that_runs_out_leaves_nothing_behind",
        ],
    ),
    (
        Damage::OverwritesLeaves,
        &["a_leaf_in_use_is_not_overwritten"],
    ),
    (
        Damage::FindsEverythingFree,
        &["present_and_valid_are_the_same_for_online_memory"],
    ),
    (
        Damage::OwnsForeignLeaves,
        &[
            "a_foreign_leaf_is_refused_and_stays",
            "a_foreign_huge_leaf_next_door_is_never_read_as_a_table",
        ],
    ),
    (
        Damage::BringsNoLeafBack,
        &[
            "pages_that_a_huge_leaf_describes_change_and_it_comes_back",
            "unfolding_brings_the_huge_leaf_back",
            "unfolding_all_brings_back_the_leaf_that_parts_left_out",
        ],
    ),
    (
        Damage::ExchangesBeforeItFlushes,
        &[
            "fold_then_unfold_returns_to_the_frames_of_the_start",
            "a_shared_table_that_is_split_everywhere_is_freed_after_the_flush",
            "readers_find_pages_as_before_or_as_after_while_their_order_changes",
            "readers_find_the_same_pages_while_they_are_folded_and_unfolded",
        ],
    ),
    (
        Damage::KeepsWhatItShouldExchange,
        &[
            "pages_of_every_order_become_pages_of_every_other",
            "frames_of_a_change_come_from_the_altmap_and_go_back_to_it",
            "a_part_leaves_the_largest_pages_that_fit",
            "steps_change_whole_units_and_leave_the_rest",
            "first_descriptors_keep_what_the_kernel_wrote_and_others_are_new",
            "packed_pages_become_pages_of_another_order_and_what_they_were",
        ],
    ),
    (
        Damage::ReachesBeyondAnExchange,
        &[
            "what_is_beside_a_change_of_orders_stays_as_it_is",
            "a_change_of_orders_next_to_foreign_memory_leaves_it_alone",
        ],
    ),
    (
        Damage::ForgetsWhatItExchanged,
        &["one_reserve_serves_any_number_of_changes"],
    ),
    (
        Damage::NeverAsksForSpans,
        &["pages_change_together_with_the_tables_that_they_share"],
    ),
    (
        Damage::AllocatesDespiteTheReserve,
        &["what_shared_tables_need_suffices_and_less_changes_nothing"],
    ),
    (
        Damage::LosesSpareTables,
        &["a_reserve_is_filled_wholly_or_not_at_all"],
    ),
    (
        Damage::LosesTheReleaseOfASharedTable,
        &["a_shared_table_goes_with_its_last_link"],
    ),
    (
        Damage::LeaksTables,
        &[
            "tables_are_counted_as_frames",
            "the_last_section_of_a_region_does_not_leak",
        ],
    ),
    (
        Damage::MiscountsTables,
        &["tables_are_counted_as_frames", "counters_follow_every_step"],
    ),
    (
        Damage::TellsNoRoots,
        &["other_roots_are_told_of_the_roots_entries"],
    ),
    (
        Damage::TellsRootsTwice,
        &["other_roots_are_told_of_the_roots_entries"],
    ),
    (
        Damage::ClearsAPageOfAHugeLeaf,
        &["clearing_a_page_of_a_huge_leaf_clears_all_of_it"],
    ),
    (
        Damage::KeepsClearedTables,
        &["the_last_leaf_that_is_cleared_takes_its_tables_along"],
    ),
    (
        Damage::TakesReservedForFree,
        &["an_entry_that_is_in_use_and_not_present_stays"],
    ),
    (
        Damage::StoresOverTables,
        &["a_huge_leaf_is_not_stored_over_a_table_of_others"],
    ),
    (
        Damage::TablesFromTheFirstNode,
        &["tables_come_from_the_node_that_was_asked"],
    ),
    (
        Damage::MapsAliases,
        &["an_address_that_is_not_translated_is_no_other"],
    ),
    (
        Damage::FlushesLeavesOnly,
        &["cpus_forget_the_way_to_a_table_that_went"],
    ),
    (
        Damage::CountsIn16Bits,
        &[
            "a_million_references_are_counted_exactly",
            "a_count_never_wraps",
        ],
    ),
    (
        Damage::FreesBlocksAsOnePage,
        &["a_huge_leaf_is_freed_as_a_block"],
    ),
    (
        Damage::RevivesTheDead,
        &["a_freed_frame_has_no_reference_to_acquire"],
    ),
    (
        Damage::SplitsNothing,
        &[
            "a_split_block_is_frames_with_one_reference_each",
            "unfolding_brings_the_huge_leaf_back",
            "part_of_a_huge_leaf_goes_offline_and_leaves_the_rest",
        ],
    ),
    (
        Damage::CountsOneForAll,
        &[
            "compound_pages_cost_two_frames_each",
            "one_tail_frame_serves_all_compound_pages_of_an_order",
            "folding_twice_changes_nothing",
        ],
    ),
    (
        Damage::DisownsItsFrames,
        &[
            "altmap_frames_go_back_to_the_altmap",
            "device_frames_never_reach_ram_on_an_error_path",
            "folding_gives_frames_back_to_the_altmap",
        ],
    ),
    (
        Damage::KeepsItsFrames,
        &[
            "altmap_frames_go_back_to_the_altmap",
            "an_altmap_that_ends_at_any_frame_leaves_nothing_behind",
        ],
    ),
    (
        Damage::HandsOutItsCounts,
        &["an_altmap_hands_out_all_but_its_counts"],
    ),
];

#[test]
fn each_damage_is_noticed_by_the_check_that_is_named_after_it() {
    for (damage, names) in NOTICED_BY {
        for name in *names {
            let outcome = harness::outcome(*damage, name).unwrap();
            let noticed = matches!(outcome, Outcome::Failed(_));
            assert!(noticed, "{damage:?} is not noticed by {name}: {outcome}");
        }
    }
}

#[test]
fn what_is_not_damaged_passes_all_of_these_checks() {
    for name in NOTICED_BY.iter().flat_map(|(_, names)| *names) {
        let outcome = harness::outcome(Damage::None, name).unwrap();
        assert_eq!(outcome, Outcome::Passed, "{name}");
    }
}

/// All of the battery runs on an allocator that cannot take a block back frame by frame, on a page
/// table that splits leaves. It is never asked to split one.
#[test]
fn an_allocator_that_takes_blocks_back_whole_passes() {
    let asked = "blocks_that_cannot_be_split_are_not_asked_for";
    for name in HostedHarness::check_names() {
        if name == asked {
            continue;
        }
        let outcome = harness::outcome(Damage::TakesBlocksBackWhole, name).unwrap();
        let failed = matches!(outcome, Outcome::Failed(_));
        assert!(!failed, "{name}: {outcome}");
    }
    let outcome = harness::outcome(Damage::TakesBlocksBackWhole, asked).unwrap();
    assert_eq!(outcome, Outcome::Passed);
}

#[test]
fn a_failure_shows_what_the_audit_has_found() {
    let name = "compound_pages_cost_two_frames_each";
    let outcome = harness::outcome(Damage::CountsOneForAll, name).unwrap();
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome}");
    };
    let Some(Cause::Audit(finding)) = failure.cause else {
        panic!("{failure}");
    };
    assert!(failure.to_string().contains(&finding.to_string()));
}

#[test]
fn entries_that_are_exchanged_without_a_break_are_noticed() {
    for name in [
        "fold_then_unfold_returns_to_the_frames_of_the_start",
        "unfolding_brings_the_huge_leaf_back",
        "folding_base_pages_links_shared_tables",
    ] {
        let outcome = arm::outcome(name).unwrap();
        assert!(matches!(outcome, Outcome::Failed(_)), "{name}: {outcome}");
    }
}
