//! Entries that follow from those before them, a line at a time.

use core::sync::atomic::{AtomicU64, Ordering};

/// Entries in lines of [eight](Self::LENGTH): in each line an entry is that of the line before at the same
/// place, and a step.
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use mm_core::paging::EntryLines;
///
/// // A line with a head and tails, and the next head behind it.
/// let lines = EntryLines {
///     first: [1, 70, 70, 70, 70, 70, 70, 70],
///     steps: [1, 0, 0, 0, 0, 0, 0, 0],
///     hidden: 0b1000_0000,
/// };
/// let table = [[1, 70, 70, 70, 70, 70, 70, 70], [2, 70, 70, 198, 70, 70, 70, 70]];
/// let mut table = table.map(|line| line.map(AtomicU64::new));
/// assert!(lines.are_in(&table));
/// *table[1][0].get_mut() = 3;
/// assert!(!lines.are_in(&table));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLines {
    /// The first line.
    pub first: [u64; Self::LENGTH],
    /// What is added, wrapping, from line to line.
    pub steps: [u64; Self::LENGTH],
    /// Bits in which entries may differ all the same.
    pub hidden: u64,
}

impl EntryLines {
    /// How many entries are a line: those of a cache line.
    pub const LENGTH: usize = 8;

    /// Whether `lines` are these. The entries are loaded one after the other.
    // Not inlined: all of the line is in registers while it runs.
    #[inline(never)]
    pub fn are_in(&self, lines: &[[AtomicU64; Self::LENGTH]]) -> bool {
        let Self {
            mut first,
            steps,
            hidden,
        } = *self;
        lines.iter().all(|line| {
            let mut differences = 0;
            for ((slot, entry), step) in line.iter().zip(&mut first).zip(steps) {
                differences |= slot.load(Ordering::Relaxed) ^ *entry;
                *entry = entry.wrapping_add(step);
            }
            differences & !hidden == 0
        })
    }
}
