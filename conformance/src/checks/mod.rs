//! The checks, by what they are about.

mod altmap;
mod ends;
mod failures;
mod frames;
mod huge;
mod online;
mod pieces;
mod refusals;
mod table;

use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::Verdict;

/// A promise, and how it is put to the test.
pub struct Check<H: Harness> {
    name: &'static str,
    run: fn(&mut Bench<'_, H>) -> Verdict,
}

impl<H: Harness> Check<H> {
    /// The promise, as a name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn run(&self, bench: &mut Bench<'_, H>) -> Verdict {
        (self.run)(bench)
    }
}

macro_rules! checks {
    ($($module:ident: $($name:ident)*;)*) => {
        /// All checks.
        pub fn checks<H: Harness>() -> impl Iterator<Item = Check<H>> {
            [$($(Check { name: stringify!($name), run: $module::$name::<H> },)*)*].into_iter()
        }
    };
}

checks! {
    frames:
        a_block_is_handed_out_with_one_reference_and_freed_with_the_last
        a_freed_frame_has_no_reference_to_acquire
        a_split_block_is_frames_with_one_reference_each;
    table:
        a_leaf_in_use_is_not_overwritten
        a_cleared_leaf_hands_its_reference_over
        a_leaf_that_does_not_fit_is_refused;
    online:
        base_pages_cost_a_frame_each
        compound_pages_cost_two_frames_each
        tails_are_shared_within_a_compound_page_and_nowhere_else
        every_descriptor_finds_its_head
        descriptors_are_not_executable
        present_and_valid_are_the_same_for_online_memory
        several_ranges_are_one_region
        tables_are_counted_as_frames;
    pieces:
        pieces_in_any_order_share_one_tail
        the_last_piece_to_go_takes_the_tail_with_it
        a_tail_of_another_compound_page_is_not_reused
        the_last_section_of_a_region_does_not_leak
        a_piece_can_go_and_come_back;
    huge:
        a_subsection_is_never_mapped_by_a_huge_leaf
        a_huge_leaf_is_freed_as_a_block
        without_blocks_huge_leaves_become_base_pages_and_say_so
        the_predecessors_huge_leaf_is_never_read_as_a_table
        a_foreign_huge_leaf_next_door_is_never_read_as_a_table
        part_of_a_huge_leaf_goes_offline_and_leaves_the_rest;
    refusals:
        a_misaligned_range_is_refused
        a_piece_outside_the_pagemap_is_refused
        memory_that_is_online_is_refused_and_stays
        memory_that_is_offline_cannot_go_offline
        a_foreign_leaf_is_refused_and_stays
        a_foreign_leaf_in_a_gap_stays_when_the_region_goes
        another_model_is_refused;
    failures:
        a_failed_online_leaves_nothing_behind
        a_failed_populate_leaves_earlier_pieces_alone
        a_rollback_leaves_the_head_of_an_earlier_piece_alone
        a_failure_next_to_foreign_memory_leaves_it_alone;
    altmap:
        altmap_frames_go_back_to_the_altmap
        an_altmap_that_runs_out_leaves_nothing_behind;
    ends:
        the_first_frame_is_a_frame_like_any_other
        the_last_frame_of_the_vmemmap_can_be_online
        other_roots_are_told_of_the_roots_entries;
}
