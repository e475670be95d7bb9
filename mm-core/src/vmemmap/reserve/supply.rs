//! The reserve, in place of the allocator and of the page table's.

use super::ReserveState;
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{DirectMap, FrameAllocator, FrameReserve, OutOfFrames};
use crate::paging::TableReserve;
use crate::vmemmap::frames_ahead::block_of;
use core::cell::RefCell;

/// The reserve of a vmemmap at work: what is taken comes from it, and what is freed goes to it.
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
}

impl<A: FrameAllocator, M: DirectMap> FrameReserve for FromReserve<'_, A, M> {
    fn take_block(&self, order: Order, node: NodeId) -> Option<Block> {
        self.with(|state, memory| {
            let run = state.huge_leaves.take(u64::MAX, node, memory)?;
            let block = block_of(run).filter(|block| block.order() == order);
            if block.is_none() {
                // SAFETY: 1: it was taken just now.
                unsafe { state.huge_leaves.push(run, node, memory) };
            }
            block
        })
    }

    fn take_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        self.with(|state, memory| state.frames.take(at_most, node, memory))
    }

    unsafe fn put_run(&self, run: PfnRange, node: NodeId) {
        self.with(|state, memory| {
            // SAFETY: 1: the caller's, and duty 1 of `new`.
            unsafe { state.frames.push(run, node, memory) };
            Some(())
        });
    }

    unsafe fn put_block(&self, block: Block, node: NodeId) {
        self.with(|state, memory| {
            // SAFETY: 1: the caller's, and duty 1 of `new`.
            unsafe { state.huge_leaves.push(block.frames(), node, memory) };
            Some(())
        });
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
        let node = self.frames.node_of(table);
        self.with(|state, memory| {
            // SAFETY: 1: a table without links, with one reference, which the page table gives away.
            unsafe { state.tables.push(PfnRange::single(table), node, memory) };
            Some(())
        });
    }
}
