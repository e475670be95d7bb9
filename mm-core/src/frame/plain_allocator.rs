//! Allocators without reference counts.

use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};

/// An allocator of frames that only hands them out and takes them back.
///
/// # Safety
///
/// 1. A block that was handed out belongs to the caller alone, aligned to its size, all of it on
///    one node, until it is given back.
/// 2. A block that was handed out can be given back frame by frame, if
///    [`takes_back_frames`](Self::takes_back_frames) says so.
/// 3. Every frame is reachable through the kernel's [`DirectMap`](super::DirectMap) while it is
///    out.
pub unsafe trait PlainAllocator {
    /// Hands out a block of `order`, from `node` if it has one; `None` where there is none.
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block>;

    /// Hands out between 1 and `at_most` single frames that follow each other, all on one node. The
    /// library asks for at least 1. Worth overriding where it saves calls.
    fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        let _ = at_most;
        self.allocate(Order::BASE, node).map(Block::frames)
    }

    /// Takes a block, or a frame of one, back.
    ///
    /// # Safety
    ///
    /// 1. The frames were handed out by `allocate` and not given back since.
    /// 2. Nobody uses them any more.
    unsafe fn free(&self, block: Block);

    /// Whether a block can be given back frame by frame. Where it cannot, huge leaves of vmemmap are
    /// used only where they will never be split.
    fn takes_back_frames(&self) -> bool {
        true
    }

    /// The node that `frame` is on.
    fn node_of(&self, frame: Pfn) -> NodeId;
}

// SAFETY: 1 to 3 hold because they hold for the allocator behind the reference.
unsafe impl<T: PlainAllocator + ?Sized> PlainAllocator for &T {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        (**self).allocate(order, node)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        (**self).allocate_run(at_most, node)
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).free(block) }
    }

    fn takes_back_frames(&self) -> bool {
        (**self).takes_back_frames()
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        (**self).node_of(frame)
    }
}
