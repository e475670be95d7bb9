//! Has AddressSanitizer report accesses to frames that were freed, as it does with memory of the
//! host's heap.
//!
//! Elsewhere than under it (`cfg(address_sanitizer)`, which `cargo xtask sanitize` sets) nothing
//! happens here. Frames that were never out are left alone, since there are very many.

use crate::memory::SimMemory;
use mm_core::addr::PfnRange;

/// The memory of an allocator's frames.
pub(super) struct Poison {
    #[cfg(address_sanitizer)]
    memory: SimMemory,
}

#[cfg(not(address_sanitizer))]
impl Poison {
    pub(super) fn new(_memory: &SimMemory) -> Self {
        Self {}
    }

    pub(super) fn handed_out(&self, _frames: PfnRange) {}

    pub(super) fn freed(&self, _frames: PfnRange) {}
}

#[cfg(address_sanitizer)]
impl Poison {
    pub(super) fn new(memory: &SimMemory) -> Self {
        Self {
            memory: memory.clone(),
        }
    }

    /// Accesses to `frames`, which lie in one chunk of the memory, are right again.
    pub(super) fn handed_out(&self, frames: PfnRange) {
        let (start, bytes) = self.bytes_of(frames);
        sanitizer::__asan_unpoison_memory_region(start, bytes);
    }

    /// Accesses to `frames`, which lie in one chunk of the memory, are wrong from now on. This ends
    /// when the memory is unmapped.
    pub(super) fn freed(&self, frames: PfnRange) {
        let (start, bytes) = self.bytes_of(frames);
        sanitizer::__asan_poison_memory_region(start, bytes);
    }

    fn bytes_of(&self, frames: PfnRange) -> (*const u8, usize) {
        use mm_core::frame::DirectMap;
        let start = self.memory.frame_pointer(frames.start());
        let bytes = frames.frames() * self.memory.granule().bytes();
        (start.as_ptr(), bytes as usize)
    }
}

#[cfg(address_sanitizer)]
mod sanitizer {
    // SAFETY: these are declared as in the sanitizer's `asan_interface.h`. They take any addresses,
    // and change or read only what the sanitizer itself keeps about them.
    unsafe extern "C" {
        pub(super) safe fn __asan_poison_memory_region(start: *const u8, bytes: usize);
        pub(super) safe fn __asan_unpoison_memory_region(start: *const u8, bytes: usize);
        #[cfg(test)]
        pub(super) safe fn __asan_address_is_poisoned(at: *const u8) -> core::ffi::c_int;
    }
}

#[cfg(all(test, address_sanitizer))]
mod tests {
    use super::sanitizer::__asan_address_is_poisoned;
    use crate::{SimFrames, SimMemory};
    use mm_core::addr::{Granule, NodeId, Pfn, PfnRange};
    use mm_core::frame::{DirectMap, FrameAllocator};

    #[test]
    fn an_access_to_a_freed_frame_would_be_reported_until_it_is_handed_out_again() {
        let node = NodeId::new(0);
        let ram = PfnRange::new(Pfn::new(8).unwrap(), 8).unwrap();
        let memory = SimMemory::new(Granule::Size16K, &[ram]).unwrap();
        let frames = SimFrames::new(&memory, &[(node, &[ram])]).unwrap();
        let poisoned = |frame| {
            let page = memory.frame_pointer(frame).as_ptr();
            let last = page.wrapping_add(Granule::Size16K.bytes() as usize - 1);
            [page, last].map(|at| __asan_address_is_poisoned(at) != 0)
        };
        let run = frames.allocate_run(2, node).unwrap();
        assert_eq!(poisoned(run.start()), [false; 2]);
        let (first, second) = run.split_at(1);
        // SAFETY: the frame's one reference is this test's.
        unsafe { frames.release_run(first.unwrap()) };
        assert_eq!(poisoned(run.start()), [true; 2]);
        assert_eq!(poisoned(second.unwrap().start()), [false; 2]);
        assert_eq!(frames.allocate_run(1, node), Ok(first.unwrap()));
        assert_eq!(poisoned(run.start()), [false; 2]);
    }
}
