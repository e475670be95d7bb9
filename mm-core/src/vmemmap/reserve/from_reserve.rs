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
    /// Whether single frames come from a block where there are no others.
    splits_blocks: bool,
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
            splits_blocks: false,
            state: RefCell::new(state),
        }
    }

    /// The same, where single frames come from a block if there are no others: next to a page in use no huge
    /// leaf can come back, so the others of its pages take no more single frames than the block has that
    /// is there for them. Each such block that is not taken makes up for the frames that its pages took.
    pub(in crate::vmemmap) fn splitting_blocks(self, splits_blocks: bool) -> Self {
        Self {
            splits_blocks,
            ..self
        }
    }

    /// Up to `at_most` frames of a block, of which the others go to the single frames.
    #[cold]
    fn take_of_block(
        &self,
        state: &mut ReserveState,
        at_most: u64,
        node: NodeId,
    ) -> Option<PfnRange> {
        if !self.splits_blocks || !self.frames.can_split() {
            return None;
        }
        let memory = self.direct_map;
        let block = block_of(state.huge_leaves.take(u64::MAX, node, memory)?)?;
        // SAFETY: 1: it was in the reserve, as it was allocated. 2: the reserve's reference, of each frame
        // from now on.
        unsafe { self.frames.split(block) };
        let (taken, rest) = block.frames().take_first(at_most);
        if let Some(rest) = rest {
            // SAFETY: 1: of the block, with one reference each, and duty 1 of `new`.
            unsafe { state.frames.push(rest, node, memory) };
        }
        Some(taken)
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
        self.with(|state, memory| {
            let single = state.frames.take(at_most, node, memory);
            single.or_else(|| self.take_of_block(state, at_most, node))
        })
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
