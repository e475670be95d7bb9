//! An altmap that is watched, and that can be made to run out.

use crate::TestMachine;
use arch_sim::SimMemory;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, Altmap, AltmapRecord, DeviceAltmap, FrameAllocator, InspectFrames, OutOfFrames,
    OwnedBlock, Released,
};
use mm_core::model::MemoryModel;
use std::sync::atomic::{AtomicU64, Ordering};

/// An altmap as tests see it.
pub trait TestAltmap: Altmap + InspectFrames {
    /// How many frames are out.
    fn in_use(&self) -> u64;

    /// How many frames were handed out so far.
    fn granted(&self) -> u64;

    /// Hands out no more than so many frames from now on; `None` ends that.
    fn grant(&self, frames: Option<u64>);
}

/// A [`DeviceAltmap`] that sees to it that all its frames are its own.
pub(super) struct WatchedAltmap<'m> {
    altmap: DeviceAltmap<&'m SimMemory>,
    node: NodeId,
    granted: AtomicU64,
    /// How many frames may be handed out in all.
    limit: AtomicU64,
}

impl<'m> WatchedAltmap<'m> {
    pub(super) fn new(
        machine: &'m TestMachine,
        model: &MemoryModel,
        (reserved, node): (PfnRange, NodeId),
    ) -> Self {
        // SAFETY: 1: the machine's RAM is elsewhere. 2: it has contents for the reserved part. 3:
        // it has one vmemmap.
        let altmap = unsafe { DeviceAltmap::new(model, machine.memory(), reserved, node) };
        Self {
            altmap: altmap.unwrap(),
            node,
            granted: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
        }
    }
}

impl WatchedAltmap<'_> {
    fn check(&self, frames: PfnRange) {
        assert!(
            self.altmap.reserved().contains_range(frames),
            "{frames} given to the altmap of {}",
            self.altmap.reserved()
        );
    }

    /// How many of `frames` may be handed out, in blocks of `order`.
    fn allowed(&self, order: Order, frames: u64) -> Result<u64, OutOfFrames> {
        let left = self
            .limit
            .load(Ordering::Relaxed)
            .saturating_sub(self.granted());
        let granted = frames.min(left);
        if granted < order.frames() {
            let node = self.node;
            return Err(OutOfFrames { order, node });
        }
        Ok(granted)
    }

    fn handed_out(&self, frames: PfnRange) {
        self.check(frames);
        self.granted.fetch_add(frames.frames(), Ordering::Relaxed);
    }
}

impl TestAltmap for WatchedAltmap<'_> {
    fn in_use(&self) -> u64 {
        self.altmap.in_use()
    }

    fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    fn grant(&self, frames: Option<u64>) {
        let limit = frames.map_or(u64::MAX, |frames| self.granted() + frames);
        self.limit.store(limit, Ordering::Relaxed);
    }
}

// SAFETY: 1 to 5: those of the altmap inside.
unsafe impl FrameAllocator for WatchedAltmap<'_> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        self.allowed(order, order.frames())?;
        let block = self.altmap.allocate(order, node)?;
        self.handed_out(block.frames());
        Ok(block)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let granted = self.allowed(Order::BASE, at_most)?;
        let run = self.altmap.allocate_run(granted, node)?;
        self.handed_out(run);
        Ok(run)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.check(PfnRange::single(first));
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.acquire(first, references) }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        self.check(block.frames());
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.release(block, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        self.check(block.block().frames());
        // SAFETY: the caller's duty is the same.
        unsafe { self.altmap.free(block) };
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { self.altmap.keep(block) }
    }

    unsafe fn split(&self, block: Block) {
        self.check(block.frames());
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.check(PfnRange::single(frame));
        self.altmap.node_of(frame)
    }
}

// SAFETY: 1 to 3: those of the altmap inside.
unsafe impl Altmap for WatchedAltmap<'_> {
    fn reserved(&self) -> PfnRange {
        self.altmap.reserved()
    }

    fn count_frames(&self) -> u64 {
        self.altmap.count_frames()
    }

    fn record(&self) -> &AltmapRecord {
        self.altmap.record()
    }
}

impl InspectFrames for WatchedAltmap<'_> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.altmap.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        self.altmap.outstanding()
    }
}
