//! What every [`EntryFormat`] has to keep, on no machine: a format is data and arithmetic.
//!
//! The author of a format calls [`run`] in a test, before any table is written in it:
//!
//! ```text
//!   samples: leaves, links, words ──▶ checks ──▶ Outcome: passed, failed (with numbers), skipped (why)
//! ```
//!
//! A format is judged by its own answers, so it can be consistent and wrong all the same. Which bit
//! means what to the MMU, and what the MMU faults on, is for tests of its own, with entries that
//! were worked out by hand from the manual.
//!
//! The duties of [`EntryFormat`], and what looks at them:
//!
//! | duty | checks |
//! |---|---|
//! | 1: levels | `levels_lead_from_the_root_to_base_pages` |
//! | 2: `decode` | `leaves_are_read_back_as_they_were_entered`, `links_are_read_back_as_they_were_entered`, `what_the_hardware_sets_changes_nothing_that_an_entry_says`, `nothing_but_zero_is_free` |
//! | 3: `OWNED` | `own_entries_have_the_owned_bit_and_no_others`, `an_entry_without_the_owned_bit_is_somebody_elses`, `notes_in_entries_that_are_not_present_are_reserved` |
//! | 4: `invalidated` | `an_invalidated_entry_remembers_all_that_it_said` |
//! | 5: `FRAME_STEP` | `a_step_is_the_next_frame_and_nothing_else`, `behind_the_last_frame_no_entry_follows` |
//! | 6: `TAIL` | `the_bits_for_software_are_two`, `the_tail_bit_tells_tails_and_shared_tables` |
//! | 7: `LAST_FRAME` | `the_last_frame_is_the_last_that_an_entry_holds` |
//! | 8: `translates` | `each_address_of_the_tree_is_translated_in_one_place` |
//! | 10: `ALIKE` | `a_note_in_an_invalidated_link_changes_nothing_that_it_says` |
//! | 11: `seen_bits`, `are_lines` | `bits_are_seen_in_all_entries_wherever_they_are`, `lines_are_those_of_a_table_but_for_hidden_bits` |
//!
//! That these notice what they are named after is shown by formats that break one duty each, in
//! conformance/tests/format.

mod any;
mod content;
mod frames;
mod owner;
mod samples;
mod seen;
mod shape;

use crate::outcome::{Outcome, Verdict};
use any::AnyFormat;
use mm_core::paging::EntryFormat;

/// A promise of a format, and how it is put to the test.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    name: &'static str,
    run: fn(&AnyFormat) -> Verdict,
    format: &'static AnyFormat,
}

impl Check {
    /// The promise, as a name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What comes of it.
    pub fn run(&self) -> Outcome {
        Outcome::of((self.run)(self.format), None)
    }
}

/// All checks of the format `F`.
pub fn checks<F: EntryFormat>() -> impl Iterator<Item = Check> {
    listed(AnyFormat::of::<F>())
}

macro_rules! checks {
    ($($module:ident: $($name:ident)*;)*) => {
        fn listed(format: &'static AnyFormat) -> impl Iterator<Item = Check> {
            [$($(Check {
                name: stringify!($name),
                run: $module::$name,
                format,
            },)*)*]
            .into_iter()
        }
    };
}

checks! {
    shape:
        levels_lead_from_the_root_to_base_pages
        each_address_of_the_tree_is_translated_in_one_place
        the_bits_for_software_are_two;
    content:
        leaves_are_read_back_as_they_were_entered
        links_are_read_back_as_they_were_entered
        what_the_hardware_sets_changes_nothing_that_an_entry_says
        an_invalidated_entry_remembers_all_that_it_said
        a_note_in_an_invalidated_link_changes_nothing_that_it_says
        nothing_but_zero_is_free;
    owner:
        own_entries_have_the_owned_bit_and_no_others
        an_entry_without_the_owned_bit_is_somebody_elses
        notes_in_entries_that_are_not_present_are_reserved
        the_tail_bit_tells_tails_and_shared_tables;
    frames:
        a_step_is_the_next_frame_and_nothing_else
        behind_the_last_frame_no_entry_follows
        the_last_frame_is_the_last_that_an_entry_holds;
    seen:
        bits_are_seen_in_all_entries_wherever_they_are
        lines_are_those_of_a_table_but_for_hidden_bits;
}

/// Runs every check of the format `F` and gives each one's name and outcome to `report`. Says
/// whether none failed.
pub fn run<F: EntryFormat>(report: &mut dyn FnMut(&'static str, Outcome)) -> bool {
    let mut passed = true;
    for check in checks::<F>() {
        let outcome = check.run();
        passed = passed && !matches!(outcome, Outcome::Failed(_));
        report(check.name(), outcome);
    }
    passed
}
