//! Leaf tables that are linked from several places: all of their entries are the same tail leaf.
//!
//! ```text
//!   a compound page of 1 GiB      span 0   span 1 ... span 7     next compound page ...
//!   upper table                    [P]      [S] ...  [S]          [P]  [S] ... [S]
//!                                   |        |________|________________|_______|
//!   leaf tables                 [H T T T]          [T T T T]   one for each tail frame
//! ```
//!
//! The list of shared tables has the entry of each table, and no reference. A table is removed when
//! its last link goes. The list has a fixed size. If more tail frames are in use at a time, a
//! compound page may get a second table. That costs memory and does no other harm.

use super::entries::write_run;
use super::replace::{Batch, Change, MappedBy};
use super::tree::Tree;
use super::{RadixTable, load, store};
use crate::addr::{NodeId, Pfn, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{Entry, EntryFormat, Leaf, Link, MapError, Mmu, Role, Roots, Run, Step};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many shared tables the list has room for.
const CAPACITY: usize = 32;

/// The shared tables, by the entry that fills them.
///
/// Changed only with the page table borrowed mutably; atomic so that it may be read by others
/// meanwhile.
#[derive(Debug)]
pub(super) struct SharedTables {
    /// Entry and frame number; no entry is zero.
    tables: [(AtomicU64, AtomicU64); CAPACITY],
    next: AtomicUsize,
}

impl SharedTables {
    pub(super) const fn new() -> Self {
        Self {
            tables: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; CAPACITY],
            next: AtomicUsize::new(0),
        }
    }

    fn find(&self, entry: u64) -> Option<Pfn> {
        let mut known = self.tables.iter();
        let (_, frame) = known.find(|(known, _)| known.load(Ordering::Relaxed) == entry)?;
        Pfn::new(frame.load(Ordering::Relaxed))
    }

    fn remember(&self, entry: u64, table: Pfn) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % CAPACITY;
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

impl<F, A, M, U, R> RadixTable<F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// Links a table of nothing but `leaf` at the free entry `slot`: an existing one, or a new one.
    /// Says whether it is new. A new one owns a reference for each of its leaves.
    pub(super) fn link_shared(
        &self,
        slot: &AtomicU64,
        leaf: Leaf,
        node: NodeId,
    ) -> Result<bool, MapError> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let entry = self.attributes.leaf(leaf, depth);
        if let Some(table) = self.shared.find(entry) {
            // SAFETY: 1: tables come from there. 2: the link owns the reference.
            if unsafe { self.tables.link_again(table) } {
                store(slot, self.attributes.table(table, true));
                return Ok(false);
            }
            self.shared.forget(table);
        }
        let table = self.tables.allocate(node)?;
        // SAFETY: 1 and 2: the table was allocated just now and is linked nowhere.
        write_run::<F>(
            unsafe { self.private_table(table, depth) },
            entry,
            Step::Same,
        );
        self.shared.remember(entry, table);
        self.mmu.publish();
        store(slot, self.attributes.table(table, true));
        Ok(true)
    }

    /// All leaves of the shared table `frame`.
    pub(super) fn shared_run(&self, frame: Pfn) -> Option<Run> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let first = self.live_table(frame, depth).first()?;
        match self.attributes.decode(load(first), depth) {
            Entry::Leaf(leaf) => Some(Run {
                leaf,
                count: Tree::<F>::LEAVES_PER_TABLE,
                step: Step::Same,
            }),
            _ => None,
        }
    }

    /// See [`PageTable::share_tables`](crate::paging::PageTable::share_tables).
    ///
    /// # Safety
    ///
    /// As there.
    pub(super) unsafe fn merge_tables(
        &self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
    ) -> u64 {
        let rule = self.mmu.replacement();
        let mut flushes = 0;
        let mut rest = Some(range);
        while rest.is_some() {
            let mut batch = Batch::new();
            while let Some(left) = rest
                && !batch.is_full()
            {
                rest = self.plan_merge(left, &mut batch);
            }
            flushes += u64::from(self.apply(&batch, rule));
            for change in batch.iter() {
                self.release_old(change, released);
            }
        }
        flushes
    }

    /// Plans the link of a shared table in place of the leaf table at the start of `rest`. That
    /// table must be private, lie in `rest` with all of its addresses, and hold only one tail leaf.
    /// The first such table becomes the shared one. Returns what is left after it.
    fn plan_merge(&self, rest: VirtRange, batch: &mut Batch) -> Option<VirtRange> {
        let at = rest.start();
        let depth = match self.mapped_by(at) {
            MappedBy::Other { depth } => depth,
            MappedBy::HugeLeaf(_) | MappedBy::Table { .. } => Self::HUGE_LEAF_DEPTH,
        };
        let last = Tree::<F>::last(depth, at);
        let next = rest.after(last);
        let MappedBy::Table {
            frame,
            link: Link::Private,
        } = self.mapped_by(at)
        else {
            return next;
        };
        let covered = Tree::<F>::base(depth, at) == at && last <= rest.last();
        let Some(leaf) = self.only_tail_of(frame).filter(|_| covered) else {
            return next;
        };
        // SAFETY: 1: tables come from there. 2: the link that the batch makes owns the reference.
        let again = |table: &Pfn| unsafe { self.tables.link_again(*table) };
        match self.shared.find(leaf).filter(again) {
            Some(table) => batch.push(Change::Relink {
                at,
                old: frame,
                table,
                shared: true,
            }),
            None => {
                self.shared.remember(leaf, frame);
                if let Some(slot) = self.slot_above(at) {
                    store(slot, self.attributes.table(frame, true));
                }
            }
        }
        next
    }

    /// The entry that fills all of the leaf table `frame`, if there is one and it is a tail.
    fn only_tail_of(&self, frame: Pfn) -> Option<u64> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(frame, depth);
        let first = load(slots.first()?) & !F::STATUS_BITS;
        let Entry::Leaf(leaf) = self.attributes.decode(first, depth) else {
            return None;
        };
        let alike = slots
            .iter()
            .all(|slot| load(slot) & !F::STATUS_BITS == first);
        (leaf.role == Role::Tail && alike).then(|| self.attributes.leaf(leaf, depth))
    }
}
