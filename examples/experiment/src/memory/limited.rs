//! An allocator with limits, to test what happens when memory runs out.

use core::cell::Cell;
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::frame::PlainAllocator;

/// An allocator that hands out a limited number of frames and then refuses.
#[derive(Debug)]
pub struct Limited<A> {
    allocator: A,
    left: Cell<Option<u64>>,
    calls_left: Cell<Option<u64>>,
    no_blocks: Cell<bool>,
}

impl<A> Limited<A> {
    /// `allocator`, without a limit.
    pub const fn new(allocator: A) -> Self {
        Self {
            allocator,
            left: Cell::new(None),
            calls_left: Cell::new(None),
            no_blocks: Cell::new(false),
        }
    }

    /// Lets `calls` more allocations succeed, of whatever size; `None` for as many as there is
    /// memory for.
    pub fn set_call_limit(&self, calls: Option<u64>) {
        self.calls_left.set(calls);
    }

    /// Refuses more than one frame at a time, as where memory is fragmented, or no longer does.
    pub fn refuse_blocks(&self, refuse: bool) {
        self.no_blocks.set(refuse);
    }

    /// Lets `frames` more go out; `None` for as many as there are. What comes back does not count.
    pub fn set_frame_limit(&self, frames: Option<u64>) {
        self.left.set(frames);
    }

    /// The allocator behind it.
    pub const fn allocator(&self) -> &A {
        &self.allocator
    }
}

// SAFETY: 1 to 3 hold because they hold for the allocator behind it.
unsafe impl<A: PlainAllocator> PlainAllocator for Limited<A> {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        if self.no_blocks.get() && order != Order::BASE {
            return None;
        }
        let without = |left: Option<u64>, taken: u64| match left {
            Some(left) => left.checked_sub(taken).map(Some),
            None => Some(None),
        };
        let left = without(self.left.get(), order.frames())?;
        let calls_left = without(self.calls_left.get(), 1)?;
        let block = self.allocator.allocate(order, node)?;
        self.left.set(left);
        self.calls_left.set(calls_left);
        Some(block)
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { self.allocator.free(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.allocator.node_of(frame)
    }
}
