//! Physical memory of the machine: chunks of frames, backed by host memory where they are touched.
//!
//! Chunks are anonymous mappings without reservation, so that terabytes cost address space only. A
//! frame that no chunk has is never touched: its contents are a scratch page, and the access is
//! written to the log.

mod mapping;

use crate::violations::{Violation, Violations};
use mapping::Mapping;
use mm_core::addr::{Granule, Pfn, PfnRange, PhysAddr};
use mm_core::frame::DirectMap;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Frames that follow each other, in this physical memory and in the host's virtual memory.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    frames: u64,
    base: NonNull<u8>,
    /// Whether each block of `1 << block_shift` bytes was touched.
    touched: NonNull<AtomicBool>,
    block_shift: u32,
}

// SAFETY: the pointers are only addresses; who accesses what they point at answers for it.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Where `frame` is, if it is in this chunk.
    #[inline]
    fn pointer(&self, frame: Pfn, shift: u32) -> Option<NonNull<u8>> {
        let index = frame.get().wrapping_sub(self.first);
        if index >= self.frames {
            return None;
        }
        let offset = (index << shift) as usize;
        // SAFETY: the mapping has a flag for each block, and stays as long as the memory that asks.
        let touched = unsafe { self.touched.add(offset >> self.block_shift).as_ref() };
        if !touched.load(Ordering::Relaxed) {
            touched.store(true, Ordering::Relaxed);
        }
        // SAFETY: the mapping has a page for each of `frames` frames, counted from `base`, and its
        // size in bytes fits an `isize`.
        Some(unsafe { self.base.add(offset) })
    }

    fn new(frames: PfnRange, mapping: &Mapping) -> Self {
        let (touched, block_shift) = mapping.touched();
        Self {
            first: frames.start().get(),
            frames: frames.frames(),
            base: mapping.base(),
            touched,
            block_shift,
        }
    }

    fn range(&self) -> Option<PfnRange> {
        PfnRange::new(Pfn::new(self.first)?, self.frames).ok()
    }
}

#[derive(Debug)]
struct Shared {
    granule: Granule,
    chunks: Vec<Chunk>,
    /// The same, by their first frames.
    in_order: Vec<Chunk>,
    /// What stands in for every frame that is not there.
    scratch: Chunk,
    /// Kept for the next memory when the last handle goes.
    mappings: Vec<Mapping>,
    violations: Violations,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for mapping in self.mappings.drain(..) {
            mapping::keep(mapping);
        }
    }
}

/// Hosted physical memory; clones are handles on the same memory.
///
/// Contents are zero at first. The chunk that is named first is found fastest.
#[derive(Clone, Debug)]
pub struct SimMemory {
    /// The first chunk, here to save the way to it.
    hot: Chunk,
    shift: u32,
    shared: Arc<Shared>,
}

impl SimMemory {
    /// Memory in pages of `granule`, with the frames of `chunks`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] where two chunks overlap or one is too large for the host,
    /// or what the host says when it has no room for them.
    pub fn new(granule: Granule, chunks: &[PfnRange]) -> io::Result<Self> {
        for (index, chunk) in chunks.iter().enumerate() {
            if let Some(other) = chunks.iter().skip(index + 1).find(|c| c.overlaps(*chunk)) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("chunks of memory overlap: {chunk} and {other}"),
                ));
            }
        }
        let scratch_page = Mapping::new(granule, 1)?;
        let scratch = Chunk::new(PfnRange::single(Pfn::ZERO), &scratch_page);
        let mut mappings = vec![scratch_page];
        let mut mapped = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mapping = Mapping::new(granule, chunk.frames())?;
            mapped.push(Chunk::new(*chunk, &mapping));
            mappings.push(mapping);
        }
        let mut in_order = mapped.clone();
        in_order.sort_unstable_by_key(|chunk| chunk.first);
        let nowhere = Chunk {
            frames: 0,
            ..scratch
        };
        Ok(Self {
            hot: mapped.first().copied().unwrap_or(nowhere),
            shift: granule.shift(),
            shared: Arc::new(Shared {
                granule,
                chunks: mapped,
                in_order,
                scratch,
                mappings,
                violations: Violations::new(),
            }),
        })
    }

    /// The page size.
    pub fn granule(&self) -> Granule {
        self.shared.granule
    }

    /// The log of the machine that this is the memory of.
    pub fn violations(&self) -> &Violations {
        &self.shared.violations
    }

    /// The chunks, in the order in which they were named.
    pub fn chunks(&self) -> impl Iterator<Item = PfnRange> + '_ {
        self.shared.chunks.iter().filter_map(Chunk::range)
    }

    /// Whether one chunk has all of `frames`.
    pub fn contains(&self, frames: PfnRange) -> bool {
        self.chunks().any(|chunk| chunk.contains_range(frames))
    }

    /// The little-endian word at `at`; `None` where there is no memory, or `at` is not a multiple
    /// of 8. Looking leaves no violation.
    ///
    /// A CPU cannot access what an entry leads to before it has read the entry. Here, what was stored
    /// before the word (by `Release`) is seen by whoever has read the word.
    #[inline]
    pub fn read_u64(&self, at: PhysAddr) -> Option<u64> {
        let word = self.word(at)?;
        Some(u64::from_le(word.load(Ordering::Acquire)))
    }

    /// Stores `value`, little endian, at `at`; `None`, and nothing is stored, as for
    /// [`read_u64`](Self::read_u64).
    #[must_use = "nothing is stored where there is no memory"]
    pub fn write_u64(&self, at: PhysAddr, value: u64) -> Option<()> {
        self.word(at)?.store(value.to_le(), Ordering::Release);
        Some(())
    }

    /// A copy of the bytes of `frame`; `None` where there is no memory.
    pub fn page_bytes(&self, frame: Pfn) -> Option<Vec<u8>> {
        let words = self.words(frame)?;
        let mut bytes = Vec::with_capacity(size_of_val(words));
        for word in words {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Some(bytes)
    }

    /// The words of `frame`, little endian; `None` where there is no memory.
    pub fn words(&self, frame: Pfn) -> Option<&[AtomicU64]> {
        let page = self.find(frame)?.cast();
        let words = self.granule().bytes() as usize / 8;
        // SAFETY: the page is valid as long as `self`, aligned to its size, and has that many
        // words; who else accesses it while it is shared does so by atomics.
        Some(unsafe { NonNull::slice_from_raw_parts(page, words).as_ref() })
    }

    #[inline]
    fn word(&self, at: PhysAddr) -> Option<&AtomicU64> {
        if !at.get().is_multiple_of(8) {
            return None;
        }
        let page = self.find(at.frame(self.granule())?)?;
        let offset = (at.get() & (self.granule().bytes() - 1)) as usize;
        // SAFETY: `offset` is within the page, which is valid as long as `self`, and aligned; who
        // else accesses it while it is shared does so by atomics.
        Some(unsafe { AtomicU64::from_ptr(page.add(offset).as_ptr().cast()) })
    }

    #[inline]
    fn find(&self, frame: Pfn) -> Option<NonNull<u8>> {
        match self.hot.pointer(frame, self.shift) {
            Some(pointer) => Some(pointer),
            None => self.find_elsewhere(frame),
        }
    }

    fn find_elsewhere(&self, frame: Pfn) -> Option<NonNull<u8>> {
        let chunks = &self.shared.in_order;
        if chunks.len() <= FEW_CHUNKS {
            return chunks.iter().find_map(|one| one.pointer(frame, self.shift));
        }
        let above = chunks.partition_point(|chunk| chunk.first <= frame.get());
        chunks
            .get(above.checked_sub(1)?)?
            .pointer(frame, self.shift)
    }

    #[cold]
    fn outside(&self, frame: Pfn) -> NonNull<u8> {
        self.violations().record(Violation::OutsideMemory { frame });
        let scratch = &self.shared.scratch;
        scratch
            .pointer(Pfn::ZERO, self.shift)
            .unwrap_or(scratch.base)
    }
}

/// Physical memory that [walkers](crate::walker::Walker) read tables in.
pub trait ReadMemory {
    /// The little-endian word at `at`; `None` where there is no memory, or `at` is not a multiple of 8.
    fn read_u64(&self, at: PhysAddr) -> Option<u64>;
}

impl ReadMemory for SimMemory {
    #[inline]
    fn read_u64(&self, at: PhysAddr) -> Option<u64> {
        Self::read_u64(self, at)
    }
}

// SAFETY: 1: a chunk's mapping has a page for each frame, aligned to the granule, and so has the
// scratch page. 2: the mappings stay until the last handle goes, and are not moved. 3: chunks do
// not overlap, and their mappings do not; `SimFrames` hands out frames of chunks only.
unsafe impl DirectMap for SimMemory {
    #[inline]
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        match self.find(frame) {
            Some(pointer) => pointer,
            None => self.outside(frame),
        }
    }
}

/// Up to how many chunks to look at each is quicker than to search among them.
const FEW_CHUNKS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    fn pfn(number: u64) -> Pfn {
        Pfn::new(number).unwrap()
    }

    #[test]
    fn a_tebibyte_needs_no_memory_until_it_is_touched() {
        let chunks = [range(0x10_0000, 1 << 28), range(1 << 40, 1 << 30)];
        let memory = SimMemory::new(Granule::Size4K, &chunks).unwrap();
        for chunk in chunks {
            for frame in [chunk.start(), chunk.last()] {
                let at = frame.base(Granule::Size4K);
                assert_eq!(memory.read_u64(at), Some(0));
                assert_eq!(memory.write_u64(at, 0x1122_3344_5566_7788), Some(()));
                assert_eq!(memory.read_u64(at), Some(0x1122_3344_5566_7788));
            }
        }
        assert!(memory.violations().is_empty());
    }

    #[test]
    fn chunks_in_any_order_have_pages_of_their_own() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            let memory = SimMemory::new(granule, &[range(100, 2), range(0, 2), range(50, 1)]);
            let memory = memory.unwrap();
            let frames = [100, 101, 0, 1, 50].map(pfn);
            for frame in frames {
                let pointer = memory.frame_pointer(frame);
                assert!((pointer.as_ptr() as usize).is_multiple_of(granule.bytes() as usize));
                // SAFETY: the frame is this test's, a whole page of the granule.
                unsafe { pointer.write_bytes(frame.get() as u8 + 1, granule.bytes() as usize) };
            }
            for frame in frames {
                let page = memory.page_bytes(frame).unwrap();
                assert_eq!(page, vec![frame.get() as u8 + 1; granule.bytes() as usize]);
            }
            assert!(memory.violations().is_empty());
        }
    }

    #[test]
    fn memory_is_zero_at_first_whoever_had_it_before() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            // Sizes that no other test has.
            let chunks = [range(1000, 91), range(0, 93)];
            for _ in 0..3 {
                let memory = SimMemory::new(granule, &chunks).unwrap();
                for frame in [1000, 1001, 1090, 0, 47, 92].map(pfn) {
                    let page = memory.page_bytes(frame).unwrap();
                    assert!(page.iter().all(|byte| *byte == 0), "{granule:?} {frame}");
                    let at = frame.base(granule).get();
                    memory.write_u64(PhysAddr::new(at), u64::MAX).unwrap();
                    let page = memory.frame_pointer(frame);
                    let last = granule.bytes() as usize - 1;
                    // SAFETY: the last byte of the frame, which is this test's.
                    unsafe { page.add(last).write(0xa5) };
                }
            }
        }
    }

    #[test]
    fn chunks_that_overlap_are_refused() {
        let refused = SimMemory::new(Granule::Size4K, &[range(8, 8), range(0, 4), range(15, 2)]);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(SimMemory::new(Granule::Size4K, &[range(8, 8), range(16, 2), range(7, 1)]).is_ok());
    }

    #[test]
    fn a_chunk_that_the_host_cannot_map_is_an_error() {
        assert!(SimMemory::new(Granule::Size64K, &[range(0, 1 << 48)]).is_err());
    }

    #[test]
    fn a_frame_outside_every_chunk_is_reported_and_harmless() {
        let memory = SimMemory::new(Granule::Size4K, &[range(8, 8)]).unwrap();
        for frame in [7, 16, Pfn::MAX.get()].map(pfn) {
            let page = memory.frame_pointer(frame);
            // SAFETY: a scratch page is a page.
            unsafe { page.write_bytes(0xff, 4096) };
            let reported = memory.violations().take();
            assert_eq!(reported, [Violation::OutsideMemory { frame }]);
        }
        assert_eq!(memory.page_bytes(pfn(8)).unwrap(), vec![0; 4096]);
    }

    #[test]
    fn reading_where_there_is_no_memory_is_no_violation() {
        let memory = SimMemory::new(Granule::Size4K, &[range(8, 8)]).unwrap();
        assert_eq!(memory.read_u64(PhysAddr::new(0x7ff8)), None);
        assert_eq!(memory.read_u64(PhysAddr::new(0x8004)), None);
        assert_eq!(memory.read_u64(PhysAddr::new(0x8008)), Some(0));
        assert_eq!(memory.write_u64(PhysAddr::new(0x10000), 1), None);
        assert_eq!(memory.page_bytes(pfn(16)), None);
        assert!(memory.violations().is_empty());
    }

    #[test]
    fn words_are_little_endian_in_memory() {
        let memory = SimMemory::new(Granule::Size4K, &[range(0, 1)]).unwrap();
        memory.write_u64(PhysAddr::new(8), 0x0102).unwrap();
        assert_eq!(memory.page_bytes(Pfn::ZERO).unwrap()[8..10], [0x02, 0x01]);
    }
}
