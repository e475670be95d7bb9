//! Each operation as a function of its own, whose size `cargo xtask size` reads.
//!
//! What a kernel brings are functions that are nowhere, so none of it counts: its allocator, and its
//! way of panicking. The page table is the one of the architecture that this is compiled for.
#![no_std]

mod brought;

use brought::Frames;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::Page;
use mm_core::frame::{InspectFrames, LinearMap};
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{
    AuditReport, AuditSlot, Finding, FoldError, Folded, MarkError, NodeStats, Notes, OfflineError,
    Offlined, OnlineError, Region, ReorderStopped, Reordered, Reserve,
};

#[cfg(target_arch = "aarch64")]
type Table = arch_aarch64::Table4K<
    Frames,
    LinearMap,
    arch_aarch64::Tlb<arch_aarch64::Format4K, arch_aarch64::Cpu>,
>;

#[cfg(target_arch = "x86_64")]
type Table = arch_x86_64::FourLevelTable<
    Frames,
    LinearMap,
    arch_x86_64::Tlb<arch_x86_64::Cpu, arch_x86_64::SingleCpu>,
>;

type Vmemmap = mm_core::vmemmap::Vmemmap<Page, Frames, LinearMap>;

// SAFETY, of all names: nothing else that this is linked with has them.

#[unsafe(export_name = "footprint_online")]
pub fn online<'p>(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'p>,
) -> Result<Region<'p>, OnlineError> {
    vmemmap.online(table, pagemap)
}

#[unsafe(export_name = "footprint_offline")]
pub fn offline(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    region: Region<'_>,
) -> Result<Offlined, OfflineError> {
    vmemmap.offline(table, region)
}

#[unsafe(export_name = "footprint_populate")]
pub fn populate(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'_>,
    piece: PfnRange,
) -> Result<Notes, OnlineError> {
    vmemmap.populate(table, pagemap, piece)
}

#[unsafe(export_name = "footprint_depopulate")]
pub fn depopulate(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'_>,
    piece: PfnRange,
) -> Result<Offlined, OfflineError> {
    vmemmap.depopulate(table, pagemap, piece)
}

#[unsafe(export_name = "footprint_fold")]
pub fn fold(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Result<Folded, FoldError> {
    vmemmap.fold(table, pagemap, frames)
}

#[unsafe(export_name = "footprint_unfold")]
pub fn unfold(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Result<Folded, FoldError> {
    vmemmap.unfold(table, pagemap, frames)
}

#[unsafe(export_name = "footprint_reshape")]
pub fn reshape(
    vmemmap: &mut Vmemmap,
    table: &Table,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Result<(), FoldError> {
    vmemmap.reshape(table, pagemap, frames)
}

#[unsafe(export_name = "footprint_mark")]
pub fn mark(
    vmemmap: &mut Vmemmap,
    table: &Table,
    frame: Pfn,
    node: NodeId,
) -> Result<bool, MarkError> {
    vmemmap.mark(table, frame, node)
}

#[unsafe(export_name = "footprint_unmark")]
pub fn unmark(vmemmap: &mut Vmemmap, frame: Pfn) -> bool {
    vmemmap.unmark(frame)
}

#[unsafe(export_name = "footprint_stats")]
pub fn stats(vmemmap: &Vmemmap) -> NodeStats {
    vmemmap.stats()
}

#[unsafe(export_name = "footprint_audit")]
pub fn audit(
    vmemmap: &Vmemmap,
    table: &Table,
    allocators: &[&dyn InspectFrames],
    scratch: &mut [AuditSlot],
) -> Result<AuditReport, Finding> {
    vmemmap.audit(table, allocators, scratch)
}

#[unsafe(export_name = "footprint_reorder")]
pub fn reorder(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Result<Reordered, ReorderStopped> {
    vmemmap.reorder(table, pagemap, frames)
}

#[unsafe(export_name = "footprint_reserve_needed")]
pub fn reserve_needed(
    vmemmap: &Vmemmap,
    table: &Table,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
    largest: Order,
) -> Reserve {
    vmemmap.reserve_needed(table, pagemap, frames, largest)
}

#[unsafe(export_name = "footprint_fill_reserve")]
pub fn fill_reserve(
    vmemmap: &mut Vmemmap,
    table: &mut Table,
    node: NodeId,
    wanted: Reserve,
) -> Result<Notes, FoldError> {
    vmemmap.fill_reserve(table, node, wanted)
}

#[unsafe(export_name = "footprint_empty_reserve")]
pub fn empty_reserve(vmemmap: &mut Vmemmap, table: &mut Table) {
    vmemmap.empty_reserve(table);
}
