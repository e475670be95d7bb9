//! The reserved part of a device, as an altmap.

use crate::failure::Failure;
use crate::refusal;
use crate::size::ByteRange;
use arch_sim::SimMemory;
use mm_core::addr::{NodeId, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::DeviceAltmap;
use mm_core::model::MemoryModel;

/// An altmap on a simulated machine.
pub type Altmap = DeviceAltmap<Page<Mask>, SimMemory>;

/// How many bytes are reserved, for a report.
pub fn reserved_bytes(reserved: Option<PfnRange>, model: &MemoryModel) -> Option<u64> {
    let reserved = ByteRange::of(reserved?, model.granule());
    Some(reserved.size)
}

/// An altmap over `reserved` to plan with: without memory, so that nothing can be taken from it.
///
/// # Errors
///
/// A [`Failure`] where there is no such altmap.
pub fn planned(reserved: PfnRange, model: &MemoryModel, node: NodeId) -> Result<Altmap, Failure> {
    let nothing = SimMemory::new(model.granule(), &[]).map_err(Failure::host)?;
    // SAFETY: 1 to 4: nobody brings the reserved part online by this value, so its frames are never
    // used.
    let altmap = unsafe { Altmap::new(model, nothing, reserved, node) };
    altmap.map_err(|error| refusal::of_altmap(error, model.granule()))
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
/// 2. The altmap is used by one vmemmap of `model`, with this memory, in one thread.
pub unsafe fn on_machine(
    memory: &SimMemory,
    reserved: PfnRange,
    model: &MemoryModel,
    node: NodeId,
) -> Result<Altmap, Failure> {
    // SAFETY: 1 and 2: the caller's duty 1. 3 and 4: the caller's duty 2.
    let altmap = unsafe { Altmap::new(model, memory.clone(), reserved, node) };
    altmap.map_err(|error| refusal::of_altmap(error, model.granule()))
}
