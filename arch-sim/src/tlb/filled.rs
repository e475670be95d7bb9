//! Leaf tables of which a CPU has cached every entry.
//!
//! A CPU is made to cache all that is mapped again and again, while little of it changes. A table that
//! reads as it did, of which the CPU has forgotten nothing, has nothing more to cache.

use crate::memory::SimMemory;
use crate::walker::Table;
use mm_core::addr::{VirtAddr, VirtRange};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A table, and what it read when it was about to be cached.
#[derive(Debug)]
pub(super) struct Copied {
    table: Table,
    words: Box<[u64]>,
}

impl Copied {
    /// Of `table`; `None` where there is no memory.
    pub(super) fn of(table: Table, memory: &SimMemory) -> Option<Self> {
        let words = memory.words(table.frame)?.iter();
        let words = words.map(|word| word.load(Ordering::Relaxed)).collect();
        Some(Self { table, words })
    }

    /// Whether the table reads the same now.
    fn is_current(&self, memory: &SimMemory) -> bool {
        let same = |now: &[AtomicU64]| {
            let now = now.iter().map(|word| word.load(Ordering::Relaxed));
            now.eq(self.words.iter().copied())
        };
        memory.words(self.table.frame).is_some_and(same)
    }
}

/// Leaf tables that were cached whole, by their first address.
#[derive(Debug, Default)]
pub(super) struct Filled(BTreeMap<VirtAddr, Copied>);

impl Filled {
    /// Whether each entry of `table` is cached as it reads now.
    pub(super) fn has(&self, table: &Table, memory: &SimMemory) -> bool {
        let copied = self.0.get(&table.span.start());
        copied.is_some_and(|copied| copied.table == *table && copied.is_current(memory))
    }

    /// Adds a table that was cached after it was copied, unless it has changed meanwhile.
    pub(super) fn add(&mut self, copied: Copied, memory: &SimMemory) {
        if copied.is_current(memory) {
            self.0.insert(copied.table.span.start(), copied);
        }
    }

    /// Of tables that translate addresses of `range` something was forgotten.
    pub(super) fn drop_range(&mut self, range: VirtRange) {
        let before = self.0.range(..=range.last()).rev();
        let overlap = before.take_while(|(_, copied)| copied.table.span.last() >= range.start());
        let starts: Vec<VirtAddr> = overlap.map(|(start, _)| *start).collect();
        for start in starts {
            self.0.remove(&start);
        }
    }

    /// Of any table something was forgotten.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
