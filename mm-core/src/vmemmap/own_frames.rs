//! Frames of RAM that no entry maps: those of marks and of the online map.

use super::stats::NodeCounters;
use super::{Vmemmap, memory_of};
use crate::addr::{Block, NodeId, Order, Pfn};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames, Released};
use crate::readers::ReadersOf;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Takes a frame, from `node` if it has some, and has it counted.
    pub(super) fn take_own_frame(
        &mut self,
        node: NodeId,
        count: fn(&mut NodeCounters),
    ) -> Result<Pfn, OutOfFrames> {
        let frame = self.frames.allocate(Order::BASE, node)?.first();
        self.count_own_frame(frame, count);
        Ok(frame)
    }

    /// Frees a frame, and has that counted.
    ///
    /// # Safety
    ///
    /// 1. It came from [`take_own_frame`](Self::take_own_frame), and nobody uses it any more.
    pub(super) unsafe fn free_own_frame(&mut self, frame: Pfn, count: fn(&mut NodeCounters)) {
        self.count_own_frame(frame, count);
        // SAFETY: 1: it came from this allocator. 2: it was never mapped, so this is the one reference.
        let released = unsafe { self.frames.release(Block::single(frame), 1) };
        if let Released::Last(owned) = released {
            // SAFETY: 1: it released the block just now.
            unsafe { self.frames.free(owned) };
        }
    }

    /// Has a frame counted that is taken or freed.
    pub(super) fn count_own_frame(&mut self, frame: Pfn, count: fn(&mut NodeCounters)) {
        let node = self.frames.node_of(frame);
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        self.pool_state
            .counters
            .update(node, memory, &mut { count });
    }
}
