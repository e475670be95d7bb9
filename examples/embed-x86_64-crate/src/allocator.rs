//! The kernel's own allocators: frames by the traits of the `x86_64` crate, behind a lock, and a heap.
//! Nothing here is about the library.

use buddy_system_allocator::{FrameAllocator as Buddy, LockedHeap};
use core::ops::Range;
use spin::Mutex;
use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

/// The kernel's heap, in which the buddy allocator keeps its lists.
#[global_allocator]
pub static HEAP: LockedHeap<32> = LockedHeap::empty();

/// The kernel's frames; none until the heap is there.
pub static FRAMES: Mutex<Frames> = Mutex::new(Frames {
    buddy: Buddy::new(),
    free: 0,
});

/// Free frames, by their numbers.
pub struct Frames {
    buddy: Buddy<32>,
    free: u64,
}

impl Frames {
    /// Takes over free frames.
    pub fn add(&mut self, frames: Range<u64>) {
        self.free += frames.end - frames.start;
        self.buddy.insert(indices(frames));
    }

    /// Takes over frames that are in use, and will be given back one by one.
    pub fn add_in_use(&mut self, frames: Range<u64>) {
        let frames = indices(frames);
        self.buddy.insert(frames.clone());
        for frame in frames {
            // It takes back only what it has handed out.
            assert_eq!(self.buddy.alloc_at(frame, 1), Some(frame));
        }
    }

    /// How many are free.
    pub const fn free(&self) -> u64 {
        self.free
    }
}

const fn indices(frames: Range<u64>) -> Range<usize> {
    frames.start as usize..frames.end as usize
}

// SAFETY: the buddy allocator has a frame in its lists or has handed it out, never both.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = self.buddy.alloc(1)? as u64;
        self.free -= 1;
        Some(PhysFrame::containing_address(PhysAddr::new(frame << 12)))
    }
}

impl FrameDeallocator<Size4KiB> for Frames {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        let frame = frame.start_address().as_u64() >> 12;
        self.buddy.dealloc(frame as usize, 1);
        self.free += 1;
    }
}
