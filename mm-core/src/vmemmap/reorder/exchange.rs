//! What replaces each vmemmap page when orders change.

use super::describe::UnitWriter;
use super::held_tails::HeldTail;
use super::reordering::Reordering;
use super::survey::is_tail_of;
use super::target::{Kind, Segment};
use crate::addr::{Block, Order, Pfn, VirtAddr, VirtRange};
use crate::descriptor::{Reshape, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::Tails;
use crate::paging::{Exchange, GroupTails, Groups, Leaf, Role, Run, Span, Step};
use crate::vmemmap::descriptor_writer::{DescriptorWriter, copy_page};
use crate::vmemmap::registry::TailKey;
use core::ptr::NonNull;

impl<'v, D: Reshape, A: FrameAllocator, M: DirectMap> Reordering<'v, D, A, M> {
    /// The tail frame that is held for the compound page of `kind`, which becomes the current one.
    fn held(&mut self, kind: &Kind) -> Option<&mut HeldTail> {
        let Kind::Tail {
            page,
            order,
            tails,
            heads,
        } = *kind
        else {
            return None;
        };
        if tails == Tails::PerOrder {
            return self.per_order.get_mut(self.target.slot(order));
        }
        if self.current.is_none_or(|(start, _)| start != page.start()) {
            self.release_current();
            let held = self.pop_tail()?;
            let writer = DescriptorWriter {
                order,
                heads,
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
    // Inlined: the stack is deepest where entries are exchanged.
    #[inline(always)]
    fn is_tail_of(&self, leaf: &Leaf, kind: &Kind) -> bool {
        if let Kind::Tail {
            order,
            tails: Tails::PerOrder,
            ..
        } = *kind
            && let Some(held) = self.per_order.get(self.target.slot(order))
        {
            let frame = leaf.block.first();
            let is_known = frame == held.frame || frame == held.before;
            return leaf.role == Role::Tail && !leaf.writable && is_known;
        }
        is_tail_of::<D, A, M>(&self.pool, &self.writer, leaf, kind)
    }

    /// The leaves of a tail frame for the compound page of `kind`.
    pub(super) fn leaf_of(kind: &Kind, frame: Pfn) -> Leaf {
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

    /// The segment that the vmemmap page at `at` starts with. Mostly it is in the one before.
    #[inline]
    pub(super) fn segment(&mut self, at: VirtAddr) -> Option<Segment> {
        let shift = self.writer.model.granule().shift();
        if let Some((first, last, kind)) = self.segment
            && first < at
            && at <= last
        {
            let pages = ((last.get() - at.get()) >> shift) + 1;
            return Some(Segment { kind, pages });
        }
        let segment = self.target.segment(at)?;
        let last = self.target.last_of(at, segment.pages);
        self.segment = Some((at, last, segment.kind));
        Some(segment)
    }

    /// Copies a page of descriptors to a frame that was taken for that.
    pub(super) fn copy(&self, from: Pfn, to: Pfn) {
        let granule = self.writer.model.granule();
        // SAFETY: 1: duty 2 of `Vmemmap::new`; `to` was taken for this. 2: nobody else uses it yet, and
        // nobody stores to descriptors of pages that change (duty 3 of `Vmemmap::live_descriptor`).
        unsafe { copy_page(self.writer.direct_map, granule, from, to) };
    }

    pub(super) fn unit_writer(&self) -> UnitWriter<'_, M> {
        UnitWriter {
            writer: &self.writer,
            target: self.target,
            unit: self.unit,
            describe: self.describe,
        }
    }

    /// The first frame that the vmemmap page number `index` from `at` on describes.
    pub(super) fn described(&self, at: VirtAddr, index: u64) -> Option<Pfn> {
        let first = self.writer.model.frame_of_descriptor(at)?;
        first.checked_add(index.checked_mul(self.writer.model.descriptors_per_page())?)
    }

    /// Frames of their own for the first of the pages of `old` at `at`, which are mapped to tails.
    fn own_frames(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some(frames) = self.ahead.singles.take(old.count) else {
            return Run::once(old.leaf);
        };
        for (index, holder) in (0..).zip(frames) {
            let Some(first) = self.described(at, index) else {
                continue;
            };
            // SAFETY: 1: taken for this. 2: `Vmemmap::new` has compared the sizes; a page that is mapped to
            // tails is about one compound page, which is in the unit as a whole.
            unsafe { self.unit_writer().write_page::<D>(holder, first) };
            self.carry_over(holder, first, &old);
        }
        Run::each(frames, Role::Descriptors)
    }

    /// Writes what the head of the page at `first`, which `old` has the stubs of, has in it into `holder`, if a page
    /// with a packed head began there.
    // Not inlined: it is asked for in several places, and what it takes of the stack is not there while they write.
    #[inline(never)]
    fn carry_over(&self, holder: Pfn, first: Pfn, old: &Run) {
        if self.per_order.before.is_empty() {
            return;
        }
        if let Some(head) = self.packed_head_of(old, first) {
            // SAFETY: 1 and 2: the caller has written the page. 3: pages that change are nobody's to store to (duty 3
            // of `Vmemmap::live_descriptor`).
            unsafe { self.unit_writer().carry_over::<D>(holder, first, head) };
        }
    }

    /// The packed head of the page that began at `first`, mapped to `old`.
    fn packed_head_of(&self, old: &Run, first: Pfn) -> Option<NonNull<D>> {
        let direct_map = self.writer.direct_map;
        let stub = direct_map.frame_pointer(old.leaf.block.first()).cast::<D>();
        // SAFETY: an entry of this library's maps the frame, so the direct map reaches it (duty 2 of
        // `Vmemmap::new`) and it holds descriptors of `D`'s size; they are only shared.
        let stub = unsafe { stub.as_ref() };
        let model = self.writer.model;
        if !D::Encoding::is_stub(stub.word()) || !first.is_aligned(stub.order()) {
            return None;
        }
        let at = model.packed_head(first, stub.order())?.get();
        let holder = self.per_order.before.find(at >> model.granule().shift())?;
        let index = (at / model.descriptor_bytes()) & (model.descriptors_per_page() - 1);
        // SAFETY: so many are in the page.
        Some(unsafe {
            direct_map
                .frame_pointer(holder)
                .cast::<D>()
                .add(index as usize)
        })
    }

    /// Whether the huge leaf, or the shared table, at `at` is to be split. `keeps_whole`: not where all of it may stay.
    #[inline(never)]
    pub(super) fn splits(&self, at: VirtAddr, leaf: Leaf, keeps_whole: bool) -> bool {
        let range = self.writer.model.descriptors(self.unit);
        let granule = self.writer.model.granule();
        let pages = match leaf.role {
            // All that the table maps.
            Role::Tail => granule.entries_per_table() as u64,
            Role::Descriptors | Role::Foreign => leaf.block.order().frames(),
        };
        let bytes = pages.saturating_mul(granule.bytes());
        let (Some(range), Ok(all)) = (range, VirtRange::new(at, bytes)) else {
            return false;
        };
        let start = range.start().max(all.start());
        let part = VirtRange::between(start, range.last().min(all.last()));
        let Some(part) = part else { return false };
        // As `span` says of all of it.
        let is_wanted = part != all || keeps_whole;
        match leaf.role {
            Role::Descriptors => !(is_wanted && self.target.is_all_own(part)),
            Role::Tail if self.describe.keeps() => self.target.is_all_own(part),
            // A table of stubs stands for many pages, of which some may change.
            Role::Tail => !self.stays(part, &leaf),
            Role::Foreign => false,
        }
    }

    /// Whether all of `range` is to be what it is: mapped to the tail frame of `leaf`.
    // Not inlined: what it takes of the stack is not there later.
    #[inline(never)]
    fn stays(&self, range: VirtRange, leaf: &Leaf) -> bool {
        let mut rest = Some(range);
        while let Some(left) = rest {
            match self.target.segment(left.start()) {
                Some(Segment { kind, pages }) if self.is_tail_of(leaf, &kind) => {
                    rest = self.target.after(left, pages);
                }
                _ => return false,
            }
        }
        true
    }
}

impl<D: Reshape, A: FrameAllocator, M: DirectMap> Exchange for Reordering<'_, D, A, M> {
    fn has_spans() -> bool {
        true
    }

    fn span(&self, at: VirtAddr) -> Span {
        let granule = self.writer.model.granule();
        let pages = granule.entries_per_table() as u64;
        let bytes = pages.saturating_mul(granule.bytes());
        if self.target.shares_table(at, pages) {
            let before = at.get().checked_sub(bytes).map(VirtAddr::new);
            return match before.is_some_and(|before| self.target.has_same_tail(before, at)) {
                true => Span::MoreTails,
                false => Span::Tails,
            };
        }
        let span = VirtRange::new(at, bytes);
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
                let Kind::Tail { order, heads, .. } = kind else {
                    return None;
                };
                let node = self.writer.node;
                self.pool.registered_tail(TailKey { order, node, heads })?
            }
        };
        Some(Self::leaf_of(&kind, frame))
    }

    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        self.splits(at, leaf, self.target.keeps_huge_leaves())
    }

    fn split(&mut self, block: Block) {
        // SAFETY: 1: an entry of this library's was the block's one user. 2: that entry's reference; the
        // entries that take its place own those that come of it.
        unsafe { self.pool.split(block) };
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        let tail = run.leaf.block.first();
        let current = self.current.as_mut().map(|(_, held)| held);
        let current = current.filter(|held| held.frame == tail);
        let held = current.or_else(|| self.per_order.of_frame(tail));
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
        let block = self.ahead.next_block()?;
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
                self.carry_over(holder, first, &old);
                continue;
            }
            self.copy(from, holder);
            self.unit_writer().rewrite_page::<D>(holder, first);
        }
    }

    fn groups(&mut self, at: VirtAddr, old: Run) -> Option<Groups> {
        let (part, order) = self.target.shared_from(at)?;
        let pages = order.frames() >> self.writer.model.vmemmap_page_order().get();
        let fit = (old.count / pages).min(part.frames() >> order.get());
        let held = self.per_order.get_mut(self.target.slot(order))?;
        let old_frame = old.leaf.block.first();
        if fit < 2 || old_frame == held.frame || old_frame == held.before {
            return None;
        }
        // Not more than there are references for.
        let fit = fit.min(held.references / (pages - 1));
        let heads = self.ahead.singles.take(fit)?;
        held.draw(heads.frames() * (pages - 1));
        let frame = held.frame;
        // SAFETY: 1: taken for this. 2: `Vmemmap::new` has compared the sizes; such pages fill more than one
        // vmemmap page.
        unsafe {
            self.unit_writer()
                .write_first_pages::<D>(heads, part.start(), order)
        };
        for (index, holder) in (0..).zip(heads) {
            let first = part.start().saturating_add(index * order.frames());
            self.carry_over(holder, first, &old);
        }
        Some(Groups {
            frames: heads,
            tails: GroupTails::Same(Leaf {
                writable: false,
                ..Leaf::single(frame, Role::Tail)
            }),
            pages,
        })
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some(Segment { kind, pages }) = self.segment(at) else {
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
                self.unit_writer().rewrite::<D>(at, &old);
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
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it after the
        // flush (duty 6 of `PageTable`).
        unsafe { self.to_release.add(run, &mut self.pool) };
    }
}
