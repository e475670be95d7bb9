//! Reference counts for an allocator that has none.

use super::counts::{Counts, TooFewCounts};
use super::{AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use core::sync::atomic::AtomicU64;

/// An allocator of frames that only hands them out and takes them back.
///
/// # Safety
///
/// 1. A block that was handed out belongs to the caller alone, aligned to its size, all of it on one
///    node, until it is given back.
/// 2. A block that was handed out can be given back frame by frame.
/// 3. Every frame is reachable through the kernel's [`DirectMap`](super::DirectMap) while it is out.
pub unsafe trait PlainAllocator {
    /// Hands out a block of `order`, from `node` if it has one; `None` where there is none.
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block>;

    /// Takes a block, or a frame of one, back.
    ///
    /// # Safety
    ///
    /// 1. The frames were handed out by `allocate` and not given back since.
    /// 2. Nobody uses them any more.
    unsafe fn free(&self, block: Block);

    /// The node that `frame` is on.
    fn node_of(&self, frame: Pfn) -> NodeId;
}

// SAFETY: 1 to 3 hold because they hold for the allocator behind the reference.
unsafe impl<T: PlainAllocator + ?Sized> PlainAllocator for &T {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        (**self).allocate(order, node)
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).free(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        (**self).node_of(frame)
    }
}

/// A [`PlainAllocator`] with reference counts, in memory that the caller supplies.
///
/// A frame that the allocator hands out from beyond the counted range is given back at once and counts
/// as none left.
#[derive(Debug)]
pub struct Counted<'c, A> {
    allocator: A,
    counts: Counts<'c>,
}

impl<'c, A: PlainAllocator> Counted<'c, A> {
    /// Counts the frames of `frames` that `allocator` hands out in `counts`, which has a word for each of them and is
    /// overwritten.
    ///
    /// # Errors
    ///
    /// [`TooFewCounts`].
    pub fn new(
        allocator: A,
        frames: PfnRange,
        counts: &'c [AtomicU64],
    ) -> Result<Self, TooFewCounts> {
        let counts = Counts::new(frames, counts)?;
        Ok(Self { allocator, counts })
    }

    /// The allocator without its counts.
    pub fn allocator(&self) -> &A {
        &self.allocator
    }
}

// SAFETY: 1 and 5: duties 1 and 3 of the plain allocator, which gets a block back only from `free`.
// 2 to 4: `Counts` keeps them.
unsafe impl<A: PlainAllocator> FrameAllocator for Counted<'_, A> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let block = self.allocator.allocate(order, node).ok_or(refused)?;
        if self.counts.claim(block) {
            return Ok(block);
        }
        // SAFETY: 1 and 2: it was handed out just now and nobody has seen it.
        unsafe { self.allocator.free(block) };
        Err(refused)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's duties 1 and 2.
        unsafe { self.counts.release(block, references) }
    }

    fn free(&self, block: OwnedBlock) {
        let block = block.block();
        self.counts.clear(block);
        // SAFETY: 1: it was handed out by `allocate`, or is a frame of a block that was (duty 2 of the plain
        // allocator). 2: its last reference has gone.
        unsafe { self.allocator.free(block) };
    }

    unsafe fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.allocator.node_of(frame)
    }
}

impl<A> InspectFrames for Counted<'_, A> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        Some(self.counts.in_use())
    }
}
