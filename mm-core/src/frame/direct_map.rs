//! Where the contents of a frame can be reached.

use super::Pattern;
use crate::addr::Pfn;
use core::ops::Range;
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
/// *Much memory at once.* Descriptors of much memory do not stay in a cache, and a store reads the line that
/// it changes first, unless it goes past the caches. Where the architecture has such stores,
/// [`stream`](Self::stream) uses them, from [as many bytes](Self::streams_from) on as pays. They may
/// become visible later than what is stored after them, hence [`end_stream`](Self::end_stream).
/// `arch_x86_64::Streaming` does all of that around any direct map. The default never streams: what it
/// stores, model checkers and sanitizers see, and it is right everywhere.
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
///    here, but no two frames share a byte;
/// 4. `stream` stores the pattern to all of the places, and nothing else;
/// 5. what a CPU has streamed is visible to all CPUs, and to their table walks, before anything that it
///    stores after `end_stream`, and to that CPU itself when `end_stream` returns.
pub unsafe trait DirectMap {
    /// The first byte of `frame`'s page.
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8>;

    /// From how many bytes of descriptors in one call on they are [streamed](Self::stream). By
    /// default they never are.
    fn streams_from(&self) -> u64 {
        u64::MAX
    }

    /// Stores `pattern` to `places` of `frame`'s page: a place has the size of the pattern, and they are
    /// counted from the start of the page. Past the caches, where that can be.
    ///
    /// # Safety
    ///
    /// 1. The direct map reaches the frame, nobody else uses it, and the places are within its page.
    /// 2. Nobody looks at them, nor stores to them, before this CPU has called
    ///    [`end_stream`](Self::end_stream).
    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        let page = self.frame_pointer(frame).cast::<u64>();
        let first = places.start * pattern.words().len();
        // SAFETY: by 1 they are in the page, which is aligned to more than words. 1: nobody else's, by 1.
        unsafe { pattern.store(page.add(first), places.len()) };
    }

    /// Orders what this CPU has [streamed](Self::stream) before what it stores from now on.
    fn end_stream(&self) {}
}

// SAFETY: 1 to 5 hold because they hold for the map behind the reference.
unsafe impl<T: DirectMap + ?Sized> DirectMap for &T {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        (**self).frame_pointer(frame)
    }

    fn streams_from(&self) -> u64 {
        (**self).streams_from()
    }

    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        // SAFETY: 1 and 2: the caller's.
        unsafe { (**self).stream(frame, places, pattern) }
    }

    fn end_stream(&self) {
        (**self).end_stream()
    }
}
