//! An altmap that is watched.

use arch_sim::SimMemory;
use hosted::{Backend, Machine};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{
    AcquireError, Altmap, DeviceAltmap, FrameAllocator, OutOfFrames, OwnedBlock, Released,
};
use std::cell::Cell;

/// An altmap that sees to it that all its frames are its own and that its descriptors go last, and
/// that can be made to run out.
pub(crate) struct Watched<'m> {
    pub(crate) altmap: DeviceAltmap<Page<Mask>, &'m SimMemory>,
    /// How many frames hold the descriptors of the reserved part.
    pub(crate) holders: u64,
    /// How many more frames it hands out.
    pub(crate) left: Cell<u64>,
}

impl<'m> Watched<'m> {
    pub(crate) fn new<B: Backend>(machine: &'m Machine<B>, reserved: PfnRange) -> Self {
        // SAFETY: 1: the machine's RAM is elsewhere. 2: it has contents for the reserved part. 3
        // and 4: it has one vmemmap, and there is one thread.
        let altmap =
            unsafe { DeviceAltmap::new(&B::MODEL, machine.memory(), reserved, NodeId::new(0)) };
        Self {
            altmap: altmap.unwrap(),
            holders: reserved.frames() / B::MODEL.descriptors_per_page(),
            left: Cell::new(u64::MAX),
        }
    }

    fn check(&self, frames: PfnRange) {
        assert!(
            self.altmap.reserved().contains_range(frames),
            "{frames} given to the altmap of {}",
            self.altmap.reserved()
        );
    }

    fn grant(&self, order: Order, frames: u64) -> Result<u64, OutOfFrames> {
        let granted = frames.min(self.left.get());
        if granted < order.frames() {
            return Err(OutOfFrames {
                order,
                node: NodeId::new(0),
            });
        }
        Ok(granted)
    }

    fn handed_out(&self, frames: PfnRange) {
        self.check(frames);
        self.left.set(self.left.get() - frames.frames());
    }
}

// SAFETY: 1 to 5: those of the altmap inside.
unsafe impl FrameAllocator for Watched<'_> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        self.grant(order, order.frames())?;
        let block = self.altmap.allocate(order, node)?;
        self.handed_out(block.frames());
        Ok(block)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let granted = self.grant(Order::BASE, at_most)?;
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

    fn free(&self, block: OwnedBlock) {
        let frames = block.block().frames();
        self.check(frames);
        let is_holder = frames.start().get() - self.reserved().start().get() < self.holders;
        assert!(
            is_holder || self.undescribed().is_none(),
            "{frames} freed after the descriptors that count them"
        );
        self.altmap.free(block);
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
unsafe impl Altmap for Watched<'_> {
    fn reserved(&self) -> PfnRange {
        self.altmap.reserved()
    }

    fn undescribed(&self) -> Option<PfnRange> {
        self.altmap.undescribed()
    }

    fn holders(&self, described: PfnRange) -> Option<PfnRange> {
        self.altmap.holders(described)
    }

    unsafe fn begin_counting(&self, described: PfnRange, order: Order) {
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.begin_counting(described, order) }
    }
}
