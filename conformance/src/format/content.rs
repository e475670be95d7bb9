//! What entries say.

use super::any::AnyFormat;
use super::samples::{ALL_ROLES, Sample, each, each_leaf, each_link, each_own, statuses, words};
use crate::outcome::{Verdict, ensure, equal};
use mm_core::paging::Entry;

pub(super) fn leaves_are_read_back_as_they_were_entered(format: &AnyFormat) -> Verdict {
    each_leaf(format, &ALL_ROLES, &mut |leaf| leaf.read(format))
}

pub(super) fn links_are_read_back_as_they_were_entered(format: &AnyFormat) -> Verdict {
    each_link(format, &mut |link| link.read(format))
}

pub(super) fn what_the_hardware_sets_changes_nothing_that_an_entry_says(
    format: &AnyFormat,
) -> Verdict {
    each(format, &mut |sample| {
        statuses(format).try_for_each(|status| sample.with_status(format, status).read(format))
    })
}

pub(super) fn an_invalidated_entry_remembers_all_that_it_said(format: &AnyFormat) -> Verdict {
    each_own(format, &mut |sample| {
        for status in statuses(format) {
            let sample = sample.with_status(format, status);
            let Some(invalid) = sample.invalidated(format) else {
                continue;
            };
            ensure(invalid.entry != 0, "it is in use")?;
            let bits = format.owned | format.tail;
            equal(
                sample.entry & bits,
                invalid.entry & bits,
                "it keeps the bits for software",
            )?;
            invalid.read(format)?;
            equal(
                invalid.entry,
                (format.invalidated)(invalid.entry),
                "it cannot become more invalid",
            )?;
        }
        Ok(())
    })
}

pub(super) fn a_note_in_an_invalidated_link_changes_nothing_that_it_says(
    format: &AnyFormat,
) -> Verdict {
    each_link(format, &mut |link| {
        equal(0, link.entry & format.alike, "no link has the note")?;
        let Some(invalid) = link.invalidated(format) else {
            return Ok(());
        };
        let entry = invalid.entry | format.alike;
        Sample { entry, ..invalid }.read(format)
    })
}

pub(super) fn nothing_but_zero_is_free(format: &AnyFormat) -> Verdict {
    let is_free = |entry, depth| (format.decode)(entry, depth) == Entry::Free;
    for depth in 0..format.levels.len() {
        ensure(is_free(0, depth), "zero is free")?;
        for word in words(format, depth).filter(|word| *word != 0) {
            let taken_for_free = if is_free(word, depth) { word } else { 0 };
            equal(0, taken_for_free, "what is not zero is in use")?;
        }
    }
    each(format, &mut |sample| {
        ensure(sample.entry != 0, "an entry is in use")?;
        let invalid = sample.invalidated(format);
        for sample in [Some(sample), invalid].into_iter().flatten() {
            ensure(
                !is_free(sample.entry, sample.depth),
                "an entry, present or not, is in use",
            )?;
        }
        Ok(())
    })
}
