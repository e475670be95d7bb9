//! Physical memory at a constant distance.

use super::DirectMap;
use crate::addr::{Granule, Pfn, VirtAddr};
use core::ptr::NonNull;

/// A [`DirectMap`] that adds a constant to the physical address, as that of most kernels does.
///
/// It has no state, so it is `Copy`, and fits into a `static`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearMap {
    base: VirtAddr,
    granule: Granule,
}

impl LinearMap {
    /// Physical address 0 is at `base`; frames are of `granule`. With a `base` of 0 memory is mapped
    /// at its own addresses.
    ///
    /// # Safety
    ///
    /// 1. At the constant distance the kernel has mapped every frame that a [`DirectMap`] has to
    ///    reach, writable, as long as it has to be reached: see the duties of that trait.
    /// 2. None of them is at address 0, which no pointer may have.
    pub const unsafe fn new(base: VirtAddr, granule: Granule) -> Self {
        Self { base, granule }
    }
}

// SAFETY: 1: duties 1 and 2 of `new`. 2 and 3: a constant is added.
unsafe impl DirectMap for LinearMap {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let address = self.base.get().wrapping_add(frame.base(self.granule).get());
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        // Not null, by duty 2 of `new`.
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(base: u64, granule: Granule, frame: u64) -> usize {
        // SAFETY: 1 and 2: nothing is accessed.
        let map = unsafe { LinearMap::new(VirtAddr::new(base), granule) };
        map.frame_pointer(Pfn::new(frame).unwrap()).addr().get()
    }

    #[test]
    fn a_frame_is_at_its_address_and_a_constant() {
        let high = 0xffff_8000_0000_0000;
        assert_eq!(pointer(high, Granule::Size4K, 0), high as usize);
        assert_eq!(pointer(high, Granule::Size4K, 3), high as usize + 0x3000);
        assert_eq!(pointer(high, Granule::Size64K, 3), high as usize + 0x3_0000);
        assert_eq!(pointer(0, Granule::Size16K, 5), 0x1_4000);
    }

    #[test]
    fn a_frame_that_nobody_has_mapped_does_no_harm_until_it_is_accessed() {
        for frame in [0, 1, Pfn::MAX.get()] {
            for base in [0, u64::MAX - 0xfff] {
                assert_ne!(pointer(base, Granule::Size4K, frame), 0);
            }
        }
    }
}
