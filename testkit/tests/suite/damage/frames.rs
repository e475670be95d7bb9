//! Allocators that are damaged.

use super::kinds::Damage;
use arch_sim::{SimFrames, SimMemory};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, Altmap, AltmapRecord, DeviceAltmap, FrameAllocator, InspectFrames, OutOfFrames,
    OwnedBlock, Released,
};

/// The machine's allocator. `for_tables` is the page table's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DamagedFrames<'m> {
    pub(crate) frames: &'m SimFrames,
    pub(crate) damage: Damage,
    pub(crate) for_tables: bool,
}

// SAFETY: kept by the allocator behind it, except for what is damaged on purpose.
unsafe impl FrameAllocator for DamagedFrames<'_> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        self.frames.allocate(order, node)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        self.frames.allocate_run(at_most, node)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        let references = match self.damage {
            Damage::CountsOneForAll => references.min(1),
            Damage::CountsIn16Bits => references & 0xffff,
            _ => references,
        };
        if references == 0 {
            return Ok(());
        }
        // SAFETY: the caller's duties are the same.
        let acquired = unsafe { self.frames.acquire(first, references) };
        match self.damage {
            Damage::RevivesTheDead => Ok(()),
            _ => acquired,
        }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        if self.for_tables && self.damage == Damage::LosesTheReleaseOfASharedTable {
            let others = self.frames.references(block.first());
            if others.is_some_and(|all| all > references) {
                return Released::Shared;
            }
        }
        if self.for_tables && self.damage == Damage::LeaksTables {
            return Released::Shared;
        }
        let references = match self.damage {
            Damage::CountsIn16Bits => references & 0xffff,
            _ => references,
        };
        if references == 0 {
            return Released::Shared;
        }
        let mut block = block;
        if self.damage == Damage::FreesBlocksAsOnePage && block.order() != Order::BASE {
            // SAFETY: 1 and 2: a block that is mapped has one reference, which is given back here;
            // those of all frames but the first are lost.
            unsafe { self.frames.split(block) };
            block = Block::single(block.first());
        }
        // SAFETY: the caller's duties are the same.
        unsafe { self.frames.release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.frames.release_run(run) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: the caller's duty is the same.
        unsafe { self.frames.free(block) };
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { self.frames.keep(block) }
    }

    fn can_split(&self) -> bool {
        self.damage != Damage::TakesBlocksBackWhole
    }

    unsafe fn split(&self, block: Block) {
        assert!(self.can_split(), "a block is split that cannot be");
        if self.damage != Damage::SplitsNothing {
            // SAFETY: the caller's duties are the same.
            unsafe { self.frames.split(block) }
        }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.frames.node_of(frame)
    }
}

impl InspectFrames for DamagedFrames<'_> {
    fn references(&self, first: Pfn) -> Option<u64> {
        InspectFrames::references(self.frames, first)
    }

    fn outstanding(&self) -> Option<u64> {
        InspectFrames::outstanding(self.frames)
    }
}

/// The device's altmap.
#[derive(Debug)]
pub(crate) struct DamagedAltmap<'m> {
    pub(crate) altmap: DeviceAltmap<&'m SimMemory>,
    pub(crate) damage: Damage,
}

// SAFETY: kept by the altmap behind it, except for what is damaged on purpose.
unsafe impl FrameAllocator for DamagedAltmap<'_> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let block = self.altmap.allocate(order, node);
        match self.damage {
            Damage::HandsOutItsCounts => {
                block.or(Ok(Block::single(self.altmap.reserved().start())))
            }
            _ => block,
        }
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        self.altmap.allocate_run(at_most, node)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.acquire(first, references) }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        if self.damage == Damage::KeepsItsFrames {
            return Released::Shared;
        }
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        if self.damage == Damage::KeepsItsFrames {
            return 0;
        }
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.release_run(run) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: the caller's duty is the same.
        unsafe { self.altmap.free(block) };
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { self.altmap.keep(block) }
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { self.altmap.split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.altmap.node_of(frame)
    }
}

// SAFETY: as above.
unsafe impl Altmap for DamagedAltmap<'_> {
    fn reserved(&self) -> PfnRange {
        self.altmap.reserved()
    }

    fn contains(&self, frame: Pfn) -> bool {
        self.damage != Damage::DisownsItsFrames && self.altmap.contains(frame)
    }

    fn count_frames(&self) -> u64 {
        self.altmap.count_frames()
    }

    fn record(&self) -> &AltmapRecord {
        self.altmap.record()
    }
}

impl InspectFrames for DamagedAltmap<'_> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.altmap.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        InspectFrames::outstanding(&self.altmap)
    }
}
