//! Leaf tables that are linked from several places: all of their entries are the same tail leaf.
//!
//! ```text
//!   a compound page of 1 GiB      span 0   span 1 ... span 7     next compound page ...
//!   upper table                    [P]      [S] ...  [S]          [P]  [S] ... [S]
//!                                   |        |________|________________|_______|
//!   leaf tables                 [H T T T]          [T T T T]   one for each tail frame
//! ```
//!
//! Which tables there are is remembered by their entries, without a reference: a table is forgotten
//! when its last link goes. Should more tail frames be in use at a time than are remembered, a
//! compound page may get a second table: more memory, nothing worse.

use super::entries::write_run;
use super::tree::{Tree, entries_of};
use super::{RadixTable, load, store};
use crate::addr::{NodeId, Order, Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames, Released};
use crate::paging::{
    Entry, EntryFormat, Flush, Leaf, Link, MapError, Mmu, PageTable, References, Role, Run, Step,
};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many shared tables are remembered at a time.
const REMEMBERED: usize = 32;

/// The shared tables, by the entry that fills them.
///
/// Changed only with the page table borrowed mutably; atomic so that it may be read by others
/// meanwhile.
#[derive(Debug)]
pub(super) struct SharedTables {
    /// Entry and frame number; no entry is zero.
    tables: [(AtomicU64, AtomicU64); REMEMBERED],
    next: AtomicUsize,
}

impl SharedTables {
    pub(super) const fn new() -> Self {
        Self {
            tables: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; REMEMBERED],
            next: AtomicUsize::new(0),
        }
    }

    fn find(&self, entry: u64) -> Option<Pfn> {
        let mut known = self.tables.iter();
        let (_, frame) = known.find(|(known, _)| known.load(Ordering::Relaxed) == entry)?;
        Pfn::new(frame.load(Ordering::Relaxed))
    }

    fn remember(&self, entry: u64, table: Pfn) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
        if let Some((known, frame)) = self.tables.get(next) {
            known.store(entry, Ordering::Relaxed);
            frame.store(table.get(), Ordering::Relaxed);
        }
    }

    pub(super) fn forget(&self, table: Pfn) {
        for (known, frame) in &self.tables {
            if frame.load(Ordering::Relaxed) == table.get() {
                known.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl<F, A, M, U> RadixTable<F, A, M, U>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu,
{
    /// The depth of the entries that link leaf tables.
    const LINKS: usize = Tree::<F>::LEAF_DEPTH - 1;

    /// How many leaves a leaf table has.
    pub(super) fn leaves_per_table() -> u64 {
        Tree::<F>::entries(Tree::<F>::LEAF_DEPTH) as u64
    }

    /// Links a table of nothing but `leaf` at the free entry `slot`: one that there is, or a new
    /// one. Says whether it is new, in which case it owns a reference for each of its leaves.
    pub(super) fn link_shared(
        &self,
        slot: &AtomicU64,
        leaf: Leaf,
        node: NodeId,
    ) -> Result<bool, MapError> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let entry = F::leaf(leaf, depth);
        if let Some(table) = self.shared.find(entry) {
            // SAFETY: 1: tables come from this allocator. 2: the link owns the reference.
            if unsafe { self.frames.acquire(table, 1) }.is_ok() {
                store(slot, F::table(table, true));
                return Ok(false);
            }
            self.shared.forget(table);
        }
        let block = self.frames.allocate(Order::BASE, node);
        let table = block.map_err(MapError::OutOfFrames)?.first();
        // SAFETY: 1 and 2: the table was allocated just now and is linked nowhere.
        write_run::<F>(
            unsafe { self.private_table(table, depth) },
            entry,
            Step::Same,
        );
        self.shared.remember(entry, table);
        self.mmu.publish();
        store(slot, F::table(table, true));
        Ok(true)
    }

    /// All leaves of the shared table `frame`.
    pub(super) fn shared_run(&self, frame: Pfn) -> Option<Run> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let first = self.live_table(frame, depth).first()?;
        match F::decode(load(first), depth) {
            Entry::Leaf(leaf) => Some(Run {
                leaf,
                count: Self::leaves_per_table(),
                step: Step::Same,
            }),
            _ => None,
        }
    }

    /// See [`PageTable::share_tables`].
    ///
    /// # Safety
    ///
    /// As there.
    pub(super) unsafe fn merge_tables(&mut self, range: VirtRange, released: &mut dyn FnMut(Run)) {
        let mut flush = Flush::nothing();
        self.for_each_link(0, self.root, range, &mut |slot, part| {
            if !Tree::<F>::covers_entry(Self::LINKS, part) {
                return;
            }
            let entry = load(slot);
            let Entry::Table {
                frame,
                link: Link::Private,
            } = F::decode(entry, Self::LINKS)
            else {
                return;
            };
            let Some(leaf) = self.only_tail_of(frame) else {
                return;
            };
            if self.shared.find(leaf).is_some() {
                store(slot, F::invalidated(entry));
                flush.add(part);
            } else {
                self.shared.remember(leaf, frame);
                store(slot, F::table(frame, true));
            }
        });
        self.flush(flush);
        self.for_each_link(0, self.root, range, &mut |slot, _| {
            if let Entry::InvalidTable { frame } = F::decode(load(slot), Self::LINKS) {
                self.replace_by_shared(slot, frame, released);
            }
        });
        self.mmu.entries_added();
    }

    /// Links the shared table that is like the table `frame`, whose link `slot` was invalidated and
    /// flushed, and gives `frame` back; or links `frame` again where there is none after all.
    fn replace_by_shared(&self, slot: &AtomicU64, frame: Pfn, released: &mut dyn FnMut(Run)) {
        let known = self
            .only_tail_of(frame)
            .and_then(|leaf| self.shared.find(leaf));
        // SAFETY: 1: tables come from this allocator. 2: the link owns the reference.
        let table = known.filter(|table| unsafe { self.frames.acquire(*table, 1) }.is_ok());
        match table {
            Some(table) => {
                self.mmu.publish();
                store(slot, F::table(table, true));
                self.release_table(Tree::<F>::LEAF_DEPTH, frame, released);
            }
            None => store(slot, F::table(frame, false)),
        }
    }

    /// The entry that fills all of the leaf table `frame`, if it is one and that of a tail.
    fn only_tail_of(&self, frame: Pfn) -> Option<u64> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(frame, depth);
        let first = load(slots.first()?) & !F::STATUS_BITS;
        let Entry::Leaf(leaf) = F::decode(first, depth) else {
            return None;
        };
        let alike = slots
            .iter()
            .all(|slot| load(slot) & !F::STATUS_BITS == first);
        (leaf.role == Role::Tail && alike).then(|| F::leaf(leaf, depth))
    }

    /// See [`PageTable::unshare_tables`].
    pub(super) fn split_tables(
        &mut self,
        range: VirtRange,
        node: NodeId,
        references: &mut dyn References,
    ) -> Result<(), MapError> {
        // A range covers a part of at most two tables: the first and the last that it touches.
        let first = self.partly_covered(range.start(), range);
        let last = self.partly_covered(range.last(), range);
        let ends = [first, last.filter(|_| first != last)];
        let mut copies: [Option<(VirtRange, Pfn)>; 2] = [None; 2];
        for (copy, (span, run)) in copies.iter_mut().zip(ends.into_iter().flatten()) {
            match self.private_copy(run, node, references) {
                Ok(table) => *copy = Some((span, table)),
                Err(error) => {
                    for (_, table) in copies.into_iter().flatten() {
                        self.release_table(Tree::<F>::LEAF_DEPTH, table, &mut |run| {
                            references.release(run);
                        });
                    }
                    return Err(error);
                }
            }
        }
        let mut flush = Flush::nothing();
        for (span, _) in copies.into_iter().flatten() {
            self.for_each_link(0, self.root, span, &mut |slot, _| {
                store(slot, F::invalidated(load(slot)));
            });
            flush.add(span);
        }
        self.flush(flush);
        for (span, table) in copies.into_iter().flatten() {
            self.for_each_link(0, self.root, span, &mut |slot, _| {
                let old = F::decode(load(slot), Self::LINKS);
                self.mmu.publish();
                store(slot, F::table(table, false));
                if let Entry::InvalidTable { frame } = old {
                    self.release_table(Tree::<F>::LEAF_DEPTH, frame, &mut |run| {
                        references.release(run);
                    });
                }
            });
        }
        self.mmu.entries_added();
        Ok(())
    }

    /// The span and the leaves of the shared table that maps `at`, if `range` covers only a part of
    /// it.
    fn partly_covered(&self, at: VirtAddr, range: VirtRange) -> Option<(VirtRange, Run)> {
        let mut found = None;
        self.for_each_link(0, self.root, VirtRange::between(at, at)?, &mut |slot, _| {
            if let Entry::Table {
                frame,
                link: Link::Shared,
            } = F::decode(load(slot), Self::LINKS)
            {
                found = self.shared_run(frame);
            }
        });
        let span = Tree::<F>::span(Self::LINKS, at)?;
        let whole = range.contains(span.start()) && range.contains(span.last());
        found.filter(|_| !whole).map(|run| (span, run))
    }

    /// A new table, linked nowhere, all of whose leaves are those of `run`.
    fn private_copy(
        &self,
        run: Run,
        node: NodeId,
        references: &mut dyn References,
    ) -> Result<Pfn, MapError> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let block = self.frames.allocate(Order::BASE, node);
        let block = block.map_err(MapError::OutOfFrames)?;
        if !references.acquire(run) {
            // SAFETY: 1: it came from this allocator. 2: its one reference is ours.
            if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                self.frames.free(owned);
            }
            let order = Order::BASE;
            return Err(MapError::OutOfFrames(OutOfFrames { order, node }));
        }
        // SAFETY: 1 and 2: the table was allocated just now and is linked nowhere.
        let slots = unsafe { self.private_table(block.first(), depth) };
        write_run::<F>(slots, F::leaf(run.leaf, depth), Step::Same);
        Ok(block.first())
    }

    /// Calls `visit` for each entry that could link a leaf table for `range`, with its part of it.
    fn for_each_link(
        &self,
        depth: usize,
        frame: Pfn,
        range: VirtRange,
        visit: &mut dyn FnMut(&AtomicU64, VirtRange),
    ) {
        let slots = self.live_table(frame, depth);
        for (part, slot) in entries_of::<F>(slots, depth, range) {
            if depth == Self::LINKS {
                visit(slot, part);
            } else if let Entry::Table { frame, .. } = F::decode(load(slot), depth) {
                self.for_each_link(depth + 1, frame, part, visit);
            }
        }
    }
}
