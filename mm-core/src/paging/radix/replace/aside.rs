//! Leaf tables that are built aside, and linked in place of what maps a whole span.
//!
//! ```text
//!   before    link ▶ private table   link ▶ shared table     huge leaf
//!   after     link ▶ a new table, or one that is shared      (one store each, one flush for many)
//! ```
//!
//! A new table starts as a copy of what is there. What stays in it keeps its reference: it moves from
//! the old table to the new one. References of what differs are reported after the flush.

use super::MappedBy;
use super::batch::{Batch, Change};
use super::old_run::{old_run, write};
use crate::addr::{Block, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::radix::tree::Tree;
use crate::paging::radix::{Engine, load, store};
use crate::paging::{Entry, EntryFormat, Exchange, Leaf, Link, Mmu, Role, Roots, Run, Span, Step};
use core::sync::atomic::AtomicU64;

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// What becomes of the span at the start of `rest`, if all of that is in it.
    pub(super) fn span_at(rest: VirtRange, exchange: &dyn Exchange) -> Span {
        let at = rest.start();
        let is_whole = Tree::<F>::base(Self::HUGE_LEAF_DEPTH, at) == at
            && Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at) <= rest.last();
        match is_whole {
            true => exchange.span(at),
            false => Span::Entries,
        }
    }

    /// How many tables to have for a span. The span before it becomes `before`.
    pub(super) fn tables_for(mapped: &MappedBy, span: Span, before: Span) -> u64 {
        match (mapped, span) {
            (_, Span::Entries)
            | (MappedBy::Other { .. }, _)
            | (MappedBy::HugeLeaf(_), Span::Own)
            | (
                MappedBy::Table {
                    link: Link::Foreign,
                    ..
                },
                _,
            ) => 0,
            // A shared table is there then, or its entries are exchanged in place.
            (
                MappedBy::Table {
                    link: Link::Private,
                    ..
                },
                Span::Tails,
            ) => u64::from(before != Span::Tails),
            _ => 1,
        }
    }

    /// Plans a table in place of what is `mapped` at the whole span at `at`. `false` where its entries
    /// are to be exchanged in place, for which they have to be in a private table.
    pub(super) fn plan_span(
        &self,
        mapped: &MappedBy,
        span: Span,
        at: VirtAddr,
        batch: &mut Batch,
        tables: &mut FrameStack<'_, M>,
        exchange: &mut dyn Exchange,
    ) -> bool {
        let Some(old) = self.slot_above(at).map(load) else {
            return false;
        };
        match (mapped, span) {
            (MappedBy::Other { .. }, _) | (_, Span::Entries) => false,
            (MappedBy::HugeLeaf(_), Span::Own) => true,
            (_, Span::Tails) => self.plan_tails(mapped, at, old, batch, tables, exchange),
            _ => self.plan_aside(mapped, at, old, batch, tables, exchange),
        }
    }

    /// Plans the link of a shared table of tails.
    fn plan_tails(
        &self,
        mapped: &MappedBy,
        at: VirtAddr,
        old: u64,
        batch: &mut Batch,
        tables: &mut FrameStack<'_, M>,
        exchange: &mut dyn Exchange,
    ) -> bool {
        let Some(leaf) = exchange.tail_at(at) else {
            return false;
        };
        if let MappedBy::Table {
            frame,
            link: Link::Shared,
        } = mapped
            && self.shared_run(*frame).is_some_and(|run| run.leaf == leaf)
        {
            return true;
        }
        // SAFETY: 1: tables come from there. 2: the link that the batch makes owns the reference.
        let again = |table: &Pfn| unsafe { self.tables.link_again(*table) };
        let known = self.records.shared_table(leaf).filter(again);
        let table = match known {
            Some(table) => table,
            None => {
                let Some(table) = tables.take(1).map(PfnRange::start) else {
                    return false;
                };
                let count = Tree::<F>::LEAVES_PER_TABLE;
                let step = Step::Same;
                if !exchange.acquire_for_copy(Run { leaf, count, step }) {
                    // SAFETY: 1: it was taken just now.
                    unsafe { tables.push(PfnRange::single(table)) };
                    return false;
                }
                self.fill_table_with(table, leaf, step);
                self.records.add_shared_table(leaf, table);
                table
            }
        };
        batch.push(Change::Aside {
            at,
            old,
            table,
            shared: true,
        });
        true
    }

    /// Plans a private table, in which each entry is what the exchange says.
    fn plan_aside(
        &self,
        mapped: &MappedBy,
        at: VirtAddr,
        old: u64,
        batch: &mut Batch,
        tables: &mut FrameStack<'_, M>,
        exchange: &mut dyn Exchange,
    ) -> bool {
        let Some(table) = tables.take(1).map(PfnRange::start) else {
            return false;
        };
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(table, depth);
        let was_shared = match *mapped {
            MappedBy::HugeLeaf(leaf) => {
                let block = Block::single(leaf.block.first());
                self.fill_table_with(table, Leaf { block, ..leaf }, Step::Next);
                exchange.split(leaf.block);
                false
            }
            MappedBy::Table { frame, link } => {
                for (slot, old) in slots.iter().zip(self.live_table(frame, depth)) {
                    store(slot, load(old));
                }
                link == Link::Shared
            }
            MappedBy::Other { .. } => false,
        };
        let mut is_other = was_shared || matches!(mapped, MappedBy::HugeLeaf(_));
        let mut first = 0;
        while let Some(old) = old_run(&self.attributes, slots.get(first..).unwrap_or_default()) {
            let end = first + usize::from(old.count);
            let mut left = old.run(&self.attributes);
            while let Some(run) = left {
                let at = Tree::<F>::step(depth, at, first);
                let slots = slots.get(first..end).unwrap_or_default();
                let (count, is_new) = self.exchange_aside(at, &run, slots, was_shared, exchange);
                is_other |= is_new;
                left = run.take(count.into()).1;
                first += usize::from(count);
            }
            first = end;
        }
        if !is_other {
            // SAFETY: 1: it was taken above, and is linked nowhere.
            unsafe { tables.push(PfnRange::single(table)) };
            return true;
        }
        batch.push(Change::Aside {
            at,
            old,
            table,
            shared: false,
        });
        true
    }

    /// Enters what the exchange has for the start of `run`, which `slots` of a table aside start with.
    /// Answers with how many entries that is about, and whether they are others now.
    #[inline]
    fn exchange_aside(
        &self,
        at: VirtAddr,
        run: &Run,
        slots: &[AtomicU64],
        was_shared: bool,
        exchange: &mut dyn Exchange,
    ) -> (u16, bool) {
        let new = exchange.exchange(at, *run);
        let count = new.count.clamp(1, run.count) as u16;
        let stays = new.leaf == run.leaf && (count == 1 || new.step == run.step);
        if !stays && self.reaches(&new) {
            let entry = self.attributes.leaf(new.leaf, Tree::<F>::LEAF_DEPTH);
            write::<F>(slots, entry, new.step, count);
            return (count, true);
        }
        if !stays {
            exchange.released(new);
        }
        if was_shared && !exchange.acquire_for_copy(run.take(count.into()).0) {
            // Not reached where the exchange has counted what it keeps. No entry goes without a
            // reference.
            write::<F>(slots, 0, Step::Same, count);
        }
        (count, false)
    }

    /// Reports what `old` pointed at and `table`, which is linked in its place, does not.
    pub(super) fn release_aside(
        &self,
        old: u64,
        table: Pfn,
        shared: bool,
        released: &mut dyn FnMut(Run),
    ) {
        let depth = Tree::<F>::LEAF_DEPTH;
        match self.attributes.decode(old, Self::HUGE_LEAF_DEPTH) {
            Entry::Leaf(leaf) if shared => released(Run::once(leaf)),
            Entry::Leaf(leaf) => self.release_split(leaf, table, released),
            Entry::Table {
                frame,
                link: Link::Private,
            } if !shared => {
                let slots = self.live_table(frame, depth);
                let differs = |index: usize| {
                    let both = [slots, self.live_table(table, depth)];
                    let [old, new] =
                        both.map(|slots| slots.get(index).map(load).unwrap_or_default());
                    (old ^ new) & !F::STATUS_BITS != 0
                };
                for_each_part(slots.len(), differs, |first, end| {
                    let mut next = first;
                    while let Some(part) = slots.get(next..end)
                        && let Some(old) = old_run(&self.attributes, part)
                    {
                        if let Some(run) = old.run(&self.attributes) {
                            released(run);
                        }
                        next += usize::from(old.count);
                    }
                });
                // SAFETY: 1: tables come from there. 2: the link is replaced and flushed.
                if let Some(dead) = unsafe { self.tables.release(frame) } {
                    // SAFETY: 1: released just now.
                    unsafe { self.tables.free(dead) };
                }
            }
            Entry::Table { frame, .. } => self.release_table(depth, frame, released),
            _ => {}
        }
    }

    /// Reports those frames of the huge leaf `leaf`, which was split, that `table` does not map.
    fn release_split(&self, leaf: Leaf, table: Pfn, released: &mut dyn FnMut(Run)) {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(table, depth);
        let frame = |index: usize| leaf.block.first().checked_add(index as u64);
        let differs = |index: usize| {
            let entry = slots.get(index).map(load).unwrap_or_default();
            match self.attributes.decode(entry, depth) {
                Entry::Leaf(new) => {
                    new.role != Role::Descriptors || Some(new.block.first()) != frame(index)
                }
                _ => true,
            }
        };
        for_each_part(slots.len(), differs, |first, end| {
            let frames = frame(first).map(|start| PfnRange::new(start, (end - first) as u64));
            if let Some(Ok(frames)) = frames {
                released(Run::each(frames, leaf.role));
            }
        });
    }
}

/// Shows the parts of `0..len` in which all indices are `wanted`: the first of each, and the one after
/// the last.
fn for_each_part(len: usize, wanted: impl Fn(usize) -> bool, mut visit: impl FnMut(usize, usize)) {
    let mut index = 0;
    while index < len {
        let end = (index..len).find(|index| !wanted(*index)).unwrap_or(len);
        if end > index {
            visit(index, end);
        }
        index = end + 1;
    }
}
