//! Physical memory at a constant distance.

use core::ptr::NonNull;
use mm_core::addr::{Granule, Pfn};
use mm_core::frame::DirectMap;

/// Where physical memory is mapped as a whole, or as much of it as is asked for.
#[derive(Clone, Copy, Debug)]
pub struct LinearMap {
    base: u64,
    granule: Granule,
}

impl LinearMap {
    /// Physical address 0 is at `base`; frames are of `granule`.
    ///
    /// # Safety
    ///
    /// 1. Every frame that is asked for is mapped there, writable, for as long as the value or a
    ///    pointer from it is used, and none of them at address 0.
    pub const unsafe fn new(base: u64, granule: Granule) -> Self {
        Self { base, granule }
    }
}

// SAFETY: 1: duty 1 of `new`. 2 and 3: a constant is added.
unsafe impl DirectMap for LinearMap {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let address = self.base.wrapping_add(frame.base(self.granule).get());
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        // Not null, by duty 1 of `new`.
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }
}
