//! Stores past the caches.
//!
//! A store to memory that no cache has reads the line first, and evicts another one. MOVNTI does neither: eight
//! of them fill a line, which goes to memory as a whole (SDM, volume 1, "Programming with Intel SSE",
//! "Cacheability Control Instructions"). It stores a general register, so no kernel has to save the state of a
//! floating-point unit for it, and every processor with long mode has it.
//!
//! Such stores are weakly ordered: another CPU may see a later store before them, also one with release
//! semantics. SFENCE orders them (SDM, "Memory Ordering"). A thread that goes on on another CPU meanwhile has
//! them ordered by the interrupt, or the locked instruction, that it takes (SDM, "Buffering of Write Combining
//! Memory Locations").
//!
//! The caches do not have what was streamed. So it pays for more memory than they hold, where the first look at
//! a head is a miss in any case.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use mm_core::addr::Pfn;
use mm_core::frame::{DirectMap, Pattern};

/// From how many bytes in one call on streaming pays, the first look at each head included: half of a last
/// cache of 32 MiB.
// As measured: `docs/performance.md`, "Describing memory".
pub const STREAM_FROM: u64 = 16 << 20;

/// A direct map that stores descriptors of much memory past the caches; otherwise it is `M`.
///
/// ```
/// use arch_x86_64::Streaming;
/// use mm_core::addr::{Granule, VirtAddr};
/// use mm_core::frame::LinearMap;
///
/// /// Where the kernel has mapped all physical memory.
/// const PHYSICAL: VirtAddr = VirtAddr::new(0xffff_8800_0000_0000);
///
/// // SAFETY: 1 and 2: the boot code has mapped all of it there.
/// let linear = unsafe { LinearMap::new(PHYSICAL, Granule::Size4K) };
/// let direct_map = Streaming::new(linear); // for `Vmemmap::new`
/// # let _ = direct_map;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Streaming<M> {
    map: M,
    from: u64,
}

impl<M> Streaming<M> {
    /// Streams from [`STREAM_FROM`] bytes on.
    pub const fn new(map: M) -> Self {
        Self::from_bytes(map, STREAM_FROM)
    }

    /// Streams what a call writes where that is `bytes` at least. Half of what the last cache holds is a good
    /// start; with 0 it always streams.
    pub const fn from_bytes(map: M, bytes: u64) -> Self {
        Self { map, from: bytes }
    }
}

// SAFETY: 1 to 3: those of the map. 4: `stream` says so. 5: SFENCE orders all stores before it, of whatever
// kind, before all behind it, as the SDM says.
unsafe impl<M: DirectMap> DirectMap for Streaming<M> {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.map.frame_pointer(frame)
    }

    fn streams_from(&self) -> u64 {
        self.from
    }

    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        let page = self.map.frame_pointer(frame).cast::<u64>();
        let first = places.start * pattern.words().len();
        // SAFETY: 1: by 1 the places are within the page, and nobody else's. 2: the caller's.
        unsafe { stream(page.add(first), places.len(), pattern) };
    }

    fn end_stream(&self) {
        end_stream();
    }
}

/// Stores `pattern` `times` times from `to` on, past the caches: for a kernel that has a [`DirectMap`] of its
/// own.
///
/// # Safety
///
/// 1. `to` is aligned for words and valid for writes of so many patterns, and nobody else uses that memory.
/// 2. Nobody looks at it, or stores to it, before this CPU has called [`end_stream`].
pub unsafe fn stream(to: NonNull<u64>, times: usize, pattern: Pattern<'_>) {
    let to = to.cast::<MaybeUninit<u64>>();
    // SAFETY: 1 and 2: the caller's.
    unsafe {
        match *pattern.words() {
            // One line, which stays in registers.
            [a, b, c, d, e, f, g, h] => stream_lines(to, times, [a, b, c, d, e, f, g, h]),
            ref words => stream_words(to, times, words),
        }
    }
}

/// Has all that this CPU has streamed visible to others before what it stores from now on.
#[inline]
pub fn end_stream() {
    // SAFETY: a fence has no effect but order. The compiler keeps accesses on their sides, since the block
    // does not say `nomem`.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) };
}

/// # Safety
///
/// 1 and 2. As for [`stream`].
unsafe fn stream_lines(to: NonNull<MaybeUninit<u64>>, times: usize, line: [MaybeUninit<u64>; 8]) {
    let [a, b, c, d, e, f, g, h] = line;
    for index in 0..times {
        // SAFETY: 1: `index` is less than `times`, so the line is within what `to` is valid for. 2: the
        // caller's.
        unsafe {
            asm!(
                "movnti [{to}], {a}",
                "movnti [{to} + 8], {b}",
                "movnti [{to} + 16], {c}",
                "movnti [{to} + 24], {d}",
                "movnti [{to} + 32], {e}",
                "movnti [{to} + 40], {f}",
                "movnti [{to} + 48], {g}",
                "movnti [{to} + 56], {h}",
                to = in(reg) to.add(index * 8).as_ptr(),
                a = in(reg) a,
                b = in(reg) b,
                c = in(reg) c,
                d = in(reg) d,
                e = in(reg) e,
                f = in(reg) f,
                g = in(reg) g,
                h = in(reg) h,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// # Safety
///
/// 1 and 2. As for [`stream`].
unsafe fn stream_words(to: NonNull<MaybeUninit<u64>>, times: usize, words: &[MaybeUninit<u64>]) {
    for index in 0..times {
        for (word, value) in words.iter().enumerate() {
            // SAFETY: 1: it is the place of this word in one of `times` patterns. 2: the caller's.
            unsafe {
                asm!(
                    "movnti [{to}], {value}",
                    to = in(reg) to.add(index * words.len() + word).as_ptr(),
                    value = in(reg) *value,
                    options(nostack, preserves_flags)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn a_pattern_of_any_length_is_repeated_and_nothing_else_is_stored() {
        for length in [1, 2, 3, 4, 8, 16, 64] {
            let pattern: Vec<_> = (1..=length as u64).map(MaybeUninit::new).collect();
            for (from, times) in [(0, 0), (0, 1), (3, 1), (1, 7), (0, 8)] {
                let mut memory = vec![0_u64; 8 * length + 4];
                let to = NonNull::from(&mut memory[from]);
                // SAFETY: 1: there is room for that many behind `from`. 2: ended before it is looked at.
                unsafe { stream(to, times, Pattern::new(&pattern).unwrap()) };
                end_stream();
                let repeated = (1..=length as u64).cycle().take(times * length);
                let mut expected = vec![0; from];
                expected.extend(repeated);
                expected.resize(memory.len(), 0);
                assert_eq!(memory, expected, "{times} of {length} words from {from}");
            }
        }
    }
}
