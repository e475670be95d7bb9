//! The reserved part of a device, as an altmap.

use crate::failure::Failure;
use crate::refusal;
use crate::size::ByteRange;
use arch_sim::SimMemory;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, AltmapRecord, DeviceAltmap, FrameAllocator, OutOfFrames, OwnedBlock, Released,
};
use mm_core::model::MemoryModel;

/// An altmap on a simulated machine.
pub type Altmap = DeviceAltmap<SimMemory>;

/// How many bytes are reserved, for a report.
pub fn reserved_bytes(reserved: Option<PfnRange>, model: &MemoryModel) -> Option<u64> {
    let reserved = ByteRange::of(reserved?, model.granule());
    Some(reserved.size)
}

/// How many frames of `altmap` are used: those that are out, and those that count them.
pub fn used(altmap: &Altmap) -> u64 {
    match altmap.in_use() {
        0 => 0,
        out => out + mm_core::frame::Altmap::count_frames(altmap),
    }
}

/// An altmap to plan with: without memory, so that nothing can be taken from it.
#[derive(Debug)]
pub struct PlannedAltmap {
    reserved: PfnRange,
    count_frames: u64,
    node: NodeId,
    record: AltmapRecord,
}

impl PlannedAltmap {
    /// An altmap over `reserved`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] where the library would make no such altmap.
    pub fn new(reserved: PfnRange, model: &MemoryModel, node: NodeId) -> Result<Self, Failure> {
        match DeviceAltmap::<SimMemory>::check(model, reserved) {
            Ok(count_frames) => Ok(Self {
                reserved,
                count_frames,
                node,
                record: AltmapRecord::new(),
            }),
            Err(error) => Err(refusal::of_altmap(error, model.granule())),
        }
    }
}

// SAFETY: 1 to 5: it hands out nothing.
unsafe impl FrameAllocator for PlannedAltmap {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        Err(OutOfFrames { order, node })
    }

    unsafe fn acquire(&self, frame: Pfn, _references: u64) -> Result<(), AcquireError> {
        Err(AcquireError { frame })
    }

    unsafe fn release(&self, _block: Block, _references: u64) -> Released {
        Released::Shared
    }

    unsafe fn free(&self, _block: OwnedBlock) {}

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        block.block()
    }

    unsafe fn split(&self, _block: Block) {}

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}

// SAFETY: 1: it hands out nothing. 2: the range is never changed. 3: nothing of it is ever in use,
// so the record is not either.
unsafe impl mm_core::frame::Altmap for PlannedAltmap {
    fn reserved(&self) -> PfnRange {
        self.reserved
    }

    fn count_frames(&self) -> u64 {
        self.count_frames
    }

    fn record(&self) -> &AltmapRecord {
        &self.record
    }
}

/// An altmap over `reserved`, frames of `memory`.
///
/// # Errors
///
/// A [`Failure`] where there is no such altmap.
///
/// # Safety
///
/// 1. The frames have contents in `memory` and are used by nobody else while the altmap or a
///    mapping of one of its frames is in use.
/// 2. The altmap is used by one vmemmap, with this memory.
pub unsafe fn on_machine(
    memory: &SimMemory,
    reserved: PfnRange,
    model: &MemoryModel,
    node: NodeId,
) -> Result<Altmap, Failure> {
    // SAFETY: 1 and 2: the caller's duty 1. 3: the caller's duty 2.
    let altmap = unsafe { Altmap::new(model, memory.clone(), reserved, node) };
    altmap.map_err(|error| refusal::of_altmap(error, model.granule()))
}
