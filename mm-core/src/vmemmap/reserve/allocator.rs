//! The reserve, in place of an allocator.

use super::ReserveState;
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{AcquireError, DirectMap, FrameAllocator, OutOfFrames, OwnedBlock, Released};
use crate::paging::TableReserve;
use crate::vmemmap::frames_ahead::block_of;
use core::cell::RefCell;

/// The reserve of a vmemmap at work: what is allocated here comes from it, and what is freed goes to it.
/// References are counted by the allocator that all of it came from.
pub(in crate::vmemmap) struct FromReserve<'v, A, M> {
    frames: &'v A,
    direct_map: &'v M,
    // No method calls another one that borrows.
    state: RefCell<&'v mut ReserveState>,
}

impl<'v, A: FrameAllocator, M: DirectMap> FromReserve<'v, A, M> {
    /// # Safety
    ///
    /// 1. All that is in `state` came from `frames`, or is a spare table of the page table that asks for
    ///    tables. `direct_map` reaches all of it.
    pub(in crate::vmemmap) unsafe fn new(
        frames: &'v A,
        direct_map: &'v M,
        state: &'v mut ReserveState,
    ) -> Self {
        Self {
            frames,
            direct_map,
            state: RefCell::new(state),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut ReserveState, &M) -> Option<T>) -> Option<T> {
        let mut state = self.state.try_borrow_mut().ok()?;
        work(&mut state, self.direct_map)
    }

    /// # Safety
    ///
    /// 1. The block came from the allocator, or was a spare table; its one reference is the caller's, and
    ///    nobody uses it.
    unsafe fn put_in(&self, block: Block, is_table: bool) {
        let node = self.frames.node_of(block.first());
        self.with(|state, memory| {
            let stack = match (is_table, block.order()) {
                (true, _) => &mut state.tables,
                (false, Order::BASE) => &mut state.frames,
                (false, _) => &mut state.huge_leaves,
            };
            // SAFETY: 1: the caller's, and duty 1 of `new`.
            unsafe { stack.push(block.frames(), node, memory) };
            Some(())
        });
    }
}

// SAFETY: 1: a block in the reserve is nobody's, and is taken out when it is handed out. 2: it has one
// reference there, which is handed out; counts are the allocator's. 3 and 4: the allocator's. 5: duty 1 of
// `new`.
unsafe impl<A: FrameAllocator, M: DirectMap> FrameAllocator for FromReserve<'_, A, M> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        if order == Order::BASE {
            return self
                .allocate_run(1, node)
                .map(|run| Block::single(run.start()));
        }
        let block = self.with(|state, memory| {
            let run = state.huge_leaves.take(u64::MAX, node, memory)?;
            let block = block_of(run).filter(|block| block.order() == order);
            if block.is_none() {
                // SAFETY: 1: it was taken just now.
                unsafe { state.huge_leaves.push(run, node, memory) };
            }
            block
        });
        block.ok_or(refused)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let order = Order::BASE;
        let refused = OutOfFrames { order, node };
        self.with(|state, memory| state.frames.take(at_most, node, memory))
            .ok_or(refused)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.frames.acquire(first, references) }
    }

    fn most_references(&self) -> u64 {
        self.frames.most_references()
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: the caller's duties are the same.
        unsafe { self.frames.release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        let node = self.frames.node_of(run.start());
        self.with(|state, memory| {
            // SAFETY: 1: a pool releases runs of frames that one entry each has mapped, or none; so the
            // caller's reference is the only one, and goes with the frame. All are on one node, as the
            // pool sees to. Duty 1 of `new`.
            unsafe { state.frames.push(run, node, memory) };
            Some(())
        });
        run.frames()
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: 1: the caller's duty is the same.
        unsafe {
            let block = self.frames.keep(block);
            self.put_in(block, false);
        }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { self.frames.keep(block) }
    }

    fn can_split(&self) -> bool {
        self.frames.can_split()
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { self.frames.split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.frames.node_of(frame)
    }
}

impl<A: FrameAllocator, M: DirectMap> TableReserve for FromReserve<'_, A, M> {
    fn take(&self, node: NodeId) -> Result<Pfn, OutOfFrames> {
        let order = Order::BASE;
        self.with(|state, memory| state.tables.take(1, node, memory))
            .map(PfnRange::start)
            .ok_or(OutOfFrames { order, node })
    }

    fn put(&self, table: Pfn) {
        // SAFETY: 1: a table without links, with one reference, which the page table gives away.
        unsafe { self.put_in(Block::single(table), true) };
    }
}
