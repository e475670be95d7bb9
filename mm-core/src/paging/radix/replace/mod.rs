//! Exchanging entries in use.
//!
//! A batch of changes is planned, applied, flushed, and what its old entries pointed at is
//! reported; then the next one. The batch itself remembers the old entries, since their places hold
//! the new ones.
//!
//! ```text
//!             Direct                         BreakBeforeMake
//!   plan      ask the exchange, write down   the same
//!   apply     new entries                    quiesce: invalid ▶ flush ▶ new entries
//!             flush
//!   release   old leaves, old tables         the same
//! ```
//!
//! A huge leaf that is split gets a table filled to say the same, and so does a link to a shared
//! table that is not to stay one. The changes below are made there before anybody sees the table,
//! so that this costs no flush of its own. All tables are taken before the first change.
//!
//! What all addresses of a link become may be a [span](crate::paging::Span) of the exchange: `aside`
//! builds a table for it, and one store replaces whatever was there.

mod aside;
mod batch;
mod old_run;

use super::tables::NoTable;
use super::tree::Tree;
use super::{Engine, load};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::{
    Entry, EntryFormat, Exchange, Leaf, Link, Mmu, ReplaceError, Replaced, Replacement, Role,
    Roots, Run, Span, Step,
};
pub(super) use batch::{Batch, Change};
use old_run::{old_run, write};

/// What maps an address.
pub(super) enum MappedBy {
    /// A leaf table.
    Table { frame: Pfn, link: Link },
    /// A huge leaf of this library's.
    HugeLeaf(Leaf),
    /// Nothing that could be exchanged, for all that an entry at this depth translates.
    Other { depth: usize },
}

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// The depth of entries that link leaf tables or are huge leaves.
    pub(super) const HUGE_LEAF_DEPTH: usize = Tree::<F>::LEAF_DEPTH - 1;

    /// See [`InUse::replace`](crate::paging::InUse::replace).
    ///
    /// # Safety
    ///
    /// As there.
    // Not generic over the exchange: a kernel has three of them, which are asked once for many entries. It is
    // compiled with and without spans, since taking memory offline does not need them.
    pub(super) unsafe fn replace_entries<const SPANS: bool>(
        &self,
        range: VirtRange,
        node: NodeId,
        exchange: &mut dyn Exchange,
    ) -> Result<Replaced, ReplaceError> {
        let rule = self.mmu.replacement();
        let whole_pages = range.is_aligned(F::GRANULE.bytes());
        if rule == Replacement::Refused || !whole_pages || !Tree::<F>::translates(range) {
            return Err(ReplaceError::Refused);
        }
        let splits = self.count_splits::<SPANS>(range, exchange);
        let mut tables = self.reserve_tables(splits, node)?;
        let mut replaced = Replaced::default();
        let mut rest = Some(range);
        while rest.is_some() {
            let mut batch = Batch::new();
            while let Some(left) = rest
                && !batch.is_full()
            {
                rest = self.plan_change::<SPANS>(left, &mut batch, &mut tables, exchange);
            }
            replaced.flushes += u64::from(self.apply(&batch, rule));
            for change in batch.iter() {
                self.release_old::<SPANS>(change, &mut |run| exchange.released(run));
            }
        }
        self.give_back_tables(&mut tables);
        Ok(replaced)
    }

    /// How many huge leaves of `range` are to be split, and shared tables to be copied.
    // Not inlined, as what follows: the stack that it takes is not there meanwhile.
    #[inline(never)]
    fn count_splits<const SPANS: bool>(&self, range: VirtRange, exchange: &dyn Exchange) -> u64 {
        let mut splits = 0;
        let mut rest = Some(range);
        let mut before = Span::Entries;
        while let Some(left) = rest {
            let at = left.start();
            let span = Self::span_at::<SPANS>(left, exchange);
            let depth = match self.mapped_by(at) {
                MappedBy::Other { depth } => depth,
                mapped if span != Span::Entries => {
                    splits += Self::tables_for(&mapped, span, before);
                    Self::HUGE_LEAF_DEPTH
                }
                MappedBy::Table { frame, link } => {
                    let run = (link == Link::Shared).then(|| self.shared_run(frame));
                    if let Some(run) = run.flatten() {
                        let base = Tree::<F>::base(Self::HUGE_LEAF_DEPTH, at);
                        splits += u64::from(exchange.should_split(base, run.leaf));
                    }
                    Self::HUGE_LEAF_DEPTH
                }
                MappedBy::HugeLeaf(leaf) => {
                    let base = Tree::<F>::base(Self::HUGE_LEAF_DEPTH, at);
                    splits += u64::from(exchange.should_split(base, leaf));
                    Self::HUGE_LEAF_DEPTH
                }
            };
            before = span;
            rest = left.after(Tree::<F>::last(depth, at));
        }
        splits
    }

    /// Takes `count` tables.
    #[inline(never)]
    fn reserve_tables(&self, count: u64, node: NodeId) -> Result<FrameStack<'_, M>, NoTable> {
        let mut tables = FrameStack::new(self.direct_map);
        let mut left = count;
        while left > 0 {
            match self.tables.allocate_run(left, node) {
                Ok(run) => {
                    left = left.saturating_sub(run.frames());
                    // SAFETY: 1: allocated just now; duty 2 of `new`.
                    unsafe { tables.push(run) };
                }
                Err(error) => {
                    self.give_back_tables(&mut tables);
                    return Err(error);
                }
            }
        }
        Ok(tables)
    }

    fn give_back_tables(&self, tables: &mut FrameStack<'_, M>) {
        while let Some(run) = tables.pop() {
            for index in 0..run.frames() {
                // SAFETY: 1: allocated for this, and not linked.
                unsafe { self.tables.give_back(run.start().saturating_add(index)) };
            }
        }
    }

    /// What maps `at`.
    pub(super) fn mapped_by(&self, at: VirtAddr) -> MappedBy {
        let mut frame = self.root;
        for depth in 0..=Self::HUGE_LEAF_DEPTH {
            let slots = self.live_table(frame, depth);
            let Some(slot) = slots.get(Tree::<F>::index(depth, at)) else {
                return MappedBy::Other { depth };
            };
            match self.attributes.decode(load(slot), depth) {
                Entry::Table { frame, link } if depth == Self::HUGE_LEAF_DEPTH => {
                    return MappedBy::Table { frame, link };
                }
                Entry::Table { frame: next, .. } => frame = next,
                Entry::Leaf(leaf)
                    if depth == Self::HUGE_LEAF_DEPTH && leaf.role != Role::Foreign =>
                {
                    return MappedBy::HugeLeaf(leaf);
                }
                _ => return MappedBy::Other { depth },
            }
        }
        MappedBy::Other { depth: 0 }
    }

    /// Plans at most one change for the start of `rest`, and answers with what is left after it.
    fn plan_change<const SPANS: bool>(
        &self,
        rest: VirtRange,
        batch: &mut Batch,
        tables: &mut FrameStack<'_, M>,
        exchange: &mut dyn Exchange,
    ) -> Option<VirtRange> {
        let at = rest.start();
        if let Some((span, table)) = batch.unlinked
            && span.contains(at)
        {
            return self.plan_leaves(table, false, rest, batch, exchange);
        }
        let mapped = self.mapped_by(at);
        let span = Self::span_at::<SPANS>(rest, exchange);
        match mapped {
            MappedBy::Other { depth } => rest.after(Tree::<F>::last(depth, at)),
            MappedBy::HugeLeaf(_) if span != Span::Entries => {
                let _ = self.plan_span(&mapped, span, at, batch, tables, exchange);
                rest.after(Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at))
            }
            MappedBy::HugeLeaf(leaf) => {
                let base = Tree::<F>::base(Self::HUGE_LEAF_DEPTH, at);
                let last = Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at);
                if !exchange.should_split(base, leaf) {
                    return rest.after(last);
                }
                // There is one for each that is split.
                let table = tables.take(1).map(PfnRange::start);
                let (Some(table), Some(span)) = (table, VirtRange::between(base, last)) else {
                    return rest.after(last);
                };
                let first = Block::single(leaf.block.first());
                self.fill_table_with(
                    table,
                    Leaf {
                        block: first,
                        ..leaf
                    },
                    Step::Next,
                );
                exchange.split(leaf.block);
                batch.push(Change::Split { at: base, table });
                batch.unlinked = Some((span, table));
                Some(rest)
            }
            MappedBy::Table { frame, link } => {
                if link != Link::Foreign
                    && let Some(next) = self.plan_join(frame, rest, batch, exchange)
                {
                    return next;
                }
                if link != Link::Foreign
                    && span != Span::Entries
                    && self.plan_span(&mapped, span, at, batch, tables, exchange)
                {
                    return rest.after(Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at));
                }
                if link == Link::Shared {
                    return self.plan_copy(frame, rest, batch, tables, exchange);
                }
                self.plan_leaves(frame, true, rest, batch, exchange)
            }
        }
    }

    /// Fills `table`, which nobody sees yet, with leaves of which `leaf` is the first.
    fn fill_table_with(&self, table: Pfn, leaf: Leaf, step: Step) {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(table, depth);
        let count = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        write::<F>(slots, self.attributes.leaf(leaf, depth), step, count);
    }

    /// Plans a table of its own in place of the shared table `old` at the start of `rest`, unless
    /// that is to stay. Answers with what is left to do.
    #[inline(never)]
    fn plan_copy(
        &self,
        old: Pfn,
        rest: VirtRange,
        batch: &mut Batch,
        tables: &mut FrameStack<'_, M>,
        exchange: &mut dyn Exchange,
    ) -> Option<VirtRange> {
        let at = Tree::<F>::base(Self::HUGE_LEAF_DEPTH, rest.start());
        let last = Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at);
        let stays = rest.after(last);
        let (Some(run), Some(span)) = (self.shared_run(old), VirtRange::between(at, last)) else {
            return stays;
        };
        if !exchange.should_split(at, run.leaf) {
            return stays;
        }
        // There is one for each that is copied.
        let Some(table) = tables.take(1).map(PfnRange::start) else {
            return stays;
        };
        if !exchange.acquire_for_copy(run) {
            // SAFETY: 1: it was taken just now.
            unsafe { tables.push(PfnRange::single(table)) };
            return stays;
        }
        self.fill_table_with(table, run.leaf, Step::Same);
        batch.push(Change::Relink {
            at,
            old,
            table,
            shared: false,
        });
        batch.unlinked = Some((span, table));
        Some(rest)
    }

    /// Plans a huge leaf in place of the whole leaf table `table` at the start of `rest`, if the
    /// exchange has one. Answers with what is left after it.
    #[inline(never)]
    fn plan_join(
        &self,
        table: Pfn,
        rest: VirtRange,
        batch: &mut Batch,
        exchange: &mut dyn Exchange,
    ) -> Option<Option<VirtRange>> {
        let at = rest.start();
        let last = Tree::<F>::last(Self::HUGE_LEAF_DEPTH, at);
        let order = Tree::<F>::HUGE_LEAF?;
        if Tree::<F>::base(Self::HUGE_LEAF_DEPTH, at) != at || last > rest.last() {
            return None;
        }
        let leaf = exchange.join(at, order)?;
        if !self.reaches(&Run::once(leaf)) {
            exchange.released(Run::once(leaf));
            return None;
        }
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(table, depth);
        let mut first = 0;
        while let Some(old) = old_run(&self.attributes, slots.get(first..).unwrap_or_default()) {
            if let Some(run) = old.run(&self.attributes) {
                exchange.joined(Tree::<F>::step(depth, at, first), run);
            }
            first += usize::from(old.count);
        }
        let new = self.attributes.leaf(leaf, Self::HUGE_LEAF_DEPTH);
        batch.push(Change::Join { at, table, new });
        Some(rest.after(last))
    }

    /// Plans the exchange of leaves at the start of `rest`, in `table`. Answers with what is left
    /// after them.
    #[inline(never)]
    fn plan_leaves(
        &self,
        table: Pfn,
        live: bool,
        rest: VirtRange,
        batch: &mut Batch,
        exchange: &mut dyn Exchange,
    ) -> Option<VirtRange> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let at = rest.start();
        let first = Tree::<F>::index(depth, at);
        let pages = usize::try_from(rest.pages(F::GRANULE)).unwrap_or(usize::MAX);
        let slots = self.live_table(table, depth).get(first..);
        let slots = slots.unwrap_or_default();
        let slots = slots.get(..pages.min(slots.len())).unwrap_or_default();
        let old = old_run(&self.attributes, slots)?;
        let Some(run) = old.run(&self.attributes) else {
            return rest.after(Tree::<F>::last(depth, at));
        };
        let new = exchange.exchange(at, run);
        let count = new.count.min(u64::from(old.count)).max(1) as u16;
        let next = rest.after(VirtAddr::new(
            Tree::<F>::step(depth, at, usize::from(count))
                .get()
                .wrapping_sub(1),
        ));
        let stays = new.leaf == run.leaf && (count == 1 || new.step == run.step);
        if stays || new.leaf.block.order() != Order::BASE {
            return next;
        }
        if !self.reaches(&new) {
            exchange.released(new);
            return next;
        }
        let entry = self.attributes.leaf(new.leaf, depth);
        if !live {
            write::<F>(slots, entry, new.step, count);
        }
        batch.push(Change::Leaves {
            at,
            old: old.entry,
            new: entry,
            count,
            old_step: old.step,
            new_step: new.step,
            live,
        });
        next
    }
}
