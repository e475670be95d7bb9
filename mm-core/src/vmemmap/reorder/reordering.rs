//! The exchange that changes orders: it answers what replaces each vmemmap page, with frames and
//! references that it has before the page table asks for the first time.

use super::describe::{Describe, UnitWriter};
use super::survey::{Difference, ORDERS, Survey, is_tail_of};
use super::target::{Kind, Segment, Target};
use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Reshape;
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::pagemap::Tails;
use crate::paging::{Exchange, Leaf, PageTable, Role, Run, Span, Step};
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::note::Notes;
use crate::vmemmap::registry::TailKey;
use crate::vmemmap::reserve::block_of;
use crate::vmemmap::shared_tail::shared_tail;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// How many words a frame of a stack starts with.
const HEADER_WORDS: usize = FrameStack::<()>::HEADER_WORDS;

/// A tail frame, with references for entries that are still to be made.
#[derive(Clone, Copy, Debug)]
struct Held {
    frame: Pfn,
    references: u64,
    /// The tail frame that was known before. What is mapped to that one stays.
    before: Option<Pfn>,
}

impl Held {
    /// Takes references of it. Says whether there were so many.
    fn draw(&mut self, references: u64) -> bool {
        match self.references.checked_sub(references) {
            Some(left) => {
                self.references = left;
                true
            }
            None => false,
        }
    }
}

/// See the module.
pub(super) struct Reordering<'v, 'p, D, A, M> {
    pool: FramePool<'v, A, M>,
    writer: DescriptorWriter<'v, M>,
    target: Target<'p>,
    describe: Describe,
    /// What is changed.
    unit: PfnRange,
    /// Frames for single vmemmap pages.
    frames: FrameStack<'v, M>,
    /// Tail frames of compound pages, the first on top. Each says how many references it has.
    tails: FrameStack<'v, M>,
    /// Blocks for huge leaves.
    blocks: FrameStack<'v, M>,
    /// Single frames that no entry maps any more.
    freed: FrameStack<'v, M>,
    /// A tail frame, and how many of its entries are gone since it was last released.
    gone: Option<(Leaf, u64)>,
    /// The tail frame of each order.
    per_order: [Option<Held>; ORDERS],
    /// The tail frame of the compound page that is being made, and where that starts.
    current: Option<(Pfn, Held)>,
    /// Whether huge leaves map some of the unit.
    pub(super) has_huge_leaves: bool,
    /// The huge leaf that is being made: its first address and its block.
    joining: Option<(VirtAddr, Block)>,
    descriptor: PhantomData<fn() -> D>,
}

impl<'v, 'p, D: Reshape, A: FrameAllocator, M: DirectMap> Reordering<'v, 'p, D, A, M> {
    pub(super) fn new(
        pool: FramePool<'v, A, M>,
        writer: DescriptorWriter<'v, M>,
        target: Target<'p>,
        describe: Describe,
        unit: PfnRange,
    ) -> Self {
        Self {
            pool,
            frames: FrameStack::new(writer.direct_map),
            tails: FrameStack::new(writer.direct_map),
            blocks: FrameStack::new(writer.direct_map),
            freed: FrameStack::new(writer.direct_map),
            gone: None,
            writer,
            target,
            describe,
            unit,
            per_order: [None; ORDERS],
            current: None,
            has_huge_leaves: false,
            joining: None,
            descriptor: PhantomData,
        }
    }

    fn survey(&self, leaf: Option<Order>, blocks: u64) -> Survey<'_, 'v, 'p, A, M> {
        Survey {
            target: &self.target,
            pool: &self.pool,
            writer: &self.writer,
            leaf,
            blocks,
        }
    }

    /// Takes all frames and references that the change of `range`, the unit's vmemmap pages, needs.
    /// `leaf` is the size of a huge leaf, if any is to come back. After an error,
    /// [`release_unused`](Self::release_unused) gives back what was taken.
    #[inline(never)]
    pub(super) fn prepare<P: PageTable>(
        &mut self,
        table: &P,
        range: VirtRange,
        leaf: Option<Order>,
        notes: &mut Notes,
    ) -> Result<(), FoldError> {
        let mut found = self.survey(leaf, 0).difference::<D, P>(table, range);
        if let Some(error) = found.error {
            return Err(error);
        }
        self.has_huge_leaves = found.has_huge_leaves;
        if let Some(leaf) = leaf
            && found.leaves > 0
        {
            let blocks = self.take_blocks(found.leaves, leaf, notes);
            found = self
                .survey(Some(leaf), blocks)
                .difference::<D, P>(table, range);
        }
        let mut tails = 0;
        if found.per_compound > 0 {
            self.current = self.existing_tail(table, found.per_compound)?;
            if self.current.is_none() {
                let mut last = Some(self.unit.last());
                while let Some((before, references)) = self.next_tail(table, last) {
                    tails += u64::from(references > 0);
                    last = before;
                }
            }
        }
        self.take_frames(found.own + tails, notes)?;
        self.take_per_order(&found, notes)?;
        match tails {
            0 => Ok(()),
            _ => self.take_tails(table),
        }
    }

    /// Takes blocks for up to `leaves` huge leaves of `order`. Says how many it got.
    fn take_blocks(&mut self, leaves: u64, order: Order, notes: &mut Notes) -> u64 {
        let node = self.writer.node;
        for taken in 0..leaves {
            let Ok(block) = self.pool.allocate(order, node) else {
                for _ in taken..leaves {
                    notes.huge_leaf_unavailable();
                }
                return taken;
            };
            let actual = self.pool.node_of(block.first());
            notes.frames_from(node, actual, order.frames());
            // SAFETY: 1: taken just now.
            unsafe { self.blocks.push(block.frames()) };
        }
        leaves
    }

    /// Takes `frames` single frames.
    fn take_frames(&mut self, frames: u64, notes: &mut Notes) -> Result<(), FoldError> {
        let node = self.writer.node;
        let mut left = frames;
        while left > 0 {
            let run = self.pool.allocate_run(left, node)?;
            let actual = self.pool.node_of(run.start());
            notes.frames_from(node, actual, run.frames());
            left = left.saturating_sub(run.frames());
            // SAFETY: 1: taken just now.
            unsafe { self.frames.push(run) };
        }
        Ok(())
    }

    /// Takes references of the tail frame of each order.
    fn take_per_order(&mut self, found: &Difference, notes: &mut Notes) -> Result<(), FoldError> {
        for (number, references) in (0..).zip(found.per_order) {
            let Some(order) = Order::new(number).filter(|_| references > 0) else {
                continue;
            };
            let node = self.writer.node;
            let before = self.pool.registered_tail(TailKey { order, node });
            let writer = DescriptorWriter {
                order,
                ..self.writer
            };
            let head = self.unit.start().align_down(order);
            let pool = &mut self.pool;
            let tail = shared_tail::<D, A, M>(pool, &writer, head, references, notes)?;
            if tail.references < references {
                // SAFETY: 1: the references came from this pool. 2: no entry was made for them.
                unsafe { self.pool.release_run(tail.entries()) };
                return Err(FoldError::Uncounted { frame: tail.frame });
            }
            if let Some(held) = self.per_order.get_mut(usize::from(number)) {
                *held = Some(Held {
                    frame: tail.frame,
                    references,
                    before,
                });
            }
        }
        Ok(())
    }

    /// The tail frame that the unit has, if that is one compound page before and after, with
    /// `references` more.
    fn existing_tail<P: PageTable>(
        &mut self,
        table: &P,
        references: u64,
    ) -> Result<Option<(Pfn, Held)>, FoldError> {
        let (page, _) = self.target.page_of(self.unit.start());
        let all = self
            .writer
            .model
            .descriptors(page)
            .filter(|_| page == self.unit);
        let after_head = all.and_then(|all| self.target.after(all, 1));
        let Some(at) = after_head.map(VirtRange::start) else {
            return Ok(None);
        };
        let (Some(mapping), Some(segment)) = (table.lookup(at).mapping(), self.target.segment(at))
        else {
            return Ok(None);
        };
        if !self
            .survey(None, 0)
            .is_tail_of::<D>(&mapping.leaf, &segment.kind)
        {
            return Ok(None);
        }
        let frame = mapping.leaf.block.first();
        // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the entries that are about to be
        // made own these.
        if !unsafe { self.pool.acquire(frame, references) } {
            return Err(FoldError::Uncounted { frame });
        }
        let held = Held {
            frame,
            references,
            before: None,
        };
        Ok(Some((page.start(), held)))
    }

    /// How many references the tail frame of the last compound page needs that ends at `last` or before,
    /// and the frame before that page.
    fn next_tail<P: PageTable>(&self, table: &P, last: Option<Pfn>) -> Option<(Option<Pfn>, u64)> {
        let page = self.target.compound_page_before(self.unit, last?)?;
        let before = page.start().get().checked_sub(1).and_then(Pfn::new);
        let references = self.survey(None, 0).new_tails::<D, P>(table, page);
        Some((before, references))
    }

    /// Makes a tail frame of a frame for each compound page that needs it, with its references.
    fn take_tails<P: PageTable>(&mut self, table: &P) -> Result<(), FoldError> {
        // The first is to be on top.
        let mut last = Some(self.unit.last());
        while let Some((before, references)) = self.next_tail(table, last) {
            last = before;
            if references == 0 {
                continue;
            }
            let Some(frame) = self.frames.take(1).map(PfnRange::start) else {
                break;
            };
            // SAFETY: 1: the frame came from this pool. 2: the entries that are about to be made own these
            // and the one that it came with.
            let counted = references == 1 || unsafe { self.pool.acquire(frame, references - 1) };
            // SAFETY: 1: taken just now.
            unsafe {
                match counted {
                    true => self.tails.push(PfnRange::single(frame)),
                    false => self.frames.push(PfnRange::single(frame)),
                }
            }
            if !counted {
                return Err(FoldError::Uncounted { frame });
            }
            // SAFETY: the frame is this value's, and the stack's header does not reach so far.
            unsafe { self.references_in(frame).write(references) };
        }
        Ok(())
    }

    /// Where a frame of `tails` says how many references it has.
    fn references_in(&self, frame: Pfn) -> NonNull<u64> {
        let page = self.writer.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: a page has more than three words.
        unsafe { page.add(HEADER_WORDS) }
    }

    /// The next of `tails`.
    fn pop_tail(&mut self) -> Option<Held> {
        let frame = self.tails.take(1)?.start();
        // SAFETY: `take_tails` has written it, and nobody else uses the frame.
        let references = unsafe { self.references_in(frame).read() };
        Some(Held {
            frame,
            references,
            before: None,
        })
    }

    /// Gives back what was not needed.
    pub(super) fn release_unused(&mut self) {
        self.release_gone();
        // SAFETY: 1: they were mapped with frames of this pool. 2: the page table has reported them.
        unsafe { self.pool.release_stack(&mut self.freed, Role::Descriptors) };
        self.release_current();
        for index in 0..self.per_order.len() {
            let held = self.per_order.get_mut(index).and_then(Option::take);
            if let Some(held) = held {
                self.release_held(held, Role::Tail);
            }
        }
        while let Some(held) = self.pop_tail() {
            self.release_held(held, Role::Descriptors);
        }
        while let Some(frames) = self.frames.pop() {
            // SAFETY: 1: the references came with the frames, from this pool. 2: no entry was made for them.
            unsafe { self.pool.release_frames(frames, Role::Descriptors) };
        }
        while let Some(block) = self.blocks.pop().and_then(block_of) {
            let leaf = Leaf {
                block,
                role: Role::Descriptors,
                writable: true,
            };
            // SAFETY: 1: the block came from this pool. 2: it was not mapped.
            unsafe { self.pool.release_run(Run::once(leaf)) };
        }
    }

    /// Gives back the references of entries of tails that are gone.
    fn release_gone(&mut self) {
        if let Some((leaf, count)) = self.gone.take() {
            let step = Step::Same;
            // SAFETY: 1: they were mapped with frames of this pool. 2: the page table has reported them.
            unsafe { self.pool.release_run(Run { leaf, count, step }) };
        }
    }

    /// Gives back what is left of the references of the current compound page's tail frame.
    fn release_current(&mut self) {
        if let Some((_, held)) = self.current.take() {
            self.release_held(held, Role::Tail);
        }
    }

    fn release_held(&mut self, held: Held, role: Role) {
        if held.references > 0 {
            // SAFETY: 1: the references came from this pool. 2: no entry was made for them.
            unsafe {
                self.pool
                    .release_run(Run::repeat(held.frame, held.references, role))
            };
        }
    }

    /// The tail frame that is held for the compound page of `kind`, which becomes the current one.
    fn held(&mut self, kind: &Kind) -> Option<&mut Held> {
        let Kind::Tail { page, order, tails } = *kind else {
            return None;
        };
        if tails == Tails::PerOrder {
            let held = self.per_order.get_mut(usize::from(order.get()));
            return held.and_then(Option::as_mut);
        }
        if self.current.is_none_or(|(start, _)| start != page.start()) {
            self.release_current();
            let held = self.pop_tail()?;
            let writer = DescriptorWriter {
                order,
                ..self.writer
            };
            // SAFETY: 1: the frame was taken for this and is not mapped. 2: `Vmemmap::new` has compared the
            // sizes.
            unsafe { writer.write_tails::<D>(held.frame, page.start()) };
            self.pool.add_tail(held.frame);
            self.current = Some((page.start(), held));
        }
        self.current.as_mut().map(|(_, held)| held)
    }

    /// Whether `leaf` is what the tails of `kind` are to be mapped to.
    fn is_tail_of(&self, leaf: &Leaf, kind: &Kind) -> bool {
        if let Kind::Tail {
            order,
            tails: Tails::PerOrder,
            ..
        } = *kind
            && let Some(Some(held)) = self.per_order.get(usize::from(order.get()))
        {
            let frame = Some(leaf.block.first());
            let is_known = frame == Some(held.frame) || frame == held.before;
            return leaf.role == Role::Tail && !leaf.writable && is_known;
        }
        is_tail_of::<D, A, M>(&self.pool, &self.writer, leaf, kind)
    }

    /// The leaves of a tail frame for the compound page of `kind`.
    fn leaf_of(kind: &Kind, frame: Pfn) -> Leaf {
        let is_per_order = matches!(
            kind,
            Kind::Tail {
                tails: Tails::PerOrder,
                ..
            }
        );
        Leaf {
            writable: !is_per_order,
            ..Leaf::single(frame, Role::Tail)
        }
    }

    fn unit_writer(&self) -> UnitWriter<'_, 'v, 'p, M> {
        UnitWriter {
            writer: &self.writer,
            target: &self.target,
            unit: self.unit,
            describe: self.describe,
        }
    }

    /// The first frame that the vmemmap page number `index` from `at` on describes.
    fn described(&self, at: VirtAddr, index: u64) -> Option<Pfn> {
        let first = self.writer.model.frame_of_descriptor(at)?;
        first.checked_add(index.checked_mul(self.writer.model.descriptors_per_page())?)
    }

    /// Makes the descriptors of `run`, mapped at `at`, each in a frame of its own, parts of the new pages.
    pub(super) fn rewrite(&self, at: VirtAddr, run: &Run) {
        let per_block = run.leaf.block.order().frames();
        for index in 0..run.pages() {
            let block = run.block(index / per_block).map(Block::first);
            let holder = block.and_then(|first| first.checked_add(index % per_block));
            if let (Some(holder), Some(first)) = (holder, self.described(at, index)) {
                self.unit_writer().rewrite_page::<D>(holder, first);
            }
        }
    }

    /// Frames of their own for the first of the pages of `old` at `at`, which are mapped to tails.
    fn own_frames(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some(frames) = self.frames.take(old.count) else {
            return Run::once(old.leaf);
        };
        for (index, holder) in (0..).zip(frames) {
            let Some(first) = self.described(at, index) else {
                continue;
            };
            let (page, order) = self.target.page_of(first);
            let held = self.per_order.get(usize::from(order.get()));
            let is_first =
                page.start() == first && page.frames() > self.writer.model.descriptors_per_page();
            let tails = held.copied().flatten().filter(|_| is_first);
            // SAFETY: 1: taken for this. 2: `Vmemmap::new` has compared the sizes; a page that is mapped to
            // tails is about one compound page, which is in the unit as a whole. 3: tail frames of an order
            // are read-only.
            unsafe {
                match tails.map(|held| held.frame) {
                    Some(tails) => self
                        .unit_writer()
                        .write_first_page::<D>(holder, first, tails),
                    None => self.unit_writer().write_page::<D>(holder, first),
                }
            }
        }
        Run::each(frames, Role::Descriptors)
    }
}

impl<D: Reshape, A: FrameAllocator, M: DirectMap> Exchange for Reordering<'_, '_, D, A, M> {
    fn span(&self, at: VirtAddr) -> Span {
        let granule = self.writer.model.granule();
        let pages = granule.entries_per_table() as u64;
        if self.target.shares_table(at, pages) {
            return Span::Tails;
        }
        let span = VirtRange::new(at, pages.saturating_mul(granule.bytes()));
        let is_own = |span| self.target.keeps_huge_leaves() && self.target.is_all_own(span);
        match span.is_ok_and(is_own) {
            true => Span::Own,
            false => Span::Mixed,
        }
    }

    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        let kind = self.target.segment(at)?.kind;
        let frame = match self.held(&kind) {
            Some(held) => held.frame,
            // What is there stays.
            None => {
                let Kind::Tail { order, .. } = kind else {
                    return None;
                };
                let node = self.writer.node;
                self.pool.registered_tail(TailKey { order, node })?
            }
        };
        Some(Self::leaf_of(&kind, frame))
    }

    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        let range = self.writer.model.descriptors(self.unit);
        let pages = leaf.block.order().frames();
        let bytes = pages.saturating_mul(self.writer.model.granule().bytes());
        let (Some(range), Ok(all)) = (range, VirtRange::new(at, bytes)) else {
            return false;
        };
        let start = range.start().max(all.start());
        let part = VirtRange::between(start, range.last().min(all.last()));
        leaf.role == Role::Descriptors && part.is_some_and(|part| !self.target.is_all_own(part))
    }

    fn split(&mut self, block: Block) {
        // SAFETY: 1: an entry of this library's was the block's one user. 2: that entry's reference; the
        // entries that take its place own those that come of it.
        unsafe { self.pool.split(block) };
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        let tail = run.leaf.block.first();
        let current = self.current.as_mut().map(|(_, held)| held);
        let mut all = self.per_order.iter_mut().flatten().chain(current);
        let held = all.find(|held| held.frame == tail);
        if held.is_some_and(|held| held.draw(run.count)) {
            return true;
        }
        // SAFETY: 1: the frame is mapped by entries of this library's. 2: the new table's entries own the
        // references.
        unsafe { self.pool.acquire(tail, run.count) }
    }

    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        let bytes = order.bytes(self.writer.model.granule())?;
        let span = VirtRange::new(at, bytes).ok()?;
        if !self.target.is_all_own(span) {
            return None;
        }
        let block = self.blocks.pop().and_then(block_of)?;
        self.joining = Some((at, block));
        Some(Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        })
    }

    fn joined(&mut self, at: VirtAddr, old: Run) {
        let Some((start, block)) = self.joining else {
            return;
        };
        let granule = self.writer.model.granule();
        let page = at.get().saturating_sub(start.get()) >> granule.shift();
        for index in 0..old.count {
            let from = old.block(index).map(Block::first);
            let holder = block.first().checked_add(page + index);
            let (Some(from), Some(holder), Some(first)) = (from, holder, self.described(at, index))
            else {
                continue;
            };
            if old.leaf.role == Role::Tail {
                // SAFETY: 1: taken for this. 2: as in `own_frames`.
                unsafe { self.unit_writer().write_page::<D>(holder, first) };
                continue;
            }
            let bytes = granule.bytes() as usize;
            let pages = [from, holder].map(|frame| self.writer.direct_map.frame_pointer(frame));
            let [from, to] = pages;
            // SAFETY: both are whole pages that the direct map reaches (duty 2 of `Vmemmap::new`), and
            // different ones, since the block was allocated for this. Nobody else uses it yet, and nobody
            // stores to descriptors of pages that change (duty 3 of `Vmemmap::live_descriptor`).
            unsafe { to.copy_from_nonoverlapping(from, bytes) };
            self.unit_writer().rewrite_page::<D>(holder, first);
        }
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some(Segment { kind, pages }) = self.target.segment(at) else {
            return old;
        };
        let old = match old.count > pages {
            true => Run {
                count: pages,
                ..old
            },
            false => old,
        };
        match kind {
            Kind::Own if old.leaf.role == Role::Tail => self.own_frames(at, old),
            Kind::Own => {
                self.rewrite(at, &old);
                old
            }
            Kind::Tail { .. } if self.is_tail_of(&old.leaf, &kind) => old,
            Kind::Tail { .. } => {
                let Some(held) = self.held(&kind) else {
                    return old;
                };
                let frame = held.frame;
                if !held.draw(old.count) {
                    return old;
                }
                Run {
                    leaf: Self::leaf_of(&kind, frame),
                    count: old.count,
                    step: Step::Same,
                }
            }
        }
    }

    fn released(&mut self, run: Run) {
        let is_single = run.leaf.block.order() == Order::BASE;
        match run.leaf.role {
            Role::Tail if is_single && run.step == Step::Same => {
                self.gone = match self.gone {
                    Some((leaf, count)) if leaf == run.leaf => Some((leaf, count + run.count)),
                    _ => {
                        self.release_gone();
                        Some((run.leaf, run.count))
                    }
                };
                return;
            }
            Role::Descriptors if is_single && run.count == 1 => {
                // SAFETY: 1: the entry was the frame's one user, and no CPU translates by it.
                unsafe { self.freed.push(run.leaf.block.frames()) };
                return;
            }
            _ => {}
        }
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it after the
        // flush (duty 6 of `PageTable`).
        unsafe { self.pool.release_run(run) };
    }
}
