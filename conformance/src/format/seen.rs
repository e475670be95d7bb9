//! What is seen of many entries together.

use super::any::AnyFormat;
use crate::outcome::{Verdict, ensure};
use core::sync::atomic::AtomicU64;
use mm_core::paging::{EntryLines, SeenBits};

/// More than whatever a format looks at together, and no multiple of it.
const ENTRIES: usize = 67;

pub(super) fn bits_are_seen_in_all_entries_wherever_they_are(format: &AnyFormat) -> Verdict {
    let (usual, other) = (0x0123_4567_89ab_cdef, 0xff00_4567_89ab_cd10);
    for place in 0..ENTRIES {
        let of = |index| AtomicU64::new(if index == place { other } else { usual });
        let entries: [AtomicU64; ENTRIES] = core::array::from_fn(of);
        for (first, last) in [(0, ENTRIES), (1, ENTRIES), (2, ENTRIES - 1), (0, 1), (5, 5)] {
            let part = entries.get(first..last).unwrap_or_default();
            let seen = part
                .iter()
                .map(|entry| entry.load(core::sync::atomic::Ordering::Relaxed));
            let expected = seen.fold((u64::MAX, 0), |(all, any), entry| {
                (all & entry, any | entry)
            });
            let SeenBits { all, any } = (format.seen_bits)(part);
            ensure(
                (all, any) == expected,
                "the bits that all entries have, and any",
            )?;
        }
    }
    Ok(())
}

/// More lines than whatever a format looks at together, and no multiple of it.
const LINES: usize = 19;

pub(super) fn lines_are_those_of_a_table_but_for_hidden_bits(format: &AnyFormat) -> Verdict {
    let lines = EntryLines {
        first: [9, 1 << 20, 300, 4000, 5, 60, u64::MAX, 8000],
        steps: [
            format.frame_step,
            0,
            3,
            u64::MAX,
            2 * format.frame_step,
            7,
            9,
            1 << 40,
        ],
        hidden: 1 << 5,
    };
    let line = |number: u64| {
        let entries = lines.first.iter().zip(lines.steps);
        entries.map(move |(first, step)| first.wrapping_add(step.wrapping_mul(number)))
    };
    for place in 0..LINES * EntryLines::LENGTH {
        for (bit, expected) in [(0, false), (5, true), (12, false), (63, false)] {
            let mut entries = [const { [const { AtomicU64::new(0) }; EntryLines::LENGTH] }; LINES];
            for (number, entries) in entries.iter_mut().enumerate() {
                for (slot, entry) in entries.iter_mut().zip(line(number as u64)) {
                    *slot.get_mut() = entry;
                }
            }
            ensure((format.are_lines)(&entries, &lines), "they are the lines")?;
            if let Some(slot) = entries.as_flattened_mut().get_mut(place) {
                *slot.get_mut() ^= 1 << bit;
            }
            ensure(
                (format.are_lines)(&entries, &lines) == expected,
                "one entry differs, or in a hidden bit only",
            )?;
            let (before, _) = entries.split_at(place / EntryLines::LENGTH);
            ensure(
                (format.are_lines)(before, &lines),
                "the lines before it are the lines",
            )?;
        }
    }
    Ok(())
}
