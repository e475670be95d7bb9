//! What is seen of many entries together.

use crate::outcome::{Verdict, ensure};
use core::sync::atomic::AtomicU64;
use mm_core::paging::{EntryFormat, SeenBits};

/// More than whatever a format looks at together, and no multiple of it.
const ENTRIES: usize = 67;

pub(super) fn bits_are_seen_in_all_entries_wherever_they_are<F: EntryFormat>() -> Verdict {
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
            let SeenBits { all, any } = F::seen_bits(part);
            ensure(
                (all, any) == expected,
                "the bits that all entries have, and any",
            )?;
        }
    }
    Ok(())
}
