//! What can be known at a time has a limit, since there is no heap: beyond it there is an error, and
//! nothing has changed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, DeviceAltmap, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::vmemmap::{AuditReport, AuditSlot, FoldError, OnlineError, Vmemmap};

type B = X86_64;
type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

/// Compound pages of 2 MiB from 4 GiB on.
fn memory(first: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new((2048 + first) * 512).unwrap(), count * 512).unwrap()
}

fn small() -> Geometry {
    Geometry::compound(Order::new(9).unwrap())
}

fn machine() -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![memory(0, 256)],
        backed: vec![memory(0, 256)],
        ..MachineConfig::default()
    })
    .unwrap()
}

fn vmemmap(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

fn audit(
    vmemmap: &Array<'_>,
    table: &<B as Backend>::Table<'_>,
    allocators: &[&dyn InspectFrames],
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 12];
    vmemmap.audit(table, allocators, &mut scratch).unwrap()
}

#[test]
fn one_shared_tail_too_many_is_refused_until_another_goes() {
    let machine = machine();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges: Vec<[PfnRange; 1]> = (0..128).map(|index| [memory(index, 1)]).collect();
    let of_node = |node: usize| {
        let pagemap = DevPagemap::new(&B::MODEL, &ranges[node], small()).unwrap();
        let pagemap = pagemap.with_node(NodeId::new(node as u32));
        pagemap.with_tails(Tails::PerOrder)
    };
    let mut regions = Vec::new();
    let (node, capacity) = loop {
        let node = regions.len();
        match vmemmap.online(&mut table, &of_node(node)) {
            Ok(region) => regions.push(region),
            Err(OnlineError::TooManySharedTails { capacity }) => break (node, capacity),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(node, capacity);
    assert!(capacity >= 16);
    let full = audit(&vmemmap, &table, &[machine.frames()]);
    assert_eq!(full.descriptor_frames, 2 * capacity as u64);

    // Folding asks for the same.
    let base = DevPagemap::new(&B::MODEL, &ranges[node], Geometry::BASE_PAGES).unwrap();
    let unfolded = vmemmap.online(&mut table, &base).unwrap();
    let before = audit(&vmemmap, &table, &[machine.frames()]);
    let refused = vmemmap.fold(&mut table, &of_node(node), ranges[node][0]);
    let refused = refused.unwrap_err();
    assert_eq!(refused, FoldError::TooManySharedTails { capacity });
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(audit(&vmemmap, &table, &[machine.frames()]), before);
    vmemmap.offline(&mut table, unfolded);
    assert_eq!(audit(&vmemmap, &table, &[machine.frames()]), full);

    vmemmap.offline(&mut table, regions.swap_remove(3));
    regions.push(vmemmap.online(&mut table, &of_node(node)).unwrap());
    for region in regions {
        vmemmap.offline(&mut table, region);
    }
    assert_eq!(
        audit(&vmemmap, &table, &[machine.frames()]),
        AuditReport::default()
    );
}

#[test]
fn one_altmap_too_many_is_refused_until_another_goes() {
    let machine = machine();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges: Vec<[PfnRange; 1]> = (0..64).map(|index| [memory(4 * index, 4)]).collect();
    let altmap = |range: &[PfnRange; 1]| {
        let reserved = range[0].take_first(512).0;
        let (memory, node) = (machine.memory(), NodeId::new(0));
        // SAFETY: 1: memory of the machine that nobody else uses. 2: the machine has it. 3 and 4:
        // one vmemmap, one thread.
        unsafe { DeviceAltmap::<Page<Mask>, _>::new(&B::MODEL, memory, reserved, node) }.unwrap()
    };
    let altmaps: Vec<_> = ranges.iter().map(altmap).collect();
    let pagemap = |index: usize| {
        let pagemap = DevPagemap::new(&B::MODEL, &ranges[index], small()).unwrap();
        pagemap.with_altmap(&altmaps[index]).unwrap()
    };
    let mut allocators: Vec<&dyn InspectFrames> = vec![machine.frames()];
    allocators.extend(altmaps.iter().map(|one| one as &dyn InspectFrames));

    let mut regions = Vec::new();
    let (index, capacity) = loop {
        let index = regions.len();
        match vmemmap.online(&mut table, &pagemap(index)) {
            Ok(region) => regions.push(region),
            Err(OnlineError::TooManyAltmaps { capacity }) => break (index, capacity),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(index, capacity);
    assert!(capacity >= 16);
    let out = machine.frames().outstanding();
    let refused = vmemmap.populate(&mut table, &pagemap(index), altmaps[index].reserved());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(machine.frames().outstanding(), out);
    assert_eq!(altmaps[index].in_use(), 0);
    audit(&vmemmap, &table, &allocators);

    vmemmap.offline(&mut table, regions.swap_remove(5));
    regions.push(vmemmap.online(&mut table, &pagemap(index)).unwrap());
    audit(&vmemmap, &table, &allocators);
    for region in regions {
        vmemmap.offline(&mut table, region);
    }
    assert_eq!(audit(&vmemmap, &table, &allocators), AuditReport::default());
}
