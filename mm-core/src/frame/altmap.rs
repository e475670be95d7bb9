//! Frames that come from the device itself.
//!
//! ```text
//!   the device    | holders | frames to hand out ...      | base pages or compound pages ...
//!                 |<------- the reserved part ----------->|
//!   holder i      descriptors, with the counts, of the frames 64 i to 64 i + 63 of the reserved part
//! ```
//!
//! The reserved part holds its own descriptors: its first frames, the *holders*, hold the
//! descriptors of all its frames, in order. So the count of any frame is found by arithmetic and
//! the direct map. It needs neither the page table nor extra memory.

#[cfg(test)]
mod tests;

use super::counts::{CountStore, Counts};
use super::{
    AcquireError, DirectMap, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::descriptor::CountedDescriptor;
use crate::error::ErrorKind;
use crate::model::MemoryModel;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU64, Ordering};

/// Frames for descriptors, from a reserved part of the device that they describe.
///
/// An altmap is a [`FrameAllocator`] with the same duties and the same rule of reference counts.
/// Only the place of its frames is different, so the library treats both alike. A frame is released
/// to the allocator that it came from; [`contains`](Self::contains) tells which one that is. Page
/// tables never come from an altmap.
///
/// The reserved part starts where the device's first range does and is whole subsections. Its own
/// descriptors come online first, from its start to its end, and go offline last. The
/// [`holders`](Self::holders) that hold them are handed out for that alone. Other frames are handed
/// out only while all of the reserved part has descriptors.
///
/// # Safety
///
/// 1. Every frame that is handed out lies in [`reserved`](Self::reserved), and nobody else uses the
///    frames of that range.
/// 2. `reserved` is the same range at each call.
/// 3. The frames that `holders` returns are not handed out before `begin_counting`. From then on
///    they are handed out with one reference each, as by `allocate`.
pub unsafe trait Altmap: FrameAllocator {
    /// The reserved frames.
    fn reserved(&self) -> PfnRange;

    /// Whether `frame` is one of them.
    fn contains(&self, frame: Pfn) -> bool {
        self.reserved().contains(frame)
    }

    /// The part of the reserved frames that has no descriptors yet; `None` if all have.
    fn undescribed(&self) -> Option<PfnRange>;

    /// Whether frames are in use that hold descriptors of memory other than the reserved frames. As
    /// long as they are, the reserved part's descriptors have to stay, since they hold the counts
    /// of those frames.
    fn serves_others(&self) -> bool;

    /// The frames that will hold the descriptors of `described`, in the order of addresses. `None`
    /// unless `described` is whole vmemmap pages from the start of what is
    /// [undescribed](Self::undescribed), and can be described now.
    fn holders(&self, described: PfnRange) -> Option<PfnRange>;

    /// Hands out the holders of `described`, in blocks of `order`, with one reference each. From
    /// now on the frames that they describe are counted.
    ///
    /// # Safety
    ///
    /// 1. [`holders`](Self::holders) has just returned frames for `described`, which are whole
    ///    aligned blocks of `order`.
    /// 2. The descriptors of `described` have been written into them.
    unsafe fn begin_counting(&self, described: PfnRange, order: Order);
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
    /// The descriptor type is not the one that the model was made for.
    DescriptorSize {
        /// The size that the model says, in bytes.
        model: u64,
        /// The size of the type, in bytes.
        descriptor: usize,
    },
}

impl AltmapError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Misaligned { .. } => ErrorKind::Misaligned,
            Self::DescriptorSize { .. } => ErrorKind::Unsupported,
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
            Self::DescriptorSize { model, descriptor } => write!(
                f,
                "the model is for descriptors of {model} bytes, the type has {descriptor} or is aligned to more"
            ),
        }
    }
}

impl core::error::Error for AltmapError {}

/// The counts of the reserved frames. They are in the descriptors, which are in the holders.
struct InDescriptors<D, M> {
    reserved: PfnRange,
    /// How many frames a holder describes.
    per_holder: Order,
    direct_map: M,
    descriptor: PhantomData<fn() -> D>,
}

impl<D: CountedDescriptor, M: DirectMap> InDescriptors<D, M> {
    /// How many holders there are.
    fn holders(&self) -> u64 {
        self.reserved.frames() >> self.per_holder.get()
    }

    /// How far into the reserved frames `frame` lies.
    fn index(&self, frame: Pfn) -> Option<u64> {
        let index = frame.get().checked_sub(self.reserved.start().get())?;
        (index < self.reserved.frames()).then_some(index)
    }

    /// The descriptor of `frame`, which has been written.
    fn descriptor(&self, frame: Pfn) -> Option<&D> {
        let index = self.index(frame)?;
        let holder = index >> self.per_holder.get();
        let holder = self.reserved.start().checked_add(holder)?;
        let slot = index & (self.per_holder.frames() - 1);
        let page = self.direct_map.frame_pointer(holder).cast::<D>();
        // SAFETY: the direct map reaches the holder's page (duty 2 of `DeviceAltmap::new`), which
        // `per_holder` descriptors of `D`'s size fill exactly (checked there). It was
        // written before counting began, and stays as it is until the reserved
        // part is described anew (duty 1), which is not now (duty 4). Descriptors are only shared.
        Some(unsafe { page.add(slot as usize).as_ref() })
    }
}

impl<D: CountedDescriptor, M: DirectMap> CountStore for InDescriptors<D, M> {
    const INSIDE_BLOCK: u64 = u32::MAX as u64;

    fn frames(&self) -> PfnRange {
        self.reserved
    }

    fn load(&self, frame: Pfn) -> Option<u64> {
        let count = self.descriptor(frame)?.references();
        Some(count.load(Ordering::Acquire).into())
    }

    fn store(&self, frame: Pfn, value: u64) {
        if let Some(descriptor) = self.descriptor(frame) {
            let value = u32::try_from(value).unwrap_or(u32::MAX);
            descriptor.references().store(value, Ordering::Release);
        }
    }

    fn update(&self, frame: Pfn, mut change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let change = |count: u32| change(count.into()).and_then(|to| u32::try_from(to).ok());
        self.descriptor(frame)?
            .references()
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .ok()
            .map(u64::from)
    }
}

/// An [`Altmap`] over a reserved range, with its counts in the descriptors of that range.
///
/// Hands out the lowest free frame after the last one, and starts again at the lowest. Blocks are
/// aligned to their size. Counts have 32 bits.
///
/// How much to reserve: [`DevPagemap::altmap_needed`](crate::pagemap::DevPagemap::altmap_needed).
pub struct DeviceAltmap<D, M> {
    counts: Counts<InDescriptors<D, M>>,
    node: NodeId,
    /// How many holders are handed out. They are always the first ones.
    holders_out: AtomicU64,
    /// How many other frames are handed out.
    others_out: AtomicU64,
    /// Where the next search starts: an offset in frames.
    next: AtomicU64,
}

impl<D: CountedDescriptor, M: DirectMap> fmt::Debug for DeviceAltmap<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAltmap")
            .field("reserved", &self.store().reserved)
            .field("node", &self.node)
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

impl<D: CountedDescriptor, M: DirectMap> DeviceAltmap<D, M> {
    /// An altmap over `reserved`, memory of `node`, for descriptors `D` as `model` says.
    ///
    /// # Errors
    ///
    /// [`AltmapError`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `reserved` are memory that nobody else uses while this value, or a mapping
    ///    of a frame that it handed out, is in use.
    /// 2. `direct_map` is the kernel's, and reaches all of them as long.
    /// 3. Of all vmemmaps only one, of the same `model`, `D` and direct map, uses this value.
    /// 4. No method is called while another thread brings the reserved part online or takes it
    ///    offline.
    pub unsafe fn new(
        model: &MemoryModel,
        direct_map: M,
        reserved: PfnRange,
        node: NodeId,
    ) -> Result<Self, AltmapError> {
        if !reserved.is_aligned(model.subsection()) {
            return Err(AltmapError::Misaligned {
                reserved,
                subsection: model.subsection().frames(),
            });
        }
        let bytes = model.descriptor_bytes();
        if size_of::<D>() as u64 != bytes || align_of::<D>() as u64 > bytes {
            return Err(AltmapError::DescriptorSize {
                model: bytes,
                descriptor: size_of::<D>(),
            });
        }
        let store = InDescriptors {
            reserved,
            per_holder: model.vmemmap_page_order(),
            direct_map,
            descriptor: PhantomData,
        };
        Ok(Self {
            next: AtomicU64::new(store.holders()),
            counts: Counts::new(store),
            node,
            holders_out: AtomicU64::new(0),
            others_out: AtomicU64::new(0),
        })
    }

    /// How many frames are handed out.
    pub fn in_use(&self) -> u64 {
        self.holders_out.load(Ordering::Relaxed) + self.others_out.load(Ordering::Relaxed)
    }

    fn store(&self) -> &InDescriptors<D, M> {
        self.counts.store()
    }

    /// Whether every reserved frame has a descriptor, and so a count.
    fn all_counted(&self) -> bool {
        self.holders_out.load(Ordering::Acquire) == self.store().holders()
    }

    /// Takes `block` if it is free. All frames are counted.
    fn claim(&self, block: Block) -> bool {
        let claimed = self.counts.claim(block);
        if claimed {
            let frames = block.order().frames();
            self.others_out.fetch_add(frames, Ordering::Relaxed);
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
// `free`; all of it is on the altmap's one node. 2 to 4: `Counts` keeps them; it is asked for
// frames only that are counted, by the duties of those methods and by `all_counted`. 5: duty 2 of
// `DeviceAltmap::new`.
unsafe impl<D: CountedDescriptor, M: DirectMap> FrameAllocator for DeviceAltmap<D, M> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let frames = self.store().reserved.frames();
        if !self.all_counted() || frames.saturating_sub(self.in_use()) < order.frames() {
            return Err(refused);
        }
        let next = self.next.load(Ordering::Relaxed).min(frames);
        self.claim_between(next, frames, order)
            .or_else(|| self.claim_between(self.store().holders(), next, order))
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
        let Some(index) = self.store().index(block.first()) else {
            return;
        };
        self.counts.clear(block);
        // A holder is not handed out again before all of them are written anew, so the descriptors
        // in it still count.
        let out = if index < self.store().holders() {
            &self.holders_out
        } else {
            &self.others_out
        };
        out.fetch_sub(block.order().frames(), Ordering::Release);
    }

    unsafe fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}

// SAFETY: 1: blocks are claimed in the counts, which exist for the reserved frames only. 2: the
// range is never changed. 3: frames below `InDescriptors::holders` are free in no count while all
// frames are counted, so `allocate` passes them over; `begin_counting` makes their counts 1.
unsafe impl<D: CountedDescriptor, M: DirectMap> Altmap for DeviceAltmap<D, M> {
    fn reserved(&self) -> PfnRange {
        self.store().reserved
    }

    fn undescribed(&self) -> Option<PfnRange> {
        let holders = self.holders_out.load(Ordering::Acquire);
        let store = self.store();
        store.reserved.split_at(holders << store.per_holder.get()).1
    }

    fn serves_others(&self) -> bool {
        self.others_out.load(Ordering::Acquire) > 0
    }

    fn holders(&self, described: PfnRange) -> Option<PfnRange> {
        let store = self.store();
        let out = self.holders_out.load(Ordering::Acquire);
        let first = store.index(described.start())?;
        let in_order = first == out << store.per_holder.get()
            && store.reserved.contains_range(described)
            && described.is_aligned(store.per_holder);
        // A frame that was not released since the last time would be counted anew, and so handed out
        // twice.
        if !in_order || (out == 0 && self.serves_others()) {
            return None;
        }
        let holders = described.frames() >> store.per_holder.get();
        PfnRange::new(store.reserved.start().checked_add(out)?, holders).ok()
    }

    unsafe fn begin_counting(&self, described: PfnRange, order: Order) {
        let Some(holders) = self.holders(described) else {
            return;
        };
        // A holder is described by itself or by one before it, so its count is there by now.
        self.counts.fill(described.start(), described.frames(), 0);
        let mut rest = Some(holders);
        while let Some(holders) = rest {
            let (first, later) = holders.take_first(order.frames());
            if let Some(block) = Block::new(first.start(), order) {
                self.counts.join(block);
            }
            rest = later;
        }
        if holders.start() == self.store().reserved.start() {
            let first_other = self.store().holders();
            self.next.store(first_other, Ordering::Relaxed);
        }
        self.holders_out
            .fetch_add(holders.frames(), Ordering::Release);
    }
}

impl<D: CountedDescriptor, M: DirectMap> InspectFrames for DeviceAltmap<D, M> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.store().index(first)?;
        match self.undescribed() {
            Some(undescribed) if undescribed.contains(first) => Some(0),
            _ => self.counts.references(first),
        }
    }

    fn outstanding(&self) -> Option<u64> {
        Some(self.in_use())
    }
}
