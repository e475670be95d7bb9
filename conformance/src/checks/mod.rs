//! The checks, by what they are about.
//!
//! # What goes wrong elsewhere
//!
//! Seen in kernels that share tails, or in crates for page tables, and prevented here. Each line
//! names the checks that notice it, or the hosted test where one CPU or one table is not enough.
//!
//! | seen elsewhere | noticed by |
//! |---|---|
//! | a populate that fails half-way leaks what it had | `a_failed_online_leaves_nothing_behind`, `a_failed_online_leaves_no_tail_for_all_behind`, `a_failed_online_leaves_no_shared_table_behind` |
//! | the predecessor in the vmemmap is a huge leaf, and is read as a table | `the_predecessors_huge_leaf_is_never_read_as_a_table`, `a_foreign_huge_leaf_next_door_is_never_read_as_a_table`, `a_large_compound_page_between_huge_leaves_takes_nothing_of_theirs` |
//! | a misaligned range breaks heads that are found by a mask | `a_misaligned_range_is_refused_and_its_aligned_part_named`, `a_misaligned_range_never_breaks_heads_found_by_a_mask` |
//! | frames are freed before the TLB is flushed | each check that takes memory offline or folds it, by the watchers of the harness: `compound_pages_cost_two_frames_each`, `a_shared_table_goes_with_its_last_link`, `fold_then_unfold_returns_to_the_frames_of_the_start` |
//! | tables are missing from the counters | `tables_are_counted_as_frames`, `counters_follow_every_step`, `each_node_has_counters_of_its_own` |
//! | unfolding never brings the huge leaf back | `unfolding_brings_the_huge_leaf_back`, `unfolding_all_brings_back_the_leaf_that_parts_left_out` |
//! | shared tails can be written to | `shared_tails_are_read_only` |
//! | counters underflow after a failure | `counters_do_not_underflow_on_a_failure`, `counters_do_not_underflow_on_a_failed_fold` |
//! | device frames go to RAM on an error path | `device_frames_never_reach_ram_on_an_error_path`, `an_altmap_that_ends_at_any_frame_leaves_nothing_behind`, `memory_of_an_altmap_is_refused_to_a_pagemap_without_it` |
//! | the block of a huge leaf is freed as one page | `a_huge_leaf_is_freed_as_a_block` |
//! | tails stay uninitialised beside, or in, memory that was there at boot | `tails_beside_memory_of_boot_are_initialised`, `tails_in_memory_of_boot_are_initialised_when_it_is_folded`, `descriptors_are_blank_whatever_their_frames_held` |
//! | the last section of a region leaks | `the_last_section_of_a_region_does_not_leak` |
//! | two threads both make the shared tail | testkit/tests/suite/creators.rs; `the_last_user_of_a_tail_frees_it_and_the_next_gets_a_new_one` |
//! | a rollback writes a tail over the head | `a_rollback_leaves_the_head_of_an_earlier_piece_alone` |
//! | a new entry of the root is not copied to other roots | `other_roots_are_told_of_the_roots_entries` |
//! | a leaf for a section where only a subsection was added | `a_subsection_is_never_mapped_by_a_huge_leaf` |
//! | out of memory leaves half of a range mapped | `a_failed_online_leaves_nothing_behind`, `a_failed_populate_leaves_earlier_pieces_alone`, `an_altmap_that_runs_out_leaves_nothing_behind` |
//! | a table is freed before its parent's entry is invalid | `a_table_is_unlinked_before_it_is_freed`, `a_shared_table_that_is_split_everywhere_is_freed_after_the_flush` |
//! | overflow at the top of the address space | `the_last_frame_of_the_vmemmap_can_be_online`; all checks with a vmemmap that ends there, in testkit/tests/suite/battery and testkit/tests/suite/third_party |
//! | frame 0 is taken for "no frame" | `the_first_frame_is_a_frame_like_any_other`; all checks with RAM that starts there, in the same places |
//! | "present" is confused with "in use" | `present_and_valid_are_the_same_for_online_memory`, `a_leaf_in_use_is_not_overwritten` |
//! | a scan for emptiness, or a walk, for each page that is unmapped | walks: testkit/tests/suite/counts; flushes: `going_offline_is_flushed_by_the_run_and_not_by_the_page`; scans show in their cost only: `cargo bench -p benches`, clear entries against memset |
//! | an entry in use is overwritten silently | `a_leaf_in_use_is_not_overwritten`, `memory_that_is_online_is_refused_and_stays` |
//! | tables leak when the value is dropped | `a_dropped_region_stays_online_and_leaks_nothing`, `a_dropped_vmemmap_leaves_its_memory_to_the_next`; testkit/tests/suite/dropped.rs |
//!
//! That these notice what they are named after is shown by damage that is kept as tests, in
//! testkit/tests/suite/damage.

mod altmap;
mod altmap_compound;
mod counters;
mod counts;
mod described;
mod ends;
mod entries;
mod failures;
mod flushes;
mod fold;
mod fold_contents;
mod fold_refusals;
mod foreign;
mod frames;
mod huge;
mod lifetimes;
mod marks;
mod neighbours;
mod online;
mod packed;
mod pieces;
mod places;
mod readers;
mod refusals;
mod reorder;
mod reorder_parts;
mod reorder_reserve;
mod shared_tables;
mod table;
mod tails;

use crate::bench::Bench;
use crate::harness::{Harness, Parts};
use crate::outcome::{Outcome, Verdict};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};

/// A promise, and how it is put to the test.
pub struct Check<H: Harness> {
    name: &'static str,
    run: fn(Parts<'_, H>) -> Outcome,
}

impl<H: Harness> Check<H> {
    /// The promise, as a name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn run(&self, parts: Parts<'_, H>) -> Outcome {
        (self.run)(parts)
    }
}

/// Runs a check. Not part of its caller, so that the stack holds one bench and not one of each
/// kind.
#[inline(never)]
fn on_bench<'h, H: Harness, E: TailEncoding>(
    parts: Parts<'h, H>,
    run: fn(&mut Bench<'h, H, E>) -> Verdict,
) -> Outcome {
    match Bench::new(parts) {
        Ok(mut bench) => bench.run(run),
        Err(fault) => Outcome::Failed(fault.because(None)),
    }
}

/// All checks.
pub fn checks<H: Harness>() -> impl Iterator<Item = Check<H>> {
    listed()
}

macro_rules! checks {
    ($($module:ident by $encoding:ident: $($name:ident)*;)*) => {
        fn listed<H: Harness>() -> impl Iterator<Item = Check<H>> {
            [$($(Check {
                name: stringify!($name),
                run: |parts| on_bench::<H, $encoding>(parts, $module::$name::<H>),
            },)*)*]
            .into_iter()
        }
    };
}

checks! {
    frames by Pointer:
        a_block_is_handed_out_with_one_reference_and_freed_with_the_last
        a_freed_frame_has_no_reference_to_acquire
        a_split_block_is_frames_with_one_reference_each;
    counts by Pointer:
        a_million_references_are_counted_exactly
        a_count_never_wraps
        tails_need_no_more_references_than_there_can_be;
    counts by Mask:
        an_altmap_counts_as_far_as_ram;
    table by Pointer:
        a_leaf_in_use_is_not_overwritten
        a_cleared_leaf_hands_its_reference_over
        the_last_leaf_that_is_cleared_takes_its_tables_along
        a_leaf_that_does_not_fit_is_refused
        a_table_is_unlinked_before_it_is_freed;
    entries by Pointer:
        only_tables_that_are_alike_become_one
        a_shared_table_that_is_unmapped_in_part_stays
        a_huge_leaf_that_is_unmapped_in_part_is_forgotten_whole
        clearing_a_page_of_a_huge_leaf_clears_all_of_it;
    foreign by Pointer:
        an_entry_that_is_in_use_and_not_present_stays
        a_huge_leaf_is_not_stored_over_a_table_of_others;
    places by Pointer:
        tables_come_from_the_node_that_was_asked
        an_address_that_is_not_translated_is_no_other
        cpus_forget_the_way_to_a_table_that_went;
    online by Pointer:
        base_pages_cost_a_frame_each
        compound_pages_cost_two_frames_each
        tails_are_shared_within_a_compound_page_and_nowhere_else
        every_descriptor_finds_its_head_by_a_pointer
        descriptors_are_not_executable
        present_and_valid_are_the_same_for_online_memory
        several_ranges_are_one_region
        tables_are_counted_as_frames;
    online by Mask:
        every_descriptor_finds_its_head_by_a_mask;
    pieces by Pointer:
        pieces_in_any_order_share_one_tail
        the_last_piece_to_go_takes_the_tail_with_it
        a_tail_of_another_compound_page_is_not_reused
        the_last_section_of_a_region_does_not_leak
        a_piece_can_go_and_come_back;
    huge by Pointer:
        a_subsection_is_never_mapped_by_a_huge_leaf
        a_huge_leaf_is_freed_as_a_block
        without_blocks_huge_leaves_become_base_pages_and_say_so
        the_predecessors_huge_leaf_is_never_read_as_a_table
        a_foreign_huge_leaf_next_door_is_never_read_as_a_table
        part_of_a_huge_leaf_goes_offline_and_leaves_the_rest
        a_region_that_ends_within_a_huge_leaf_leaves_the_rest_of_it
        blocks_that_cannot_be_split_are_not_asked_for;
    refusals by Pointer:
        a_misaligned_range_is_refused_and_its_aligned_part_named
        a_piece_outside_the_pagemap_is_refused
        memory_that_is_online_is_refused_and_stays
        memory_that_is_offline_cannot_go_offline
        a_foreign_leaf_is_refused_and_stays
        a_foreign_leaf_in_a_gap_stays_when_the_region_goes
        another_model_is_refused;
    failures by Pointer:
        a_failed_online_leaves_nothing_behind
        a_failed_populate_leaves_earlier_pieces_alone
        a_rollback_leaves_the_head_of_an_earlier_piece_alone
        a_failure_next_to_foreign_memory_leaves_it_alone;
    altmap by Mask:
        altmap_frames_go_back_to_the_altmap
        an_altmap_that_runs_out_leaves_nothing_behind
        an_altmap_that_is_not_the_start_of_its_device_is_refused
        no_store_to_descriptors_changes_the_counts_of_an_altmap
        memory_of_an_altmap_at_the_last_frame_stays_when_a_region_goes;
    altmap_compound by Mask:
        an_altmap_and_shared_tails_combine
        the_reserved_part_comes_and_goes_like_any_other
        an_altmap_whose_memory_others_have_online_is_not_used
        an_altmap_hands_out_all_but_its_counts
        pieces_behind_the_reserved_part_come_and_go_in_any_order
        device_frames_never_reach_ram_on_an_error_path
        an_altmap_that_ends_at_any_frame_leaves_nothing_behind
        folding_gives_frames_back_to_the_altmap
        an_unfold_that_exhausts_the_altmap_changes_nothing
        what_an_altmap_reserves_is_not_folded
        memory_of_an_altmap_is_refused_to_a_pagemap_without_it
        what_an_altmap_reserves_is_for_it_alone_as_long_as_it_is_in_use
        marks_of_a_device_with_an_altmap_are_in_ram;
    tails by Pointer:
        tails_that_name_their_head_are_not_shared_by_all;
    tails by Mask:
        one_tail_frame_serves_all_compound_pages_of_an_order
        heads_are_found_on_a_tail_for_all
        a_misaligned_range_never_breaks_heads_found_by_a_mask
        the_last_user_of_a_tail_frees_it_and_the_next_gets_a_new_one
        shared_tails_are_read_only
        two_orders_have_two_tails
        two_nodes_have_two_tails
        a_tail_for_all_is_not_taken_for_a_compound_pages_own
        a_failed_online_leaves_no_tail_for_all_behind
        any_number_of_tails_is_shared;
    packed by Mask:
        packed_heads_lie_side_by_side_and_all_else_is_one_frame
        neighbours_of_a_packed_head_keep_what_the_kernel_wrote
        a_failed_online_leaves_no_packed_head_behind
        packed_pages_keep_their_order
        packed_pages_become_pages_of_another_order_and_what_they_were;
    shared_tables by Mask:
        shared_tables_cost_one_for_each_tail_frame
        every_size_of_piece_gives_the_same_tables
        part_of_a_shared_table_goes_offline_and_the_rest_stays
        part_of_a_shared_table_stays_where_entries_in_use_cannot_be_exchanged
        a_copy_of_a_table_that_finds_no_frame_changes_nothing
        whole_tables_go_offline_without_memory
        a_shared_table_goes_with_its_last_link
        a_shared_table_that_is_split_everywhere_is_freed_after_the_flush
        a_failed_online_leaves_no_shared_table_behind
        shared_tables_can_be_unfolded_and_folded
        folding_base_pages_links_shared_tables
        an_unfold_of_shared_tables_that_finds_no_frame_changes_nothing
        who_cannot_share_tables_says_so;
    fold by Pointer:
        folding_names_the_right_heads_by_pointer;
    fold by Mask:
        fold_then_unfold_returns_to_the_frames_of_the_start
        unfolding_brings_the_huge_leaf_back
        unfolding_all_brings_back_the_leaf_that_parts_left_out
        what_came_online_folded_can_be_unfolded_and_folded_again
        folding_one_by_one_is_the_same_as_all_at_once
        folding_twice_changes_nothing
        a_fold_is_flushed_by_the_batch;
    fold_contents by Mask:
        folding_keeps_what_the_kernel_wrote_in_the_heads_page
        unfolded_descriptors_are_writable_and_nobody_elses
        neighbours_of_what_is_folded_stay_as_they_are
        tails_in_memory_of_boot_are_initialised_when_it_is_folded;
    fold_refusals by Mask:
        a_fold_is_refused_where_entries_in_use_cannot_be_exchanged
        tails_of_others_are_not_folded_over
        shared_tails_are_not_made_parts_of_other_pages
        what_is_not_whole_and_online_is_not_folded
        a_failed_fold_changes_nothing
        a_failed_unfold_changes_nothing
        without_blocks_unfolding_gives_base_pages_and_says_so;
    reorder by Mask:
        pages_of_every_order_become_pages_of_every_other
        pages_change_together_with_the_tables_that_they_share
        pages_that_a_huge_leaf_describes_change_and_it_comes_back
        orders_stay_where_entries_in_use_cannot_be_exchanged
        a_huge_leaf_that_cannot_be_split_keeps_its_pages
        frames_of_a_change_come_from_the_altmap_and_go_back_to_it;
    reorder_parts by Mask:
        a_part_leaves_the_largest_pages_that_fit
        memory_of_many_orders_goes_offline_to_the_last_frame
        what_is_beside_a_change_of_orders_stays_as_it_is
        a_change_of_orders_next_to_foreign_memory_leaves_it_alone;
    reorder_reserve by Mask:
        what_is_needed_suffices_and_less_changes_nothing
        what_shared_tables_need_suffices_and_less_changes_nothing
        a_reserve_is_filled_wholly_or_not_at_all
        one_reserve_serves_any_number_of_changes
        steps_change_whole_units_and_leave_the_rest
        first_descriptors_keep_what_the_kernel_wrote_and_others_are_new;
    marks by Mask:
        a_mark_is_of_one_frame_on_a_tail_of_many
        marks_survive_fold_and_unfold
        the_frame_of_marks_goes_back_with_the_last
        a_mark_that_finds_no_frame_changes_nothing
        what_goes_offline_says_what_was_marked_and_forgets_it
        only_memory_that_is_online_is_marked;
    neighbours by Mask:
        a_region_between_any_two_others_is_as_it_would_be_alone
        a_large_compound_page_between_huge_leaves_takes_nothing_of_theirs
        regions_side_by_side_share_tables_at_their_borders
        subsections_of_a_compound_page_come_and_go_in_any_grouping;
    described by Mask:
        descriptors_are_blank_whatever_their_frames_held
        tails_beside_memory_of_boot_are_initialised;
    counters by Mask:
        counters_follow_every_step
        each_node_has_counters_of_its_own
        counters_do_not_underflow_on_a_failure
        counters_do_not_underflow_on_a_failed_fold;
    readers by Mask:
        readers_find_memory_when_all_of_it_is_online_and_none_after_the_wait
        readers_find_pages_as_before_or_as_after_while_their_order_changes
        readers_find_the_same_pages_while_they_are_folded_and_unfolded
        readers_get_no_reference_to_what_is_frozen_and_find_it_again_when_it_thaws;
    lifetimes by Mask:
        a_dropped_region_stays_online_and_leaks_nothing
        a_dropped_vmemmap_leaves_its_memory_to_the_next;
    flushes by Pointer:
        going_offline_is_flushed_by_the_run_and_not_by_the_page
        coming_online_needs_no_flush;
    ends by Pointer:
        the_first_frame_is_a_frame_like_any_other
        the_last_frame_of_the_vmemmap_can_be_online
        other_roots_are_told_of_the_roots_entries;
}
