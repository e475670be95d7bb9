//! Unfolds: from one frame for all tails to a frame, or a place in a huge leaf, for each vmemmap
//! page.

use super::error::FoldError;
use crate::addr::{Block, NodeId, Order, Pfn, VirtAddr};
use crate::frame::{DirectMap, FrameAllocator};
use crate::model::MemoryModel;
use crate::paging::{Exchange, Leaf, Role, Run, Step};
use crate::vmemmap::descriptor_writer::copy_page;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::frames_ahead::FramesAhead;
use crate::vmemmap::note::Notes;

/// The exchange that unfolds, with all frames that it needs.
pub(super) struct Unfolding<'v, A, M> {
    pool: FramePool<'v, A, M>,
    model: &'v MemoryModel,
    direct_map: &'v M,
    order: Order,
    ahead: FramesAhead<'v, M>,
    /// The huge leaf that is being made: its first address and its block.
    joining: Option<(VirtAddr, Block)>,
}

impl<'v, A: FrameAllocator, M: DirectMap> Unfolding<'v, A, M> {
    /// Unfolds compound pages of `order` with frames of `pool`, once they are reserved.
    pub(super) fn new(
        pool: FramePool<'v, A, M>,
        model: &'v MemoryModel,
        direct_map: &'v M,
        order: Order,
    ) -> Self {
        Self {
            pool,
            model,
            direct_map,
            order,
            ahead: FramesAhead::new(direct_map),
            joining: None,
        }
    }

    /// Allocates blocks for up to `leaves` huge leaves of `order`. Returns how many it got.
    pub(super) fn reserve_blocks(
        &mut self,
        leaves: u64,
        order: Order,
        node: NodeId,
        notes: &mut Notes,
    ) -> u64 {
        let pool = &mut self.pool;
        self.ahead.take_blocks(pool, leaves, order, node, notes)
    }

    /// Allocates `frames` single frames. After a failure, `release_unused` releases those that were
    /// reserved.
    pub(super) fn reserve_frames(
        &mut self,
        frames: u64,
        node: NodeId,
        notes: &mut Notes,
    ) -> Result<(), FoldError> {
        let taken = self.ahead.take_singles(&mut self.pool, frames, node, notes);
        Ok(taken?)
    }

    /// Releases what was not needed.
    pub(super) fn release_unused(&mut self) {
        // SAFETY: 1: it was taken of this pool, and what became entries was taken out.
        unsafe { self.ahead.release(&mut self.pool) };
    }

    /// Copies a page of descriptors.
    fn copy_page(&self, from: Pfn, to: Pfn) {
        // SAFETY: 1: duty 2 of `Vmemmap::new`; `to` was allocated for this. 2: nobody else uses it yet, and
        // nobody stores to descriptors that are being unfolded (duty 3 of `Vmemmap::live_descriptor`).
        unsafe { copy_page(self.direct_map, self.model.granule(), from, to) };
    }

    /// Whether the vmemmap page at `at` is the one after the head's.
    fn is_first_tail_page(&self, at: VirtAddr) -> bool {
        let per_page = self.model.descriptors_per_page();
        let frame = self.model.frame_of_descriptor(at);
        frame.is_some_and(|frame| frame.get() - frame.align_down(self.order).get() == per_page)
    }
}

impl<A: FrameAllocator, M: DirectMap> Exchange for Unfolding<'_, A, M> {
    fn should_split(&self, _at: VirtAddr, leaf: Leaf) -> bool {
        leaf.role == Role::Tail
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        // SAFETY: 1: the frame is mapped by entries of this library's. 2: the new table's entries
        // own the references.
        unsafe { self.pool.acquire(run.leaf.block.first(), run.count) }
    }

    fn join(&mut self, at: VirtAddr, _order: Order) -> Option<Leaf> {
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
        let page = at.get().saturating_sub(start.get()) >> self.model.granule().shift();
        for index in 0..old.count {
            let from = old.block(index).map(Block::first);
            let to = block.first().checked_add(page + index);
            if let (Some(from), Some(to)) = (from, to) {
                self.copy_page(from, to);
            }
        }
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        if old.leaf.role != Role::Tail {
            return old;
        }
        let tail = old.leaf.block.first();
        let one = Run::once(old.leaf);
        // A compound page's own tail frame becomes that of its second vmemmap page again. If the
        // reference cannot be counted it stays a tail frame, of one entry.
        if old.leaf.writable && self.is_first_tail_page(at) {
            // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the new entry owns
            // the reference.
            if !unsafe { self.pool.acquire(tail, 1) } {
                return one;
            }
            self.pool.remove_tail(tail);
            return Run::once(Leaf::single(tail, Role::Descriptors));
        }
        let alike = if old.step == Step::Same { old.count } else { 1 };
        let Some(frames) = self.ahead.singles.take(alike) else {
            return one;
        };
        for index in 0..frames.frames() {
            self.copy_page(tail, frames.start().saturating_add(index));
        }
        Run::each(frames, Role::Descriptors)
    }

    fn released(&mut self, run: Run) {
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it
        // after the flush (duty 6 of `PageTable`).
        unsafe { self.pool.release_run(run) };
    }
}
