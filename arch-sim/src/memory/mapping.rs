//! Host memory behind a chunk of frames. It serves one machine after the other.
//!
//! Tests and fuzzers make thousands of machines. The host's work at the first access to each page costs
//! about ten times what it costs to zero the page. So a mapping that no machine uses any more is kept for
//! the next machine, and zeroed where it was touched.

use memmap2::{MmapOptions, MmapRaw};
use mm_core::addr::Granule;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Into how many blocks a mapping is divided at most, to know which were touched.
const MOST_BLOCKS: usize = 1 << 16;

/// How large a block may be, so that zeroing it costs less than a new mapping. A mapping with larger ones
/// is not kept.
const LARGEST_BLOCK: usize = 2 << 20;

/// How many bytes of the host's memory are kept at most.
const MOST_KEPT: usize = 2 << 30;

/// How many mappings are kept at most.
const MOST_MAPPINGS: usize = 256;

/// Pages of zeros. They cost nothing until they are touched.
#[derive(Debug)]
pub(super) struct Mapping {
    granule: Granule,
    frames: u64,
    /// Unmapped when this is dropped.
    _bytes: MmapRaw,
    base: NonNull<u8>,
    block_shift: u32,
    /// Whether each block was touched, counted from `base`, since it was zero last.
    touched: Vec<AtomicBool>,
    /// Whether the host has memory for each block: those that were ever touched.
    resident: Vec<bool>,
}

// SAFETY: `base` is only an address in `bytes`; who accesses what it points at answers for it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `frames` pages of zeros, aligned to their size.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for more than the host can have, or what the host says.
    pub(super) fn new(granule: Granule, frames: u64) -> io::Result<Self> {
        let kept = kept().take(granule, frames);
        match kept {
            Some(mapping) => {
                mapping.zero();
                Ok(mapping)
            }
            None => Self::map(granule, frames),
        }
    }

    fn map(granule: Granule, frames: u64) -> io::Result<Self> {
        let page = granule.bytes() as usize;
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the chunk is too large");
        let size = mapped_bytes(granule, frames).ok_or_else(too_large)?;
        let bytes = MmapOptions::new().len(size).no_reserve_swap().map_anon()?;
        let bytes = MmapRaw::from(bytes);
        let start = bytes.as_mut_ptr();
        // SAFETY: the offset is below a page, and the mapping has a page more than `frames`.
        let base = unsafe { start.add(start.align_offset(page)) };
        let base = NonNull::new(base).ok_or_else(too_large)?;
        prefer_large_pages(&bytes);
        let block = block_bytes(granule, size);
        let blocks = size.div_ceil(block);
        Ok(Self {
            granule,
            frames,
            _bytes: bytes,
            base,
            block_shift: block.trailing_zeros(),
            touched: (0..blocks).map(|_| AtomicBool::new(false)).collect(),
            resident: vec![false; blocks],
        })
    }

    /// The first page.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The flags that say which blocks were touched, and the binary logarithm of a block's size. Who
    /// accesses the byte at an offset from [`base`](Self::base) has to set the flag of its block before.
    pub(super) fn touched(&self) -> (NonNull<AtomicBool>, u32) {
        (
            NonNull::from(self.touched.as_slice()).cast(),
            self.block_shift,
        )
    }

    fn block_bytes(&self) -> usize {
        1 << self.block_shift
    }

    /// How much of the host's memory it has.
    fn resident_bytes(&mut self) -> usize {
        for (resident, touched) in self.resident.iter_mut().zip(&self.touched) {
            *resident |= touched.load(Ordering::Relaxed);
        }
        let resident = self.resident.iter().filter(|resident| **resident);
        resident.count() * self.block_bytes()
    }

    /// Whether it serves for `frames` pages of `granule` as well as one that is made for them.
    fn serves(&self, granule: Granule, frames: u64) -> bool {
        let blocks = mapped_bytes(granule, frames).map(|size| block_bytes(granule, size));
        self.granule == granule && self.frames >= frames && blocks == Some(self.block_bytes())
    }

    /// Zeroes what was touched.
    fn zero(&self) {
        let size = self.frames as usize * self.granule.bytes() as usize;
        for (index, touched) in self.touched.iter().enumerate() {
            if touched.load(Ordering::Relaxed) {
                let start = index << self.block_shift;
                let bytes = self.block_bytes().min(size.saturating_sub(start));
                // SAFETY: the bytes are in the mapping, which has `size` bytes from `base` on. Nobody else
                // has the mapping.
                unsafe { self.base.add(start).write_bytes(0, bytes) };
                touched.store(false, Ordering::Relaxed);
            }
        }
    }
}

/// How many bytes are mapped for `frames` pages: one page more, since the host aligns to its own pages only.
fn mapped_bytes(granule: Granule, frames: u64) -> Option<usize> {
    let pages = usize::try_from(frames).ok()?.checked_add(1)?;
    let size = pages.checked_mul(granule.bytes() as usize)?;
    isize::try_from(size).is_ok().then_some(size)
}

/// How large the blocks of a mapping of `size` bytes are.
fn block_bytes(granule: Granule, size: usize) -> usize {
    let page = granule.bytes() as usize;
    size.div_ceil(MOST_BLOCKS).next_power_of_two().max(page)
}

/// Mappings that no machine uses.
#[derive(Debug)]
struct Kept {
    /// With how many bytes of the host's memory each has.
    mappings: Vec<(Mapping, usize)>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

impl Kept {
    const fn new() -> Self {
        Self {
            mappings: Vec::new(),
        }
    }

    /// Adds a mapping, and returns what is too much then: the largest ones, since small ones are asked for more
    /// often.
    fn add(&mut self, mut mapping: Mapping) -> Vec<Mapping> {
        // What is freed is poisoned until it is unmapped. And a lock that is waited for is taken in the compiled
        // standard library, which the other sanitizer does not see.
        let is_sanitized = cfg!(any(address_sanitizer, thread_sanitizer));
        if is_sanitized || mapping.block_bytes() > LARGEST_BLOCK {
            return vec![mapping];
        }
        let bytes = mapping.resident_bytes();
        self.mappings.push((mapping, bytes));
        let mut sum: usize = self.mappings.iter().map(|(_, bytes)| bytes).sum();
        let mut too_many = Vec::new();
        while sum > MOST_KEPT || self.mappings.len() > MOST_MAPPINGS {
            let sizes = self.mappings.iter().enumerate();
            let Some((largest, _)) = sizes.rev().max_by_key(|(_, (_, bytes))| *bytes) else {
                break;
            };
            let (mapping, bytes) = self.mappings.swap_remove(largest);
            sum -= bytes;
            too_many.push(mapping);
        }
        too_many
    }

    /// The smallest mapping that serves.
    fn take(&mut self, granule: Granule, frames: u64) -> Option<Mapping> {
        let sizes = self.mappings.iter().enumerate();
        let serving = sizes.filter(|(_, (mapping, _))| mapping.serves(granule, frames));
        let (smallest, _) = serving.min_by_key(|(_, (mapping, _))| mapping.frames)?;
        Some(self.mappings.swap_remove(smallest).0)
    }
}

/// Keeps a mapping for the next machine that asks for the same, unless it is too much.
pub(super) fn keep(mapping: Mapping) {
    let too_many = kept().add(mapping);
    // Unmapped without the lock.
    drop(too_many);
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of a mapping is left to the host's base pages. Most machines touch no more than that.
const IN_BASE_PAGES: usize = 2 << 20;

/// Asks the host to map what is touched behind [`IN_BASE_PAGES`] by large pages: a fault for each base
/// page is what much memory costs most. Whether it does so makes no other difference.
fn prefer_large_pages(mapping: &MmapRaw) {
    #[cfg(target_os = "linux")]
    if let Some(rest) = mapping.len().checked_sub(IN_BASE_PAGES) {
        let _ = mapping.advise_range(memmap2::Advice::HugePage, IN_BASE_PAGES, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(mapping: &Mapping, at: usize) -> *mut u8 {
        let (touched, shift) = mapping.touched();
        // SAFETY: the tests stay within the mapping.
        unsafe {
            let touched = touched.add(at >> shift).as_ref();
            touched.store(true, Ordering::Relaxed);
            mapping.base().add(at).as_ptr()
        }
    }

    #[test]
    fn a_mapping_that_is_used_again_is_zero_everywhere() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            let frames = 70_003;
            let page = granule.bytes() as usize;
            let last = frames as usize * page - 1;
            let written = [0, page - 1, page, 5 * page + 17, last - page, last];
            let mapping = Mapping::map(granule, frames).unwrap();
            for at in written {
                // SAFETY: the byte is in the mapping, which is this test's.
                unsafe { byte(&mapping, at).write(0xa5) };
            }
            mapping.zero();
            assert!(
                !mapping
                    .touched
                    .iter()
                    .any(|block| block.load(Ordering::Relaxed))
            );
            for at in written {
                // SAFETY: as above.
                assert_eq!(unsafe { byte(&mapping, at).read() }, 0, "{granule:?} {at}");
            }
        }
    }

    #[test]
    #[cfg(not(any(address_sanitizer, thread_sanitizer)))]
    fn the_smallest_mapping_that_serves_is_used_again() {
        let mut kept = Kept::new();
        let sizes = [9, 7, 8, 200_000];
        for mapping in sizes.map(|frames| Mapping::map(Granule::Size4K, frames).unwrap()) {
            assert!(kept.add(mapping).is_empty());
        }
        assert!(kept.take(Granule::Size16K, 7).is_none());
        assert!(
            kept.take(Granule::Size4K, 10).is_none(),
            "its blocks are larger"
        );
        for (asked, given) in [(7, 7), (8, 8), (3, 9)] {
            assert_eq!(kept.take(Granule::Size4K, asked).unwrap().frames, given);
        }
        assert!(kept.take(Granule::Size4K, 1).is_none());
        assert!(kept.take(Granule::Size4K, 150_000).is_some());
    }

    #[test]
    fn what_was_touched_once_stays_counted() {
        let mut mapping = Mapping::map(Granule::Size16K, 5).unwrap();
        assert_eq!(mapping.resident_bytes(), 0);
        for at in [0, 1, 3 << 14] {
            byte(&mapping, at);
        }
        assert_eq!(mapping.resident_bytes(), 2 << 14);
        mapping.zero();
        byte(&mapping, 1 << 14);
        assert_eq!(mapping.resident_bytes(), 3 << 14);
    }

    #[test]
    fn what_is_known_too_coarsely_is_not_kept() {
        let mut kept = Kept::new();
        let mapping = Mapping::map(Granule::Size4K, 1 << 28).unwrap();
        assert_eq!(kept.add(mapping).len(), 1);
    }

    #[test]
    fn no_more_is_kept_than_the_limits_say() {
        let mut kept = Kept::new();
        for _ in 0..MOST_MAPPINGS + 8 {
            let _ = kept.add(Mapping::map(Granule::Size4K, 3).unwrap());
            assert!(kept.mappings.len() <= MOST_MAPPINGS);
        }
        let mut kept = Kept::new();
        let small = Mapping::map(Granule::Size64K, 1).unwrap();
        let first = small.base();
        let _ = kept.add(small);
        for _ in 0..3 {
            let touched = Mapping::map(Granule::Size64K, 20_000).unwrap();
            for block in &touched.touched {
                block.store(true, Ordering::Relaxed);
            }
            let _ = kept.add(touched);
            let bytes: usize = kept.mappings.iter().map(|(_, bytes)| bytes).sum();
            assert!(bytes <= MOST_KEPT);
        }
        assert!(
            kept.mappings
                .iter()
                .any(|(mapping, _)| mapping.base() == first)
        );
    }
}
