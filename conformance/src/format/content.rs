//! What entries say.

use super::samples::{ALL_ROLES, Sample, each, each_leaf, each_link, each_own, statuses, words};
use crate::outcome::{Verdict, ensure, equal};
use mm_core::paging::{Entry, EntryFormat};

pub(super) fn leaves_are_read_back_as_they_were_entered<F: EntryFormat>() -> Verdict {
    each_leaf::<F>(&ALL_ROLES, &mut |leaf| leaf.read::<F>())
}

pub(super) fn links_are_read_back_as_they_were_entered<F: EntryFormat>() -> Verdict {
    each_link::<F>(&mut |link| link.read::<F>())
}

pub(super) fn what_the_hardware_sets_changes_nothing_that_an_entry_says<F: EntryFormat>() -> Verdict
{
    each::<F>(&mut |sample| {
        statuses::<F>().try_for_each(|status| sample.with_status::<F>(status).read::<F>())
    })
}

pub(super) fn an_invalidated_entry_remembers_all_that_it_said<F: EntryFormat>() -> Verdict {
    each_own::<F>(&mut |sample| {
        for status in statuses::<F>() {
            let sample = sample.with_status::<F>(status);
            let Some(invalid) = sample.invalidated::<F>() else {
                continue;
            };
            ensure(invalid.entry != 0, "it is in use")?;
            let bits = F::OWNED | F::TAIL;
            equal(
                sample.entry & bits,
                invalid.entry & bits,
                "it keeps the bits for software",
            )?;
            invalid.read::<F>()?;
            equal(
                invalid.entry,
                F::invalidated(invalid.entry),
                "it cannot become more invalid",
            )?;
        }
        Ok(())
    })
}

pub(super) fn a_note_in_an_invalidated_link_changes_nothing_that_it_says<F: EntryFormat>() -> Verdict
{
    each_link::<F>(&mut |link| {
        equal(0, link.entry & F::ALIKE, "no link has the note")?;
        let Some(invalid) = link.invalidated::<F>() else {
            return Ok(());
        };
        let entry = invalid.entry | F::ALIKE;
        Sample { entry, ..invalid }.read::<F>()
    })
}

pub(super) fn nothing_but_zero_is_free<F: EntryFormat>() -> Verdict {
    let is_free = |entry, depth| F::decode(entry, depth) == Entry::Free;
    for depth in 0..F::LEVELS.len() {
        ensure(is_free(0, depth), "zero is free")?;
        for word in words::<F>(depth).filter(|word| *word != 0) {
            let taken_for_free = if is_free(word, depth) { word } else { 0 };
            equal(0, taken_for_free, "what is not zero is in use")?;
        }
    }
    each::<F>(&mut |sample| {
        ensure(sample.entry != 0, "an entry is in use")?;
        let invalid = sample.invalidated::<F>();
        for sample in [Some(sample), invalid].into_iter().flatten() {
            ensure(
                !is_free(sample.entry, sample.depth),
                "an entry, present or not, is in use",
            )?;
        }
        Ok(())
    })
}
