//! Where the contents of a frame can be reached.

use crate::addr::Pfn;
use core::ptr::NonNull;

/// The kernel's linear mapping of physical memory.
///
/// # For callers
///
/// A pointer reaches the bytes of one frame and no further: the next frame's pointer has to be
/// asked for. The same bytes may be mapped elsewhere too (a vmemmap page is), so contents that are
/// shared are read and written through atomics.
///
/// # For implementers
///
/// Most kernels add a constant to the physical address: [`LinearMap`](super::LinearMap) does.
///
/// # Safety
///
/// For every frame that the kernel's [`FrameAllocator`](crate::frame::FrameAllocator) or an
/// [`Altmap`](crate::frame::Altmap) has handed out, for those in which an altmap counts, and for
/// every page table that is linked below the root:
///
/// 1. the pointer is valid for reads and writes of one whole page, and aligned to it;
/// 2. it stays so until the frame is freed, and it is the same pointer at each call;
/// 3. pages of frames that follow each other in one allocated block need not follow each other
///    here, but no two frames share a byte.
pub unsafe trait DirectMap {
    /// The first byte of `frame`'s page.
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8>;
}

// SAFETY: 1, 2 and 3 hold because they hold for the map behind the reference.
unsafe impl<T: DirectMap + ?Sized> DirectMap for &T {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        (**self).frame_pointer(frame)
    }
}
