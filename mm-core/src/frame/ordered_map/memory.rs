//! Where a map's frames come from, and the rows in them.

use super::rows::{Row, Rows};
use crate::addr::{Block, Granule, NodeId, Order, Pfn};
use crate::frame::{DirectMap, FrameAllocator, FrameStack, OutOfFrames, Released};
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

/// What gives frames to an [`OrderedMap`](super::OrderedMap).
pub(crate) struct MapMemory<'a, A, M> {
    frames: &'a A,
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
            frames,
            direct_map,
            granule,
            node,
        }
    }

    /// The same memory, with frames from `node` if it has some.
    pub(crate) const fn on(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    /// The allocator.
    pub(crate) const fn allocator(&self) -> &'a A {
        self.frames
    }

    /// How many rows of `T` fit into a frame.
    pub(super) const fn capacity<T>(&self) -> usize {
        Row::<T>::capacity(self.granule)
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
    /// 1. The frame came from this memory, was given to `begin` for rows of `T`, and has not gone
    ///    back.
    /// 2. It is not changed and does not go back while the rows are borrowed.
    pub(super) unsafe fn rows<'r, T>(&self, frame: Pfn) -> &'r [Row<T>] {
        let page = self.direct_map.frame_pointer(frame);
        // SAFETY: duty 1, with duty 1 of `MapMemory::new`: the page starts with the number of its
        // rows, the initialised rows are at `START`, and a page is aligned to more than either.
        // Duty 2: they stay as they are.
        unsafe {
            let len = page.cast::<usize>().read();
            slice::from_raw_parts(page.add(Row::<T>::START).cast().as_ptr(), len)
        }
    }

    /// The rows in `frame`, to be changed.
    ///
    /// # Safety
    ///
    /// 1. As for `rows`.
    /// 2. Nobody else uses the frame, and it does not go back, while the rows are borrowed.
    pub(super) unsafe fn rows_mut<'r, T: Copy>(&self, frame: Pfn) -> Rows<'r, T> {
        let page = self.direct_map.frame_pointer(frame);
        let capacity = self.capacity::<T>();
        let places: NonNull<MaybeUninit<Row<T>>>;
        // SAFETY: as in `rows`. So many places fit into the page, behind the number of rows; a
        // place may be uninitialised. Duty 2: they are this borrow's alone. 1 of `Rows::new`: rows
        // are counted when they are written.
        unsafe {
            places = page.add(Row::<T>::START).cast();
            Rows::new(
                page.cast().as_mut(),
                slice::from_raw_parts_mut(places.as_ptr(), capacity),
            )
        }
    }

    /// Makes `frame` a frame of rows, of which there are none yet.
    ///
    /// # Safety
    ///
    /// 1. The frame came from this memory, and nobody else uses it while the rows are borrowed.
    pub(super) unsafe fn begin<'r, T: Copy>(&self, frame: Pfn) -> Rows<'r, T> {
        let page = self.direct_map.frame_pointer(frame);
        // SAFETY: duty 1, with duty 1 of `MapMemory::new`: a page of the map's alone. With the
        // number of rows written, both duties of `rows_mut` are met.
        unsafe {
            page.cast::<usize>().write(0);
            self.rows_mut(frame)
        }
    }
}

/// Frames that were reserved. Those that are not taken go back.
pub(super) struct Reserved<'m, A: FrameAllocator, M: DirectMap> {
    memory: &'m MapMemory<'m, A, M>,
    stack: FrameStack<'m, M>,
}

impl<A: FrameAllocator, M: DirectMap> Reserved<'_, A, M> {
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
