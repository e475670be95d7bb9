//! Memory for page tables: frames that are numbered from 0, and a stack of those that are free.
//!
//! Frame 0 is never handed out: some take its address for "no table".

use crate::LEAF_TABLES;
use core::cell::{RefCell, UnsafeCell};
use core::ptr::NonNull;
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::frame::{AcquireError, DirectMap, FrameAllocator, OutOfFrames, OwnedBlock, Released};

/// Leaf tables, and some for the levels above.
const FRAMES: usize = LEAF_TABLES + 9;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; 512]>);

/// As many frames as the tables of one benchmark need. Every frame has at most one owner, so the
/// allocator does not count.
pub struct Arena {
    pages: Box<[Page]>,
    free: RefCell<Vec<Pfn>>,
}

impl Arena {
    /// Memory that has been touched.
    pub fn new() -> Self {
        let pages = (0..FRAMES).map(|_| Page(UnsafeCell::new([!0; 512])));
        let free = (1..FRAMES as u64)
            .rev()
            .map(|frame| Pfn::new(frame).unwrap());
        Self {
            pages: pages.collect(),
            free: RefCell::new(free.collect()),
        }
    }

    /// A frame for a table.
    pub fn take(&self) -> Option<Pfn> {
        self.free.borrow_mut().pop()
    }

    /// Takes a frame back.
    pub fn give(&self, frame: Pfn) {
        self.free.borrow_mut().push(frame);
    }

    /// How many frames are free.
    pub fn free_frames(&self) -> usize {
        self.free.borrow().len()
    }

    /// The first byte of frame 0.
    pub fn base(&self) -> *mut u8 {
        self.pages.as_ptr().cast_mut().cast()
    }

    /// Zeroes as many bytes as the leaf tables have, as one slice: the measure of the rest.
    pub fn memset(&mut self) {
        let bytes = LEAF_TABLES * 4096;
        // SAFETY: the pages lie in one allocation of more than that many bytes, and are borrowed
        // mutably.
        let tables = unsafe { core::slice::from_raw_parts_mut(self.base(), bytes) };
        core::hint::black_box(tables).fill(core::hint::black_box(0));
    }

    /// Zeroes the leaf tables one by one, as a kernel that clears each table when it takes it.
    pub fn memset_tables(&mut self) {
        for page in &mut self.pages[..LEAF_TABLES] {
            core::hint::black_box(page.0.get_mut()).fill(core::hint::black_box(0));
        }
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: 1 and 2: each frame is a page of the boxed slice. 3: another page each.
unsafe impl DirectMap for Arena {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let page = &self.pages[frame.get() as usize];
        NonNull::from(page).cast()
    }
}

// SAFETY: 1: a frame is on the stack or out. 2 to 4: the count is 1 while it is out, since nothing
// is acquired. 5: all frames are pages of the arena.
unsafe impl FrameAllocator for Arena {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        assert_eq!(order, Order::BASE, "tables are single frames");
        let frame = self.take().ok_or(OutOfFrames { order, node })?;
        Ok(Block::single(frame))
    }

    unsafe fn acquire(&self, first: Pfn, _references: u64) -> Result<(), AcquireError> {
        Err(AcquireError { frame: first })
    }

    unsafe fn release(&self, block: Block, _references: u64) -> Released {
        // SAFETY: 1 and 2: the one reference is the caller's.
        Released::Last(unsafe { OwnedBlock::new(block) })
    }

    unsafe fn free(&self, block: OwnedBlock) {
        self.give(block.block().first());
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        block.block()
    }

    unsafe fn split(&self, _block: Block) {}

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}
