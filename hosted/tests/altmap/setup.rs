//! Machines with devices, and what holds for them at each step.

use crate::watched::Watched;
use arch_sim::{SimFrames, SimMemory};
use hosted::{Backend, Machine, MachineConfig};
use mm_core::addr::{Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Altmap, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::{PageTable, Role, Visit};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// The vmemmap of a machine.
pub(crate) type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

pub(crate) fn range<B: Backend>(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, B::MODEL.granule()).unwrap()
}

pub(crate) fn pagemap<B: Backend>(ranges: &[PfnRange], align: u64, tails: Tails) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, B::MODEL.granule()).unwrap();
    DevPagemap::new(&B::MODEL, ranges, geometry)
        .unwrap()
        .with_tails(tails)
}

/// A machine that has contents in the reserved parts.
pub(crate) fn machine<B: Backend>(reserved: &[PfnRange]) -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![range::<B>(0, 1 << 40)],
        backed: reserved.to_vec(),
        ..MachineConfig::default()
    })
    .unwrap()
}

pub(crate) fn vmemmap<B: Backend>(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

/// Recounts, and sees to it that every frame that holds descriptors of `of` came from where it
/// should.
pub(crate) fn audit<B: Backend>(
    vmemmap: &Array<'_>,
    table: &B::Table<'_>,
    machine: &Machine<B>,
    altmaps: &[&Watched<'_>],
) -> AuditReport {
    let mut allocators: Vec<&dyn InspectFrames> = vec![machine.frames()];
    allocators.extend(altmaps.iter().map(|one| &one.altmap as &dyn InspectFrames));
    let mut scratch = vec![AuditSlot::default(); 1 << 17];
    let report = vmemmap.audit(table, &allocators, &mut scratch).unwrap();
    let in_altmaps: u64 = altmaps.iter().map(|one| one.altmap.in_use()).sum();
    assert_eq!(report.frames(), machine.frames().outstanding() + in_altmaps);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    report
}

pub(crate) fn assert_nothing_is_out<B: Backend>(
    vmemmap: &Array<'_>,
    table: &B::Table<'_>,
    machine: &Machine<B>,
    altmap: &Watched<'_>,
) {
    assert_eq!(
        audit(vmemmap, table, machine, &[altmap]),
        AuditReport::default()
    );
    assert_eq!(altmap.undescribed(), Some(altmap.reserved()));
}

/// The frames that the vmemmap of `frames` is mapped to.
pub(crate) fn holders_of<P: PageTable, B: Backend>(
    table: &P,
    frames: PfnRange,
) -> HashSet<(Pfn, Role)> {
    let mut found = HashSet::new();
    let _ = table.visit(B::MODEL.descriptors(frames).unwrap(), &mut |visit| {
        if let Visit::Leaves { run, .. } = visit {
            for block in (0..run.count).filter_map(|index| run.block(index)) {
                found.insert((block.first(), run.leaf.role));
            }
        }
        ControlFlow::Continue(())
    });
    found
}
