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
use crate::addr::{Block, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::radix::entries::{for_each_run, run_of, write_groups, write_run};
use crate::paging::radix::report::any_own_leaf;
use crate::paging::radix::tree::Tree;
use crate::paging::radix::{Engine, load};
use crate::paging::{
    Entry, EntryFormat, Exchange, Groups, Leaf, Link, Mmu, Role, Roots, Run, Span, Step,
};
use core::mem::take;

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// What becomes of the span at the start of `rest`, if all of that is in it.
    #[inline]
    pub(super) fn span_at<const SPANS: bool>(rest: VirtRange, exchange: &dyn Exchange) -> Span {
        if !SPANS {
            return Span::Entries;
        }
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
                Span::MoreTails,
            ) => u64::from(!matches!(before, Span::Tails | Span::MoreTails)),
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
            (_, Span::Tails | Span::MoreTails) => {
                self.plan_tails(mapped, at, old, batch, tables, exchange)
            }
            _ => self.plan_aside(mapped, at, old, batch, tables, exchange),
        }
    }

    /// Plans the link of a shared table of tails.
    #[inline(never)]
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
        let again = |table: &Pfn| unsafe { self.tables.link_again(*table, 1) };
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
    #[inline(never)]
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
        // SAFETY: 1: it was taken for this, and is linked nowhere. 2: nothing else refers to it.
        let slots = unsafe { self.private_table(table, depth) };
        let was_shared = match *mapped {
            MappedBy::HugeLeaf(leaf) => {
                let block = Block::single(leaf.block.first());
                let first = self.attributes.leaf(Leaf { block, ..leaf }, depth);
                write_run::<F>(slots, first, Step::Next);
                exchange.split(leaf.block);
                false
            }
            MappedBy::Table { frame, link } => {
                for (slot, old) in slots.iter_mut().zip(self.live_table(frame, depth)) {
                    *slot = load(old);
                }
                link == Link::Shared
            }
            MappedBy::Other { .. } => false,
        };
        let mut is_other = was_shared || matches!(mapped, MappedBy::HugeLeaf(_));
        let all = slots.len();
        let mut rest = slots;
        let mut left: Option<Run> = None;
        while let Some((&mut entry, others)) = rest.split_first_mut() {
            let run = left.or_else(|| match self.attributes.decode(entry, depth) {
                Entry::Leaf(leaf) if leaf.role != Role::Foreign => {
                    Some(run_of::<F>(leaf, entry, others))
                }
                _ => None,
            });
            let mut count = 1;
            if let Some(run) = run {
                let at = Tree::<F>::step(depth, at, all - rest.len());
                let (changed, is_new) = self.exchange_aside(at, &run, rest, was_shared, exchange);
                is_other |= is_new;
                count = changed;
                left = run.take(changed as u64).1;
            }
            rest = take(&mut rest).get_mut(count..).unwrap_or_default();
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
        slots: &mut [u64],
        was_shared: bool,
        exchange: &mut dyn Exchange,
    ) -> (usize, bool) {
        if run.leaf.role == Role::Tail
            && run.count > 1
            && let Some(count) = self.exchange_groups(at, run, slots, exchange)
        {
            return (count, true);
        }
        let new = exchange.exchange(at, *run);
        let (old, _) = run.take(new.count.max(1));
        let count = old.count as usize;
        let slots = slots.get_mut(..count).unwrap_or_default();
        let stays = new.leaf == run.leaf && (count == 1 || new.step == run.step);
        if !stays && self.reaches(&new) {
            let entry = self.attributes.leaf(new.leaf, Tree::<F>::LEAF_DEPTH);
            write_run::<F>(slots, entry, new.step);
            return (count, true);
        }
        if !stays {
            exchange.released(new);
        }
        if was_shared && !exchange.acquire_for_copy(old) {
            // Not reached where the exchange has counted what it keeps. No entry goes without a
            // reference.
            slots.fill(0);
        }
        (count, false)
    }

    /// Enters the groups that the exchange has for the start of `run`, if it has some. Answers with how many
    /// entries that is.
    // Not inlined: few runs come here.
    #[inline(never)]
    fn exchange_groups(
        &self,
        at: VirtAddr,
        run: &Run,
        slots: &mut [u64],
        exchange: &mut dyn Exchange,
    ) -> Option<usize> {
        let groups = exchange.groups(at, *run)?;
        let entered = self.enter_groups(&groups, run.count, slots);
        if entered.is_none() {
            groups.runs().for_each(|run| exchange.released(run));
        }
        entered
    }

    /// Enters `groups` at the start of `slots`, the first `room` of which are to be exchanged. Answers with
    /// how many entries that were; `None`, and nothing was entered, where they do not fit or an entry cannot
    /// hold a frame.
    fn enter_groups(&self, groups: &Groups, room: u64, slots: &mut [u64]) -> Option<usize> {
        let reaches = groups.last_frame() <= self.tables.last;
        let leaves = groups.leaves();
        let entered = (reaches && (1..=room).contains(&leaves)).then_some(leaves as usize)?;
        write_groups(
            &self.attributes,
            slots.get_mut(..entered)?,
            groups,
            Tree::<F>::LEAF_DEPTH,
        );
        Some(entered)
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
                // SAFETY: 1: its one link is replaced and flushed. 2: read here only, before it is freed.
                let slots = unsafe { self.private_table(frame, depth) };
                let both = slots.iter().zip(self.live_table(table, depth));
                let differs = both.map(|(old, new)| (old ^ load(new)) & !F::STATUS_BITS != 0);
                for_each_part(differs, |first, end| {
                    let part = slots.get(first..end).unwrap_or_default();
                    for_each_run(&self.attributes, part, depth, any_own_leaf, |_, run| {
                        released(run);
                    });
                });
                // SAFETY: 1: tables come from there. 2: the link is replaced and flushed.
                if let Some(dead) = unsafe { self.tables.release(frame, 1) } {
                    // SAFETY: 1: released just now.
                    unsafe { self.tables.free(dead) };
                }
            }
            Entry::Table { frame, .. } => self.release_table(depth, frame, &mut &mut *released),
            _ => {}
        }
    }

    /// Reports those frames of the huge leaf `leaf`, which was split, that `table` does not map.
    fn release_split(&self, leaf: Leaf, table: Pfn, released: &mut dyn FnMut(Run)) {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(table, depth);
        let frame = |index: usize| leaf.block.first().checked_add(index as u64);
        let differs = slots.iter().enumerate().map(|(index, slot)| {
            match self.attributes.decode(load(slot), depth) {
                Entry::Leaf(new) => {
                    new.role != Role::Descriptors || Some(new.block.first()) != frame(index)
                }
                _ => true,
            }
        });
        for_each_part(differs, |first, end| {
            let frames = frame(first).map(|start| PfnRange::new(start, (end - first) as u64));
            if let Some(Ok(frames)) = frames {
                released(Run::each(frames, leaf.role));
            }
        });
    }
}

/// Shows the parts in which all indices are `wanted`: the first of each, and the one after the last.
fn for_each_part(wanted: impl Iterator<Item = bool>, mut visit: impl FnMut(usize, usize)) {
    let mut part = None;
    let mut end = 0;
    for (index, is_wanted) in wanted.enumerate() {
        part = match (part, is_wanted) {
            (None, true) => Some(index),
            (Some(first), false) => {
                visit(first, index);
                None
            }
            (same, _) => same,
        };
        end = index + 1;
    }
    if let Some(first) = part {
        visit(first, end);
    }
}
