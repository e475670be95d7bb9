//! Frames that come from the device itself.
//!
//! ```text
//!   the device    | counts | frames to hand out ...       | base pages or compound pages ...
//!                 |<------- the reserved part ----------->|
//!   counts        a record for the vmemmap, and 4 bytes for each frame of the reserved part
//! ```
//!
//! The first frames of the reserved part hold the counts of all its frames. So the count of any
//! frame is found by arithmetic and the direct map. It needs neither the page table nor descriptors,
//! and nobody else has a way to it.

mod record;
#[cfg(test)]
mod tests;

pub use record::AltmapRecord;

use super::counts::{CountStore, Counts};
use super::{
    AcquireError, DirectMap, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
use crate::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange};
use crate::error::ErrorKind;
use crate::model::MemoryModel;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Frames for descriptors, from a reserved part of the device that they describe.
///
/// An altmap is a [`FrameAllocator`] with the same duties and the same rule of reference counts.
/// Only the place of its frames is different, so the library treats both alike. A frame is released
/// to the allocator that it came from; [`contains`](Self::contains) tells which one that is. Page
/// tables never come from an altmap.
///
/// The reserved part starts where the device's first range does and is whole subsections. Its own
/// descriptors come online and go offline like any others. They say that the frames are reserved
/// ([`Part::Reserved`](crate::descriptor::Part::Reserved)).
///
/// A pagemap borrows its altmap and goes with its region from CPU to CPU, into a `static` too. So an
/// altmap is `Sync`: CPUs call it at the same time. A [`DeviceAltmap`] is if its direct map is.
///
/// # Safety
///
/// 1. Every frame that is handed out lies in [`reserved`](Self::reserved), and nobody else uses the
///    frames of that range.
/// 2. `reserved` is the same range at each call, and `count_frames` the same number; `contains` is
///    true of the reserved frames and of no others.
/// 3. [`record`](Self::record) is the same memory at each call, and no other altmap's. It was made
///    by [`AltmapRecord::new`], and stays where it is while this value, or a frame that it handed
///    out, is in use. Of all vmemmaps only one uses it.
pub unsafe trait Altmap: FrameAllocator + Sync {
    /// The reserved frames.
    fn reserved(&self) -> PfnRange;

    /// Whether `frame` is one of them.
    fn contains(&self, frame: Pfn) -> bool {
        self.reserved().contains(frame)
    }

    /// How many of the reserved frames are never handed out, since the counts of the others are in
    /// them.
    fn count_frames(&self) -> u64;

    /// Where the vmemmap that uses the altmap remembers it.
    fn record(&self) -> &AltmapRecord;
}

/// Why a [`DeviceAltmap`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AltmapError {
    /// The reserved frames are not whole subsections.
    Misaligned {
        /// The frames.
        reserved: PfnRange,
        /// How many frames a subsection has.
        subsection: u64,
    },
}

impl AltmapError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Misaligned { .. } => ErrorKind::Misaligned,
        }
    }
}

impl fmt::Display for AltmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned {
                reserved,
                subsection,
            } => write!(
                f,
                "{reserved}, reserved for an altmap, are not whole subsections of {subsection:#x} frames"
            ),
        }
    }
}

impl core::error::Error for AltmapError {}

/// The size of a count in bytes.
pub(crate) const COUNT_BYTES: u64 = size_of::<AtomicU32>() as u64;

/// How many of `reserved` frames hold the counts of all of them.
const fn count_frames(reserved: u64, granule: Granule) -> u64 {
    let counts = reserved.saturating_mul(COUNT_BYTES);
    let bytes = counts.saturating_add(AltmapRecord::BYTES);
    bytes.div_ceil(granule.bytes())
}

/// The counts of the reserved frames, in the first of these.
struct InReserved<M> {
    reserved: PfnRange,
    granule: Granule,
    direct_map: M,
}

impl<M: DirectMap> InReserved<M> {
    /// How many of the first frames are for the counts.
    fn count_frames(&self) -> u64 {
        count_frames(self.reserved.frames(), self.granule)
    }

    /// How far into the reserved frames `frame` lies.
    fn index(&self, frame: Pfn) -> Option<u64> {
        let index = frame.get().checked_sub(self.reserved.start().get())?;
        (index < self.reserved.frames()).then_some(index)
    }

    fn record(&self) -> &AltmapRecord {
        let page = self.direct_map.frame_pointer(self.reserved.start());
        // SAFETY: as for a count: the first bytes of the first frame are the record's, written by
        // `clear`.
        unsafe { page.cast().as_ref() }
    }

    /// Makes all counts zero, and the record new.
    ///
    /// # Safety
    ///
    /// 1. Nobody uses the `count_frames`, and the direct map reaches them.
    unsafe fn clear(&self) {
        for index in 0..self.count_frames() {
            let frame = self.reserved.start().saturating_add(index);
            let page = self.direct_map.frame_pointer(frame);
            // SAFETY: 1: a page that is nobody's.
            unsafe { page.write_bytes(0, self.granule.bytes() as usize) };
        }
        let first = self.direct_map.frame_pointer(self.reserved.start());
        // SAFETY: 1: as above; a page has room for the record and is aligned to more.
        unsafe { first.cast().write(AltmapRecord::new()) };
    }
}

impl<M: DirectMap> CountStore for InReserved<M> {
    fn frames(&self) -> PfnRange {
        self.reserved
    }

    fn count(&self, frame: Pfn) -> Option<&AtomicU32> {
        let offset = self.index(frame)?.checked_mul(COUNT_BYTES)?;
        let offset = offset.checked_add(AltmapRecord::BYTES)?;
        let bytes = self.granule.bytes();
        let page = self.reserved.start().checked_add(offset / bytes)?;
        let page = self.direct_map.frame_pointer(page);
        // SAFETY: the frame is one of the `count_frames`, which the direct map reaches in pages of the
        // granule (duties 2 and 3 of `DeviceAltmap::new`), zeroed there. The offset is within the
        // page and a multiple of a count's size. These frames are never handed out, so only counts
        // are stored there.
        Some(unsafe { page.add((offset % bytes) as usize).cast().as_ref() })
    }
}

/// An [`Altmap`] over a reserved range, with its counts in the first frames of that range.
///
/// ```
/// use mm_core::addr::{NodeId, PfnRange};
/// use mm_core::frame::{DeviceAltmap, DirectMap};
/// use mm_core::model::MemoryModel;
/// use mm_core::pagemap::{DevPagemap, Geometry, PagemapError};
///
/// /// An altmap as large as it takes to bring all of `device` online.
/// ///
/// /// # Safety
/// ///
/// /// As for [`DeviceAltmap::new`].
/// unsafe fn altmap_of<M: DirectMap + Sync>(
///     model: &MemoryModel,
///     direct_map: M,
///     device: PfnRange,
///     pages: Geometry,
/// ) -> Result<Option<DeviceAltmap<M>>, PagemapError> {
///     let needed = DevPagemap::of_range(model, device, pages)?.altmap_needed()?;
///     // SAFETY: 1 to 3: the caller's.
///     let altmap = unsafe { DeviceAltmap::new(model, direct_map, needed, NodeId::new(0)) };
///     Ok(altmap.ok())
/// }
/// ```
///
/// Hands out the lowest free frame after the last one, and starts again at the lowest, also when
/// none is out any more. Blocks are aligned to their size. Counts have 32 bits: 64 bytes, and 4
/// bytes for each reserved frame, are not handed out ([`count_frames`](Altmap::count_frames)).
///
/// It is `Send` and `Sync` if `M` is. Most direct maps add a constant and have no state, or are a
/// reference to something that never changes.
///
/// How much to reserve: [`DevPagemap::altmap_needed`](crate::pagemap::DevPagemap::altmap_needed).
pub struct DeviceAltmap<M> {
    counts: Counts<InReserved<M>>,
    node: NodeId,
    /// How many frames are handed out.
    out: AtomicU64,
    /// Where the next search starts: an offset in frames.
    next: AtomicU64,
}

impl<M: DirectMap> fmt::Debug for DeviceAltmap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAltmap")
            .field("reserved", &self.store().reserved)
            .field("node", &self.node)
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

impl<M: DirectMap> DeviceAltmap<M> {
    /// How many of the frames of `reserved` an altmap over them would keep for its counts.
    ///
    /// # Errors
    ///
    /// [`AltmapError`] where there cannot be such an altmap.
    pub fn check(model: &MemoryModel, reserved: PfnRange) -> Result<u64, AltmapError> {
        if !reserved.is_aligned(model.subsection()) {
            return Err(AltmapError::Misaligned {
                reserved,
                subsection: model.subsection().frames(),
            });
        }
        Ok(count_frames(reserved.frames(), model.granule()))
    }

    /// An altmap over `reserved`, memory of `node`. Zeroes the frames of the counts.
    ///
    /// # Errors
    ///
    /// [`AltmapError`], and nothing was written.
    ///
    /// # Safety
    ///
    /// 1. The frames of `reserved` are memory that nobody else uses while this value, or a mapping
    ///    of a frame that it handed out, is in use.
    /// 2. `direct_map` is the kernel's, and reaches all of them as long.
    /// 3. Of all vmemmaps only one, with the same model and direct map, uses this value.
    pub unsafe fn new(
        model: &MemoryModel,
        direct_map: M,
        reserved: PfnRange,
        node: NodeId,
    ) -> Result<Self, AltmapError> {
        Self::check(model, reserved)?;
        let store = InReserved {
            reserved,
            granule: model.granule(),
            direct_map,
        };
        // SAFETY: 1: duties 1 and 2.
        unsafe { store.clear() };
        Ok(Self {
            next: AtomicU64::new(store.count_frames()),
            counts: Counts::new(store),
            node,
            out: AtomicU64::new(0),
        })
    }

    /// How many frames are handed out. When it is zero and no operation of the vmemmap runs, nothing
    /// of the library's is in the memory any more. (The operation that releases the last frame
    /// writes to the record afterwards.)
    pub fn in_use(&self) -> u64 {
        // Whoever uses the memory otherwise does so after all that was done with its frames.
        self.out.load(Ordering::Acquire)
    }

    fn store(&self) -> &InReserved<M> {
        self.counts.store()
    }

    /// Takes `block` if it is free.
    fn claim(&self, block: Block) -> bool {
        let claimed = self.counts.claim(block);
        if claimed {
            self.out
                .fetch_add(block.order().frames(), Ordering::Relaxed);
        }
        claimed
    }

    /// The first free block of `order` that starts at or after the offset `from` and below `to`.
    fn claim_between(&self, from: u64, to: u64, order: Order) -> Option<Block> {
        let start = self.store().reserved.start().get();
        let step = order.frames();
        let mut frame = start.checked_add(from)?.checked_next_multiple_of(step)?;
        while frame < start.checked_add(to)? {
            let block = Pfn::new(frame).and_then(|first| Block::new(first, order))?;
            if self.claim(block) {
                self.next.store(frame + step - start, Ordering::Relaxed);
                return Some(block);
            }
            frame = frame.checked_add(step)?;
        }
        None
    }
}

// SAFETY: 1: a block is claimed in the counts before it is handed out and stays claimed until
// `free`; all of it is on the altmap's one node, and none of it is a frame of the counts. 2 to 4:
// `Counts` keeps them; the counts are in frames that are never handed out. 5: duty 2 of
// `DeviceAltmap::new`.
unsafe impl<M: DirectMap> FrameAllocator for DeviceAltmap<M> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let frames = self.store().reserved.frames();
        let first = self.store().count_frames();
        if frames.saturating_sub(first).saturating_sub(self.in_use()) < order.frames() {
            return Err(refused);
        }
        let next = self
            .next
            .load(Ordering::Relaxed)
            .clamp(first, frames.max(first));
        self.claim_between(next, frames, order)
            .or_else(|| self.claim_between(first, next, order))
            .ok_or(refused)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let first = self.allocate(Order::BASE, node)?.first();
        let mut frames = 1;
        while frames < at_most
            && let Some(next) = first.checked_add(frames)
            && self.claim(Block::single(next))
        {
            frames += 1;
        }
        self.next.fetch_add(frames - 1, Ordering::Relaxed);
        PfnRange::new(first, frames).map_err(|_| OutOfFrames {
            order: Order::BASE,
            node,
        })
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's duties 1 and 2.
        unsafe { self.counts.release(block, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        let block = block.block();
        self.counts.clear(block);
        let frames = block.order().frames();
        if self.out.fetch_sub(frames, Ordering::Release) == frames {
            // As in the beginning, so that the same requests get the same frames.
            let first = self.store().count_frames();
            self.next.store(first, Ordering::Relaxed);
        }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        self.counts.keep(block.block());
        block.block()
    }

    unsafe fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}

// SAFETY: 1: blocks are claimed in the counts, which exist for the reserved frames only; duty 1 of
// `DeviceAltmap::new`. 2: the range is never changed, and all follows from it. 3: the record is the first
// bytes of the first reserved frame, written by `new` and never handed out; duties 1 to 3 of
// `DeviceAltmap::new`.
unsafe impl<M: DirectMap + Sync> Altmap for DeviceAltmap<M> {
    fn reserved(&self) -> PfnRange {
        self.store().reserved
    }

    fn count_frames(&self) -> u64 {
        self.store().count_frames()
    }

    fn record(&self) -> &AltmapRecord {
        self.store().record()
    }
}

impl<M: DirectMap> InspectFrames for DeviceAltmap<M> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        Some(self.in_use())
    }
}
