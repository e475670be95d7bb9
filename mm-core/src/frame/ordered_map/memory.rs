//! Where a map's frames come from, and the rows in them.

use super::rows::{Rows, RowsMut, capacity};
use crate::addr::{Block, Granule, NodeId, Order, Pfn};
use crate::frame::{
    AllocatorOrReserve, DirectMap, FrameAllocator, FrameReserve, FrameStack, OutOfFrames, Released,
};
use core::slice;

/// What gives frames to an [`OrderedMap`](super::OrderedMap).
pub(crate) struct MapMemory<'a, A, M> {
    frames: AllocatorOrReserve<'a, A>,
    direct_map: &'a M,
    granule: Granule,
    node: NodeId,
}

impl<A, M> Clone for MapMemory<'_, A, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, M> Copy for MapMemory<'_, A, M> {}

impl<'a, A: FrameAllocator, M: DirectMap> MapMemory<'a, A, M> {
    /// Frames of `frames`, from `node` if it has some.
    ///
    /// # Safety
    ///
    /// 1. `direct_map` reaches every frame that `frames` hands out, until it is freed. Its pages
    ///    have the size of `granule`.
    /// 2. All calls on one map are given the same allocator, the same direct map and the same
    ///    granule, or others over the same memory. The node may be another each time.
    pub(crate) const unsafe fn new(
        frames: &'a A,
        direct_map: &'a M,
        granule: Granule,
        node: NodeId,
    ) -> Self {
        Self {
            frames: AllocatorOrReserve::allocator(frames),
            direct_map,
            granule,
            node,
        }
    }

    /// The same memory, with frames of `reserve` in place of the allocator.
    ///
    /// # Safety
    ///
    /// 1. All of the reserve came from this allocator.
    pub(crate) const unsafe fn with_reserve(self, reserve: &'a &'a dyn FrameReserve) -> Self {
        // SAFETY: 1: the caller's.
        let frames = unsafe { self.frames.with_reserve(reserve) };
        Self { frames, ..self }
    }

    /// The same memory, with frames from `node` if it has some.
    pub(crate) const fn on(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    /// What gives the frames.
    pub(crate) const fn allocator(&self) -> AllocatorOrReserve<'a, A> {
        self.frames
    }

    /// How many rows of this width fit into a frame.
    pub(super) const fn capacity(&self, width: usize) -> usize {
        capacity(self.granule, width)
    }

    /// A frame that nobody uses.
    pub(super) fn allocate(&self) -> Result<Pfn, OutOfFrames> {
        self.frames
            .allocate(Order::BASE, self.node)
            .map(Block::first)
    }

    /// That many frames, or none.
    pub(super) fn reserve(&self, frames: u32) -> Result<Reserved<'_, A, M>, OutOfFrames> {
        let mut reserved = Reserved {
            memory: self,
            stack: FrameStack::new(self.direct_map),
        };
        for _ in 0..frames {
            let block = self.frames.allocate(Order::BASE, self.node)?;
            // SAFETY: 1: allocated just now; reached by duty 1 of `MapMemory::new`.
            unsafe { reserved.stack.push(block.frames()) };
        }
        Ok(reserved)
    }

    /// Gives `frame` back.
    ///
    /// # Safety
    ///
    /// 1. The frame came from this memory, and nobody uses it any more.
    pub(super) unsafe fn give_back(&self, frame: Pfn) {
        // SAFETY: 1: it came from this allocator, as a single frame. 2: its one reference is the
        // map's, and the frame was never mapped.
        let released = unsafe { self.frames.release(Block::single(frame), 1) };
        if let Released::Last(owned) = released {
            // SAFETY: 1: this allocator released it just now.
            unsafe { self.frames.free(owned) };
        }
    }

    /// The rows in `frame`.
    ///
    /// # Safety
    ///
    /// 1. The frame came from this memory, was given to `begin` for rows of this width, and has not
    ///    gone back.
    /// 2. It is not changed and does not go back while the rows are borrowed.
    pub(super) unsafe fn rows<'r>(&self, frame: Pfn, width: usize) -> Rows<'r> {
        let page = self.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: duty 1, with duty 1 of `MapMemory::new`: the page is words, which `begin` wrote.
        // The first is the number of rows, for which there is room behind it. A page is aligned to
        // more than words are. Duty 2: they stay as they are.
        let words = unsafe { slice::from_raw_parts(page.as_ptr(), self.words()) };
        match words.split_first() {
            Some((len, words)) => Rows::new(words, *len as usize, width),
            None => Rows::new(words, 0, width),
        }
    }

    /// The rows in `frame`, to be changed.
    ///
    /// # Safety
    ///
    /// 1. As for `rows`.
    /// 2. Nobody else uses the frame, and it does not go back, while the rows are borrowed.
    pub(super) unsafe fn rows_mut<'r>(&self, frame: Pfn, width: usize) -> RowsMut<'r> {
        let page = self.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: as in `rows`. Duty 2: they are this borrow's alone.
        let (len, words) = unsafe {
            let words = page.add(1).as_ptr();
            let count = self.words().saturating_sub(1);
            (&mut *page.as_ptr(), slice::from_raw_parts_mut(words, count))
        };
        RowsMut::new(words, len, width)
    }

    /// Makes `frame` a frame of rows, of which there are none yet.
    ///
    /// # Safety
    ///
    /// 1. The frame came from this memory, and nobody else uses it while the rows are borrowed.
    pub(super) unsafe fn begin<'r>(&self, frame: Pfn, width: usize) -> RowsMut<'r> {
        let page = self.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: duty 1, with duty 1 of `MapMemory::new`: a page of the map's alone. With its words
        // written, both duties of `rows_mut` are met.
        unsafe {
            page.write_bytes(0, self.words());
            self.rows_mut(frame, width)
        }
    }

    /// The words of a frame.
    const fn words(&self) -> usize {
        // A page has at most 2^16 bytes.
        self.granule.bytes() as usize / size_of::<u64>()
    }
}

/// Frames that were reserved. Those that are not taken go back.
pub(super) struct Reserved<'m, A: FrameAllocator, M: DirectMap> {
    memory: &'m MapMemory<'m, A, M>,
    stack: FrameStack<'m, M>,
}

impl<A: FrameAllocator, M: DirectMap> Reserved<'_, A, M> {
    #[inline(never)]
    pub(super) fn take(&mut self) -> Option<Pfn> {
        self.stack.take(1).map(|run| run.start())
    }
}

impl<A: FrameAllocator, M: DirectMap> Drop for Reserved<'_, A, M> {
    fn drop(&mut self) {
        while let Some(frame) = self.take() {
            // SAFETY: 1: `reserve` allocated it, and it has not been taken.
            unsafe { self.memory.give_back(frame) };
        }
    }
}
