//! Whose entries are, and what they are to the vmemmap.

use super::any::AnyFormat;
use super::samples::{Sample, each, each_own, is_own, words};
use crate::outcome::{Verdict, ensure, equal, skip};
use mm_core::paging::{Entry, Leaf, Link, Role};

pub(super) fn own_entries_have_the_owned_bit_and_no_others(format: &AnyFormat) -> Verdict {
    each(format, &mut |sample| {
        let owned = if is_own(sample.says) { format.owned } else { 0 };
        equal(
            owned,
            sample.entry & format.owned,
            "the bit that says whose",
        )?;
        match sample.invalidated(format) {
            Some(invalid) => equal(owned, invalid.entry & format.owned, "it stays"),
            None => Ok(()),
        }
    })?;
    for depth in 0..format.levels.len() {
        for word in words(format, depth) {
            let found = (format.decode)(word, depth);
            let foreign = !is_own(found) && !matches!(found, Entry::Free | Entry::Reserved);
            let without = word & !format.owned;
            ensure(
                !is_own((format.decode)(without, depth)),
                "nothing without the bit is this library's",
            )?;
            ensure(
                !foreign || word & format.owned == 0,
                "nothing with the bit is foreign",
            )?;
        }
    }
    Ok(())
}

pub(super) fn an_entry_without_the_owned_bit_is_somebody_elses(format: &AnyFormat) -> Verdict {
    each_own(format, &mut |sample| {
        let entry = sample.entry & !format.owned;
        let says = match sample.says {
            Entry::Leaf(leaf) => Entry::Leaf(Leaf {
                role: Role::Foreign,
                ..leaf
            }),
            Entry::Table { frame, .. } => Entry::Table {
                frame,
                link: Link::Foreign,
            },
            other => other,
        };
        for entry in [entry, entry ^ format.tail] {
            Sample {
                entry,
                says,
                ..sample
            }
            .read(format)?;
        }
        let Some(invalid) = sample.invalidated(format) else {
            return Ok(());
        };
        let entry = invalid.entry & !format.owned;
        let says = match entry {
            0 => Entry::Free,
            _ => Entry::Reserved,
        };
        Sample {
            entry,
            says,
            ..sample
        }
        .read(format)
    })
}

pub(super) fn notes_in_entries_that_are_not_present_are_reserved(format: &AnyFormat) -> Verdict {
    // An entry with none of the bits that invalidation clears is as good as one that was
    // invalidated.
    let mut present = 0;
    each_own(format, &mut |sample| {
        present |= sample.entry & !(format.invalidated)(sample.entry);
        Ok(())
    })?;
    if present == 0 {
        return skip(
            "invalidation clears no bit, so other entries that are not present are unknown",
        );
    }
    for depth in 0..format.levels.len() {
        for word in words(format, depth) {
            let entry = word & !(present | format.owned);
            let says = match entry {
                0 => Entry::Free,
                _ => Entry::Reserved,
            };
            Sample { entry, depth, says }.read(format)?;
        }
    }
    Ok(())
}

pub(super) fn the_tail_bit_tells_tails_and_shared_tables(format: &AnyFormat) -> Verdict {
    each(format, &mut |sample| {
        let (is_tail, other) = match sample.says {
            Entry::Leaf(leaf) => {
                let (is_tail, role) = match leaf.role {
                    Role::Descriptors => (false, Role::Tail),
                    Role::Tail => (true, Role::Descriptors),
                    Role::Foreign => (false, Role::Foreign),
                };
                (is_tail, Entry::Leaf(Leaf { role, ..leaf }))
            }
            Entry::Table { frame, link } => {
                let is_shared = link == Link::Shared;
                let link = Link::of(true, !is_shared);
                (is_shared, Entry::Table { frame, link })
            }
            other => (false, other),
        };
        let expected = if is_tail { format.tail } else { 0 };
        equal(
            expected,
            sample.entry & format.tail,
            "the bit that says tail",
        )?;
        // It is all that makes the difference.
        Sample {
            entry: sample.entry ^ format.tail,
            says: other,
            ..sample
        }
        .read(format)
    })
}
