//! Where frames of RAM come from: an allocator, or a reserve of frames that were allocated before.

use super::allocator::release_one_by_one;
use super::{AcquireError, FrameAllocator, OutOfFrames, OwnedBlock, Released};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};

/// Frames that were allocated before, for work that must not allocate.
pub(crate) trait FrameReserve {
    /// A block of `order`, larger than a frame, for `node`.
    fn take_block(&self, order: Order, node: NodeId) -> Option<Block>;

    /// Up to `at_most` consecutive frames for `node`, at least one.
    fn take_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange>;

    /// Keeps single frames of `node`.
    ///
    /// # Safety
    ///
    /// 1. They came from the allocator that all of the reserve came from. The one reference of each is
    ///    the caller's, and nobody uses them.
    unsafe fn put_run(&self, run: PfnRange, node: NodeId);

    /// Keeps a block of `node`.
    ///
    /// # Safety
    ///
    /// As for [`put_run`](Self::put_run).
    unsafe fn put_block(&self, block: Block, node: NodeId);
}

/// An allocator, or a reserve in its place. References are counted by the allocator.
///
/// One type for both, so that what takes frames is compiled once.
pub(crate) struct AllocatorOrReserve<'a, A> {
    frames: &'a A,
    // One word: it is copied often.
    reserve: Option<&'a &'a dyn FrameReserve>,
}

impl<A> Clone for AllocatorOrReserve<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for AllocatorOrReserve<'_, A> {}

impl<'a, A> AllocatorOrReserve<'a, A> {
    /// What `frames` allocates.
    pub(crate) const fn allocator(frames: &'a A) -> Self {
        let reserve = None;
        Self { frames, reserve }
    }

    /// What is in `reserve`, and nothing else.
    ///
    /// # Safety
    ///
    /// 1. All of the reserve came from this allocator.
    pub(crate) const unsafe fn with_reserve(self, reserve: &'a &'a dyn FrameReserve) -> Self {
        let reserve = Some(reserve);
        Self { reserve, ..self }
    }
}

// Not inlined, so that it is compiled once, and not at each call that allocates.
impl<A: FrameAllocator> AllocatorOrReserve<'_, A> {
    #[inline(never)]
    fn take(reserve: &dyn FrameReserve, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let block = match order {
            Order::BASE => {
                let run = reserve.take_run(1, node);
                run.map(|run| Block::single(run.start()))
            }
            _ => reserve.take_block(order, node),
        };
        block.ok_or(OutOfFrames { order, node })
    }

    /// # Safety
    ///
    /// As for [`FrameAllocator::free`].
    #[inline(never)]
    unsafe fn put(&self, reserve: &dyn FrameReserve, owned: OwnedBlock) {
        // SAFETY: 1: the caller's duty is the same. Then it is the caller's alone.
        unsafe {
            let block = self.frames.keep(owned);
            let node = self.frames.node_of(block.first());
            match block.order() {
                Order::BASE => reserve.put_run(block.frames(), node),
                _ => reserve.put_block(block, node),
            }
        }
    }
}

// SAFETY: 1: a block in a reserve is nobody's, and is taken out when it is handed out. 2: it has one
// reference there, which is handed out; counts are the allocator's. 3 to 5: the allocator's.
unsafe impl<A: FrameAllocator> FrameAllocator for AllocatorOrReserve<'_, A> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let Some(reserve) = self.reserve else {
            return self.frames.allocate(order, node);
        };
        Self::take(*reserve, order, node)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let order = Order::BASE;
        match self.reserve {
            None => self.frames.allocate_run(at_most, node),
            Some(reserve) => {
                let run = reserve.take_run(at_most, node);
                run.ok_or(OutOfFrames { order, node })
            }
        }
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
        let Some(reserve) = self.reserve else {
            // SAFETY: the caller's duties are the same.
            return unsafe { self.frames.release_run(run) };
        };
        let node = self.frames.node_of(run.start());
        // SAFETY: 1: what works with a reserve releases runs of frames that one entry each has mapped, or
        // none; so the caller's reference is the only one, and goes with the frame. All are on one node, as
        // the pool sees to.
        unsafe { reserve.put_run(run, node) };
        run.frames()
    }

    unsafe fn release_each(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe {
            match self.reserve {
                None => self.frames.release_each(frames, step, references),
                Some(_) => release_one_by_one(self, frames, step, references),
            }
        }
    }

    unsafe fn free(&self, owned: OwnedBlock) {
        let Some(reserve) = self.reserve else {
            // SAFETY: 1: the caller's duty is the same.
            return unsafe { self.frames.free(owned) };
        };
        // SAFETY: 1: the caller's duty is the same.
        unsafe { self.put(*reserve, owned) };
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
