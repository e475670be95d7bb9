//! Memory for the maps of tests.

use super::NODE;
use crate::addr::{Block, Granule, NodeId, Order, Pfn};
use crate::frame::ordered_map::MapMemory;
use crate::frame::{AcquireError, DirectMap, FrameAllocator, OutOfFrames, OwnedBlock, Released};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
extern crate std;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// Frames from 0 on, with their counts and their memory.
pub(super) struct Pool {
    pub(super) granule: Granule,
    frames: u64,
    bytes: NonNull<u8>,
    free: RefCell<Vec<Pfn>>,
    references: RefCell<Vec<u64>>,
    /// How many requests are met before the others fail.
    left: Cell<u64>,
    /// How many requests were met.
    pub(super) met: Cell<u64>,
}

impl Pool {
    pub(super) fn new(granule: Granule, frames: u64) -> Self {
        let layout = Self::layout(granule, frames);
        // SAFETY: the size is not zero.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) });
        Self {
            granule,
            frames,
            bytes: bytes.unwrap_or_else(|| handle_alloc_error(layout)),
            free: RefCell::new((0..frames).rev().filter_map(Pfn::new).collect()),
            references: RefCell::new((0..frames).map(|_| 0).collect()),
            left: Cell::new(u64::MAX),
            met: Cell::new(0),
        }
    }

    fn layout(granule: Granule, frames: u64) -> Layout {
        let page = granule.bytes() as usize;
        Layout::from_size_align(frames as usize * page, page).unwrap()
    }

    pub(super) fn memory(&self) -> MapMemory<'_, Self, Self> {
        // SAFETY: 1: the pool has a page for each frame. 2: each test has one pool.
        unsafe { MapMemory::new(self, self, self.granule, NODE) }
    }

    pub(super) fn out(&self) -> u64 {
        self.frames - self.free.borrow().len() as u64
    }

    /// What `f` does while only `left` requests are met.
    pub(super) fn with_only<T>(&self, left: u64, f: impl FnOnce() -> T) -> T {
        self.left.set(left);
        let result = f();
        self.left.set(u64::MAX);
        result
    }

    pub(super) fn word(&self, frame: Pfn, offset: usize) -> u64 {
        // SAFETY: within the page; only words that the map has written are asked for.
        unsafe { self.frame_pointer(frame).add(offset).cast().read() }
    }

    /// Overwrites a frame, so that nobody can rely on what was there.
    fn spoil(&self, frame: Pfn) {
        let size = self.granule.bytes() as usize;
        // SAFETY: all of a page that nobody uses.
        unsafe { self.frame_pointer(frame).write_bytes(0xa5, size) };
    }

    /// The frames that are out, with their bytes.
    pub(super) fn contents(&self) -> BTreeMap<u64, Vec<u8>> {
        let free: BTreeSet<_> = self.free.borrow().iter().copied().collect();
        let frames = (0..self.frames).filter_map(Pfn::new);
        let out = frames.filter(|frame| !free.contains(frame));
        let size = self.granule.bytes() as usize;
        out.map(|frame| {
            let page = self.frame_pointer(frame);
            // SAFETY: the page was zeroed or spoiled, and the rows of that test have no padding.
            let bytes = unsafe { core::slice::from_raw_parts(page.as_ptr(), size) };
            (frame.get(), bytes.into())
        })
        .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.granule, self.frames)) };
    }
}

// SAFETY: 1 to 3: each frame has a page of its own within the allocation, for as long as the pool.
unsafe impl DirectMap for Pool {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let number = frame.get() as usize;
        assert_eq!(self.references.borrow()[number], 1, "{frame} is not in use");
        // SAFETY: there is a count for it, so it is one of the frames.
        unsafe { self.bytes.add(number * self.granule.bytes() as usize) }
    }
}

// SAFETY: 1 to 4: a frame leaves the list with one reference and comes back without. 5: as above.
unsafe impl FrameAllocator for Pool {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        assert_eq!((order, node), (Order::BASE, NODE));
        let none = OutOfFrames { order, node };
        self.left.set(self.left.get().checked_sub(1).ok_or(none)?);
        let frame = self.free.borrow_mut().pop().ok_or(none)?;
        self.references.borrow_mut()[frame.get() as usize] = 1;
        self.met.set(self.met.get() + 1);
        self.spoil(frame);
        Ok(Block::single(frame))
    }

    unsafe fn acquire(&self, frame: Pfn, _references: u64) -> Result<(), AcquireError> {
        panic!("{frame} belongs to one map");
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        self.spoil(block.first());
        let count = &mut self.references.borrow_mut()[block.first().get() as usize];
        assert_eq!((references, *count), (1, 1));
        *count = 0;
        // SAFETY: 1 and 2: the last reference has just gone.
        Released::Last(unsafe { OwnedBlock::new(block) })
    }

    unsafe fn free(&self, block: OwnedBlock) {
        self.free.borrow_mut().push(block.block().first());
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        block.block()
    }

    unsafe fn split(&self, block: Block) {
        panic!("{block:?} is one frame");
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NODE
    }
}
