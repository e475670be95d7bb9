//! The frame allocator of a kernel on the `x86_64` crate.

use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PhysAddr};
use mm_core::frame::PlainAllocator;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

/// What hands out frames of 4 KiB by the traits of the `x86_64` crate, and takes them back.
pub trait KernelFrames: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB> {}

impl<T: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB> + ?Sized> KernelFrames for T {}

/// Is called with what is to be done with the allocator.
pub type FrameWork<'w> = dyn FnMut(&mut dyn KernelFrames) + 'w;

/// A [`PlainAllocator`] over the allocator of a kernel on the `x86_64` crate, which takes `&mut self` and
/// so is behind a lock of the kernel's:
///
/// ```
/// # use std::sync::Mutex;
/// use arch_x86_64::Frames4K;
/// use x86_64::PhysAddr;
/// use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};
///
/// struct Free(Vec<PhysFrame>);
///
/// // SAFETY: a frame leaves the list when it is handed out.
/// unsafe impl FrameAllocator<Size4KiB> for Free {
///     fn allocate_frame(&mut self) -> Option<PhysFrame> {
///         self.0.pop()
///     }
/// }
///
/// impl FrameDeallocator<Size4KiB> for Free {
///     unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
///         self.0.push(frame);
///     }
/// }
///
/// static FREE: Mutex<Free> = Mutex::new(Free(Vec::new()));
///
/// // SAFETY: 1: the kernel's one allocator. 2: its direct map has all RAM.
/// let frames = unsafe { Frames4K::new(|work| work(&mut *FREE.lock().unwrap())) };
/// # let _ = frames;
/// ```
///
/// It hands out single frames, since the crate's allocators of larger frames give none back in parts.
/// So there are no huge leaves: base pages map the vmemmap of memory in base pages, and a
/// [`Note`](mm_core::vmemmap::Note) says so, unless the pagemap asks for none.
#[derive(Clone, Copy, Debug)]
pub struct Frames4K<W> {
    with_lock: W,
    node: NodeId,
}

impl<W: Fn(&mut FrameWork<'_>)> Frames4K<W> {
    /// The allocator that `with_lock` calls its argument with, once, under the kernel's lock. All frames
    /// are on node 0.
    ///
    /// # Safety
    ///
    /// 1. It is always the same allocator, which hands out a frame that it was given back as any other.
    /// 2. Every frame that it hands out is reachable through the kernel's
    ///    [`DirectMap`](mm_core::frame::DirectMap).
    pub const unsafe fn new(with_lock: W) -> Self {
        Self {
            with_lock,
            node: NodeId::new(0),
        }
    }

    /// The same allocator, all of whose frames are on `node`.
    #[must_use]
    pub fn on_node(self, node: NodeId) -> Self {
        Self { node, ..self }
    }
}

/// A frame of the `x86_64` crate's.
fn frame_of(block: Block) -> PhysFrame {
    let address = block.first().base(Granule::Size4K).get();
    PhysFrame::containing_address(x86_64::PhysAddr::new_truncate(address))
}

// SAFETY: 1: by the duty of `FrameAllocator`, nobody else has a frame that it hands out; one frame is
// aligned, and on one node. 2: blocks are single frames. 3: duty 2 of `new`.
unsafe impl<W: Fn(&mut FrameWork<'_>)> PlainAllocator for Frames4K<W> {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        if order != Order::BASE {
            return None;
        }
        let mut frame = None;
        (self.with_lock)(&mut |frames| frame = frames.allocate_frame());
        let address = PhysAddr::new(frame?.start_address().as_u64());
        address.frame(Granule::Size4K).map(Block::single)
    }

    unsafe fn free(&self, block: Block) {
        let frame = frame_of(block);
        (self.with_lock)(&mut |frames| {
            // SAFETY: the frame is not used any more: the caller's duty 2.
            unsafe { frames.deallocate_frame(frame) };
        });
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}
