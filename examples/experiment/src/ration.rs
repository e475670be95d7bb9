//! Memory that runs out when told to.

use core::cell::Cell;
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::frame::PlainAllocator;

/// An allocator that hands out a ration and then refuses.
#[derive(Debug)]
pub struct Rationed<A> {
    allocator: A,
    left: Cell<Option<u64>>,
}

impl<A> Rationed<A> {
    /// `allocator`, without a limit.
    pub const fn new(allocator: A) -> Self {
        Self {
            allocator,
            left: Cell::new(None),
        }
    }

    /// Lets `frames` more go out; `None` for as many as there are. What comes back does not count.
    pub fn set_ration(&self, frames: Option<u64>) {
        self.left.set(frames);
    }

    /// The allocator behind it.
    pub const fn allocator(&self) -> &A {
        &self.allocator
    }
}

// SAFETY: 1 to 3 hold because they hold for the allocator behind it.
unsafe impl<A: PlainAllocator> PlainAllocator for Rationed<A> {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        let left = match self.left.get() {
            Some(left) => Some(left.checked_sub(order.frames())?),
            None => None,
        };
        let block = self.allocator.allocate(order, node)?;
        self.left.set(left);
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
