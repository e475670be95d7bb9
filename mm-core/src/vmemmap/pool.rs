//! Where frames for descriptors come from and go back to: RAM, or the altmap.

use super::error::OnlineError;
use super::registry::TailRegistry;
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{Altmap, FrameAllocator, OutOfFrames, Released};
use crate::paging::{References, Run, Step};

/// Frames for descriptors: from the altmap if there is one, else from RAM. Given back to where they
/// came from.
pub(super) struct Pool<'v, A> {
    pub(super) ram: &'v A,
    pub(super) altmap: Option<&'v dyn Altmap>,
    pub(super) registry: &'v mut TailRegistry,
}

impl<A: FrameAllocator> Pool<'_, A> {
    pub(super) fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        match self.altmap {
            Some(altmap) => altmap.allocate(order, node),
            None => self.ram.allocate(order, node),
        }
    }

    pub(super) fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OnlineError> {
        match self.altmap {
            Some(altmap) => {
                altmap
                    .allocate_run(at_most, node)
                    .map_err(|_| OnlineError::AltmapExhausted {
                        reserved: altmap.reserved(),
                    })
            }
            None => self
                .ram
                .allocate_run(at_most, node)
                .map_err(OnlineError::OutOfFrames),
        }
    }

    /// Where the descriptors of `described` have to be, if it is part of what the altmap reserves.
    pub(super) fn holders(&self, described: PfnRange) -> Result<Option<PfnRange>, OnlineError> {
        match self.altmap_of(described.start()) {
            Some(altmap) => match altmap.holders(described) {
                Some(holders) => Ok(Some(holders)),
                None => Err(OnlineError::AltmapExhausted {
                    reserved: altmap.reserved(),
                }),
            },
            None => Ok(None),
        }
    }

    /// Hands out the holders of `described`, in blocks of `order`, if it is part of what the altmap
    /// reserves.
    ///
    /// # Safety
    ///
    /// As for [`Altmap::begin_counting`], where it is.
    pub(super) unsafe fn begin_counting(&self, described: PfnRange, order: Order) {
        if let Some(altmap) = self.altmap_of(described.start()) {
            // SAFETY: 1 and 2: the caller's.
            unsafe { altmap.begin_counting(described, order) };
        }
    }

    pub(super) fn node_of(&self, frame: Pfn) -> NodeId {
        match self.altmap_of(frame) {
            Some(altmap) => altmap.node_of(frame),
            None => self.ram.node_of(frame),
        }
    }

    fn altmap_of(&self, frame: Pfn) -> Option<&dyn Altmap> {
        self.altmap.filter(|altmap| altmap.contains(frame))
    }

    /// # Safety
    ///
    /// As for [`FrameAllocator::acquire`].
    pub(super) unsafe fn acquire(&self, frame: Pfn, references: u64) -> bool {
        // SAFETY: 1: the frame goes to the allocator that it came from. 2: the caller's.
        unsafe {
            match self.altmap_of(frame) {
                Some(altmap) => altmap.acquire(frame, references),
                None => self.ram.acquire(frame, references),
            }
        }
        .is_ok()
    }

    /// Makes single frames of a block.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::split`].
    pub(super) unsafe fn split(&self, block: Block) {
        // SAFETY: 1: the block goes to the allocator that it came from. 2: the caller's.
        unsafe {
            match self.altmap_of(block.first()) {
                Some(altmap) => altmap.split(block),
                None => self.ram.split(block),
            }
        }
    }

    /// Gives back `references` of `block`, and the block with the last one.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release`].
    unsafe fn release(&mut self, block: Block, references: u64) {
        match self.altmap_of(block.first()) {
            Some(altmap) => {
                // SAFETY: 1: the block lies in the altmap, so it came from there. 2: the caller's.
                if let Released::Last(owned) = unsafe { altmap.release(block, references) } {
                    altmap.free(owned);
                }
            }
            None => {
                // SAFETY: 1: the block lies in no altmap, so it came from RAM. 2: the caller's.
                if let Released::Last(owned) = unsafe { self.ram.release(block, references) } {
                    self.registry.forget(block.first());
                    self.ram.free(owned);
                }
            }
        }
    }

    /// Gives back one reference of each frame.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release_run`].
    pub(super) unsafe fn release_frames(&self, frames: PfnRange) {
        let Some(altmap) = self.altmap else {
            // SAFETY: the caller's; all frames came from RAM.
            return unsafe { self.ram.release_run(frames) };
        };
        // Frames of both kinds may follow each other in memory.
        let reserved = altmap.reserved();
        let start = frames.start().get();
        let below = frames
            .split_at(reserved.start().get().saturating_sub(start))
            .0;
        let above = frames
            .split_at((reserved.last().get() + 1).saturating_sub(start))
            .1;
        for part in [below, above].into_iter().flatten() {
            // SAFETY: the caller's; frames outside the altmap came from RAM.
            unsafe { self.ram.release_run(part) };
        }
        if let Some(within) = frames.intersection(reserved) {
            // SAFETY: the caller's; frames of the altmap came from there.
            unsafe { altmap.release_run(within) };
        }
    }

    /// Gives back the references that the entries of `run` owned.
    ///
    /// # Safety
    ///
    /// 1. `run` was mapped with frames of this pool, or was about to be, one reference for each
    ///    leaf.
    /// 2. No entry, and no translation cached by a CPU, depends on those any more.
    pub(super) unsafe fn release_run(&mut self, run: Run) {
        // SAFETY: 1 and 2 are the caller's, for each frame and block of the run.
        unsafe {
            if let Some(frames) = run.frames() {
                return self.release_frames(frames);
            }
            match run.step {
                Step::Same => self.release(run.leaf.block, run.count),
                Step::Next => {
                    for block in (0..run.count).filter_map(|index| run.block(index)) {
                        self.release(block, 1);
                    }
                }
            }
        }
    }
}

impl<A: FrameAllocator> References for Pool<'_, A> {
    fn acquire(&mut self, run: Run) -> bool {
        // SAFETY: 1: the page table copies entries of this library's. 2: the copies own the
        // references.
        run.step == Step::Same && unsafe { Pool::acquire(self, run.leaf.block.first(), run.count) }
    }

    fn release(&mut self, run: Run) {
        // SAFETY: 1: as above. 2: the page table gives back what no entry needs, after the flush.
        unsafe { self.release_run(run) };
    }
}
