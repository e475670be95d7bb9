//! What replaces each vmemmap page where everything that has memory of its own is kept: in a fold and in an
//! unfold.
//!
//! ```text
//!                         | head | tail | tail | tail | ...
//!   each has a frame      |  A      B      C      D
//!   shared per compound   |  A      B      B      B          the second page's frame is the tail frame
//!   shared per order      |  A      T      T      T
//! ```

use super::describe::Describe;
use super::held_tails::HeldTail;
use super::reordering::Reordering;
use super::target::{Kind, Segment};
use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr};
use crate::descriptor::Reshape;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::Tails;
use crate::paging::{Exchange, Leaf, Role, Run, Step};

/// The exchange that keeps. It goes entry by entry: what stays needs no table aside, and a kernel that only
/// folds has no code for these.
pub(super) struct Keeping<'r, 'v, D, A, M> {
    all: &'r mut Reordering<'v, D, A, M>,
    /// In a fold, the frame of the head's vmemmap page, until it is known whether its tails are shared
    /// already.
    head: Option<Pfn>,
    /// How many compound pages keep all of their frames because the allocator cannot count the references of
    /// a tail frame.
    pub(super) uncounted: u64,
}

impl<'r, 'v, D: Reshape, A: FrameAllocator, M: DirectMap> Keeping<'r, 'v, D, A, M> {
    pub(super) const fn new(all: &'r mut Reordering<'v, D, A, M>) -> Self {
        Self {
            all,
            head: None,
            uncounted: 0,
        }
    }

    /// What replaces `old` at `at`, tails of `page` in frames of their own.
    fn fold(&mut self, at: VirtAddr, old: Run, kind: &Kind) -> Run {
        let Kind::Tail {
            page, order, tails, ..
        } = *kind
        else {
            return old;
        };
        if let Some(holder) = self.head.take() {
            let writer = self.all.unit_writer();
            writer.rewrite_page::<D>(holder, page.start());
        }
        let held = if tails == Tails::PerOrder {
            self.all.per_order.get_mut(self.all.target.slot(order))
        } else {
            if self.is_second(at) {
                self.take_over(&old, page);
            }
            let current = self.all.current.as_mut();
            let current = current.filter(|(start, _)| *start == page.start());
            current.map(|(_, held)| held)
        };
        if let Some(held) = held
            && held.draw(old.count)
        {
            return Run {
                leaf: Reordering::<D, A, M>::leaf_of(kind, held.frame),
                count: old.count,
                step: Step::Same,
            };
        }
        // The compound page keeps its frames.
        self.all.unit_writer().rewrite::<D>(at, &old);
        old
    }

    /// Makes the frame of `old`, of the second vmemmap page of `page`, the tail frame of that, with a
    /// reference for each entry. If they cannot be counted, its vmemmap pages keep their frames.
    fn take_over(&mut self, old: &Run, page: PfnRange) {
        self.all.release_current();
        let own = old.leaf.block.first();
        let references = self.all.target.tails_of(page);
        // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the entries of the tails own
        // the references.
        if !unsafe { self.all.pool.acquire(own, references) } {
            self.uncounted += 1;
            return;
        }
        let in_page = self.all.writer.model.descriptors_per_page();
        let first = page.start().saturating_add(in_page);
        self.all.unit_writer().reset_to_tails::<D>(own, first);
        self.all.pool.add_tail(own);
        self.all.current = Some((page.start(), HeldTail::new(own, references)));
    }

    /// Frames of their own for the first of the pages of `old` at `at`, which are mapped to tails.
    fn unfold(&mut self, at: VirtAddr, old: Run) -> Run {
        let tail = old.leaf.block.first();
        if old.leaf.writable && self.is_second(at) {
            return self.give_over(tail);
        }
        let Some(frames) = self.all.ahead.singles.take(old.count) else {
            return Run::once(old.leaf);
        };
        for holder in frames {
            self.all.copy(tail, holder);
        }
        Run::each(frames, Role::Descriptors)
    }

    /// The tail frame of a compound page becomes that of its second vmemmap page again. If the reference
    /// cannot be counted it stays a tail frame, of one entry.
    fn give_over(&mut self, tail: Pfn) -> Run {
        // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the new entry owns the
        // reference.
        let role = match unsafe { self.all.pool.acquire(tail, 1) } {
            true => {
                self.all.pool.remove_tail(tail);
                Role::Descriptors
            }
            false => Role::Tail,
        };
        Run::once(Leaf::single(tail, role))
    }

    /// Whether the vmemmap page at `at` is the second one of its compound page.
    fn is_second(&self, at: VirtAddr) -> bool {
        let first = self.all.described(at, 0);
        first.is_some_and(|first| {
            let before = first.get() - self.all.target.page_of(first).0.start().get();
            before == self.all.writer.model.descriptors_per_page()
        })
    }
}

impl<D: Reshape, A: FrameAllocator, M: DirectMap> Exchange for Keeping<'_, '_, D, A, M> {
    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        // A huge leaf that nobody wants stays too.
        self.all.splits(at, leaf, true)
    }

    fn split(&mut self, block: Block) {
        self.all.split(block);
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        // SAFETY: 1: the frame is mapped by entries of this library's. 2: the new table's entries own the
        // references.
        unsafe { self.all.pool.acquire(run.leaf.block.first(), run.count) }
    }

    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        self.all.join(at, order)
    }

    fn joined(&mut self, at: VirtAddr, old: Run) {
        let Some((start, block)) = self.all.joining else {
            return;
        };
        let shift = self.all.writer.model.granule().shift();
        let page = at.get().saturating_sub(start.get()) >> shift;
        for index in 0..old.count {
            let from = old.block(index).map(Block::first);
            let holder = block.first().checked_add(page + index);
            if let (Some(from), Some(holder)) = (from, holder) {
                self.all.copy(from, holder);
            }
        }
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        let Some(Segment { kind, pages }) = self.all.segment(at) else {
            return old;
        };
        let old = Run {
            count: old.count.min(pages),
            ..old
        };
        match (kind, old.leaf.role) {
            (Kind::Own, Role::Tail) => self.unfold(at, old),
            (Kind::Own, _) => {
                if self.all.describe == Describe::Kept {
                    self.head = Some(old.leaf.block.first());
                }
                old
            }
            (Kind::Tail { .. }, Role::Descriptors) => self.fold(at, old, &kind),
            // It is shared already.
            (Kind::Tail { .. }, _) => {
                self.head = None;
                old
            }
        }
    }

    fn released(&mut self, run: Run) {
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it after the
        // flush (duty 6 of `PageTable`).
        unsafe { self.all.pool.release_run(run) };
    }
}
