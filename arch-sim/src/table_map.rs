//! The direct map of a page table, with somebody who watches it.
//!
//! ```text
//!   page table ──▶ TableMap ──▶ SimMemory
//!                     │ each time that a table is looked into
//!                     ▼
//!                 TableWatch     looks, entries written
//! ```
//!
//! Nothing of a page table's own is used, so what it says of its work and what it does can be compared.

use crate::memory::SimMemory;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::frame::DirectMap;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a page table does to its tables; clones are handles on the same counts.
///
/// A *look* is one time that the page table asks where a table is: it reads or writes entries of it then,
/// one or all.
///
/// *Entries written* are counted on demand, since that takes a copy of each table. They are those that are
/// found changed whenever the page table looks into any table, and at the end. A store of what an entry says
/// already is not seen, nor one that is overwritten before the next look.
#[derive(Clone, Debug, Default)]
pub struct TableWatch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    looks: AtomicU64,
    is_counting: AtomicBool,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    memory: Option<SimMemory>,
    /// What each table has said.
    tables: BTreeMap<Pfn, Vec<u64>>,
    entries: u64,
}

impl TableWatch {
    /// How many looks there were so far.
    pub fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Relaxed)
    }

    /// Counts entries in `memory` that are written from now on.
    pub fn count_writes(&self, memory: &SimMemory) {
        *self.lock() = Writing {
            memory: Some(memory.clone()),
            ..Writing::default()
        };
        self.0.is_counting.store(true, Ordering::Relaxed);
    }

    /// Ends that, and says how many there were.
    pub fn writes(&self) -> u64 {
        self.0.is_counting.store(false, Ordering::Relaxed);
        let mut writing = std::mem::take(&mut *self.lock());
        writing.settle();
        writing.entries
    }

    /// `frames` are no tables any more; what others write to them is not counted.
    pub fn forget(&self, frames: PfnRange) {
        if !self.0.is_counting.load(Ordering::Relaxed) {
            return;
        }
        let mut writing = self.lock();
        let inside = writing.tables.range(frames.start()..=frames.last());
        let inside: Vec<Pfn> = inside.map(|(table, _)| *table).collect();
        if !inside.is_empty() {
            writing.settle();
        }
        for table in inside {
            writing.tables.remove(&table);
        }
    }

    #[inline]
    fn look(&self, table: Pfn) {
        // Whoever holds the page table is alone, so nothing is lost between the two.
        let looks = self.0.looks.load(Ordering::Relaxed);
        self.0.looks.store(looks + 1, Ordering::Relaxed);
        if self.0.is_counting.load(Ordering::Relaxed) {
            self.settle_and_watch(table);
        }
    }

    // Not inlined, so that nobody needs stack for it who does not count.
    #[cold]
    #[inline(never)]
    fn settle_and_watch(&self, table: Pfn) {
        let mut writing = self.lock();
        writing.settle();
        writing.watch(table);
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        let writing = self.0.writing.lock();
        writing.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn watch(&mut self, table: Pfn) {
        let Some(words) = self.memory.as_ref().and_then(|memory| memory.words(table)) else {
            return;
        };
        let now = words.iter().map(|word| word.load(Ordering::Relaxed));
        self.tables.entry(table).or_insert_with(|| now.collect());
    }

    /// Counts what has changed since.
    fn settle(&mut self) {
        let Some(memory) = &self.memory else {
            return;
        };
        for (table, before) in &mut self.tables {
            let now = memory.words(*table).unwrap_or_default();
            for (before, now) in before.iter_mut().zip(now) {
                let now = now.load(Ordering::Relaxed);
                self.entries += u64::from(*before != now);
                *before = now;
            }
        }
    }
}

/// The direct map of a page table: that of its memory.
#[derive(Clone, Copy, Debug)]
pub struct TableMap<'m> {
    memory: &'m SimMemory,
    watch: &'m TableWatch,
}

impl<'m> TableMap<'m> {
    /// That of `memory`, for one page table, of which `watch` is told.
    pub const fn new(memory: &'m SimMemory, watch: &'m TableWatch) -> Self {
        Self { memory, watch }
    }
}

// SAFETY: 1 to 3 hold because they hold for the memory behind it.
unsafe impl DirectMap for TableMap<'_> {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.watch.look(frame);
        self.memory.frame_pointer(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::addr::{Granule, PhysAddr};

    fn pfn(number: u64) -> Pfn {
        Pfn::new(number).unwrap()
    }

    #[test]
    fn looks_and_entries_that_change_between_them_are_counted() {
        let all = PfnRange::new(pfn(8), 4).unwrap();
        let memory = SimMemory::new(Granule::Size4K, &[all]).unwrap();
        let watch = TableWatch::default();
        let map = TableMap::new(&memory, &watch);
        let write = |frame: u64, entry: u64, value| {
            let at = PhysAddr::new(frame * 4096 + entry * 8);
            memory.write_u64(at, value).unwrap();
        };
        map.frame_pointer(pfn(8));
        write(8, 0, 1);
        assert_eq!((watch.looks(), watch.writes()), (1, 0), "nobody counts");

        watch.count_writes(&memory);
        map.frame_pointer(pfn(8));
        write(8, 1, 1);
        map.frame_pointer(pfn(9));
        // The same entry again, the same value, and a frame that is no table.
        write(8, 1, 2);
        write(9, 0, 0);
        write(10, 0, 1);
        map.frame_pointer(pfn(8));
        write(9, 511, 1);
        watch.forget(PfnRange::single(pfn(9)));
        write(9, 0, 1);
        assert_eq!((watch.looks(), watch.writes()), (4, 3));
    }
}
