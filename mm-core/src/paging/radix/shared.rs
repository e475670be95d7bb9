//! Leaf tables that are linked from several places: all of their entries are the same tail leaf.
//!
//! ```text
//!   a compound page of 1 GiB      span 0   span 1 ... span 7     next compound page ...
//!   upper table                    [P]      [S] ...  [S]          [P]  [S] ... [S]
//!                                   |        |________|________________|_______|
//!   leaf tables                 [H T T T]          [T T T T]   one for each tail frame
//! ```
//!
//! The [records](crate::paging::TableRecords) that come with a call know the table of each tail leaf,
//! and hold no reference. A record is removed when the last link to its table goes.

use super::entries::write_run;
use super::replace::{Batch, Change, MappedBy};
use super::tree::Tree;
use super::{Engine, load, store};
use crate::addr::{NodeId, Pfn, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{Entry, EntryFormat, Leaf, Link, MapError, Mmu, Role, Roots, Run, Step};
use core::sync::atomic::AtomicU64;

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// Links a table of nothing but `leaf` at the first of `slots`, which is free, and at those behind it up
    /// to one that is not: an existing table, or a new one. Answers at how many, at least 1, and whether the
    /// table is new. A new one owns a reference for each of its leaves.
    pub(super) fn link_shared(
        &self,
        slots: &[AtomicU64],
        leaf: Leaf,
        node: NodeId,
    ) -> Result<(u64, bool), MapError> {
        let others = slots.get(1..).unwrap_or_default();
        let free = 1 + others.iter().take_while(|slot| load(slot) == 0).count();
        if let Some(table) = self.records.shared_table(leaf) {
            // SAFETY: 1: tables come from there. 2: the links own the references.
            let again = |links: &usize| unsafe { self.tables.link_again(table, *links as u64) };
            // Where not all can be counted, perhaps one can.
            let links = Some(free).filter(again);
            let links = links.or_else(|| Some(1).filter(|_| free > 1).filter(again));
            if let Some(links) = links {
                return Ok((self.store_links(slots, links, table), false));
            }
            self.records.remove_shared_table(leaf, table);
        }
        let depth = Tree::<F>::LEAF_DEPTH;
        let table = self.tables.allocate(node)?;
        // SAFETY: 1 and 2: the table was allocated just now and is linked nowhere.
        write_run::<F>(
            unsafe { self.private_table(table, depth) },
            self.attributes.leaf(leaf, depth),
            Step::Same,
        );
        self.records.add_shared_table(leaf, table);
        self.mmu.publish();
        // SAFETY: 1: it came from there just now. 2: the links behind the first own the references.
        let all = free == 1 || unsafe { self.tables.link_again(table, free as u64 - 1) };
        let links = if all { free } else { 1 };
        Ok((self.store_links(slots, links, table), true))
    }

    /// Links the shared table `table` at the first `links` of `slots`.
    fn store_links(&self, slots: &[AtomicU64], links: usize, table: Pfn) -> u64 {
        for slot in slots.iter().take(links) {
            store(slot, self.attributes.table(table, true));
        }
        links as u64
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
                self.release_old::<false>(change, released);
            }
        }
        flushes
    }

    /// Plans the link of a shared table in place of the leaf table at the start of `rest`. That
    /// table must be private, lie in `rest` with all of its addresses, and hold only one tail leaf.
    /// The first such table becomes the shared one. Returns what is left after it.
    #[inline(never)]
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
        let again = |table: &Pfn| unsafe { self.tables.link_again(*table, 1) };
        match self.records.shared_table(leaf).filter(again) {
            Some(table) => batch.push(Change::Relink {
                at,
                old: frame,
                table,
                shared: true,
            }),
            None => {
                self.records.add_shared_table(leaf, frame);
                if let Some(slot) = self.slot_above(at) {
                    store(slot, self.attributes.table(frame, true));
                }
            }
        }
        next
    }

    /// The leaf that fills all of the leaf table `frame`, if there is one and it is a tail.
    fn only_tail_of(&self, frame: Pfn) -> Option<Leaf> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(frame, depth);
        let first = load(slots.first()?) & !F::STATUS_BITS;
        let Entry::Leaf(leaf) = self.attributes.decode(first, depth) else {
            return None;
        };
        let alike = slots
            .iter()
            .all(|slot| load(slot) & !F::STATUS_BITS == first);
        (leaf.role == Role::Tail && alike).then_some(leaf)
    }
}
