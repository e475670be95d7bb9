//! From the frames of a kernel that starts to its allocator.

use super::{DirectMap, EarlyFrames, EarlyRange, PlainAllocator};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use core::sync::atomic::{AtomicBool, Ordering};

/// One allocator from the start on: [`EarlyFrames`] until the kernel has its full allocator, and that
/// one ever after.
///
/// ```text
///   memory map ▶ EarlyFrames ─▶ descriptors of RAM ─▶ the kernel's allocator has pages to manage
///                     │                                         ▲
///                     └────── hand_over: what is left ──────────┘
/// ```
///
/// Descriptors of RAM are needed before there is an allocator that keeps its lists in them. Frames that
/// the vmemmap has taken meanwhile go back to the full allocator. Reference counts are
/// [`Counted`](super::Counted)'s, which is around this value and does not notice.
#[derive(Debug)]
pub struct BootFrames<'m, M, B> {
    early: EarlyFrames<'m, M>,
    full: B,
    handed_over: AtomicBool,
}

impl<'m, M: DirectMap, B: PlainAllocator> BootFrames<'m, M, B> {
    /// Frames of `early`, until they are handed over, and then of `full`.
    ///
    /// # Safety
    ///
    /// 1. `full` takes frames back that came from `early`, once it knows of them by `hand_over`, as if it
    ///    had handed them out.
    /// 2. It has no frame until it is given what `hand_over` hands over.
    pub const unsafe fn new(early: EarlyFrames<'m, M>, full: B) -> Self {
        Self {
            early,
            full,
            handed_over: AtomicBool::new(false),
        }
    }

    /// From now on frames come from the full allocator, and go back to it. The kernel gives it all that
    /// is [free](EarlyRange::Free), and tells it of what was [taken](EarlyRange::Taken), if it wants to
    /// know: many take any frame; `buddy_system_allocator` takes back only what it knows as allocated.
    ///
    /// Call it while no other CPU allocates or frees: what comes back to the early frames meanwhile is
    /// lost. The second time nothing is free.
    #[must_use = "free frames are lost unless the full allocator gets them"]
    pub fn hand_over(&self) -> impl Iterator<Item = EarlyRange> + '_ {
        self.handed_over.store(true, Ordering::Release);
        self.early.drain()
    }

    /// The full allocator.
    pub const fn full(&self) -> &B {
        &self.full
    }

    fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }
}

// SAFETY: 1 to 3 hold because they hold for both, and what one has handed out the other has not: duties
// 1 and 2 of `new`.
unsafe impl<M: DirectMap, B: PlainAllocator> PlainAllocator for BootFrames<'_, M, B> {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        match self.is_handed_over() {
            true => self.full.allocate(order, node),
            false => self.early.allocate(order, node),
        }
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        match self.is_handed_over() {
            true => self.full.allocate_run(at_most, node),
            false => self.early.allocate_run(at_most, node),
        }
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: the caller's; duty 1 of `new`.
        unsafe {
            match self.is_handed_over() {
                true => self.full.free(block),
                false => self.early.free(block),
            }
        }
    }

    fn takes_back_frames(&self) -> bool {
        self.full.takes_back_frames()
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        match self.is_handed_over() {
            true => self.full.node_of(frame),
            false => self.early.node_of(frame),
        }
    }
}
