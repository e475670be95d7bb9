//! One read-only tail frame for all compound pages of an order and node.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use hosted::{AArch64_4K, Backend, Machine, MachineConfig, Sim, X86_64, X86_64La57};
use mm_core::addr::{NodeId, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page, Pointer};
use mm_core::frame::InspectFrames;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::{PageTable, Role};
use mm_core::vmemmap::{AuditReport, AuditSlot, Note, OnlineError, Vmemmap};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn range<B: Backend>(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, B::MODEL.granule()).unwrap()
}

fn pagemap<B: Backend>(ranges: &[PfnRange], align: u64) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, B::MODEL.granule()).unwrap();
    DevPagemap::new(&B::MODEL, ranges, geometry)
        .unwrap()
        .with_tails(Tails::PerOrder)
}

fn machine<B: Backend>() -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![range::<B>(0, 1 << 40)],
        ..MachineConfig::default()
    })
    .unwrap()
}

macro_rules! vmemmap {
    ($machine:expr, $page:ty) => {{
        let machine = &$machine;
        // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
        unsafe { Vmemmap::<$page, _, _>::new(B::MODEL, machine.frames(), machine.memory()) }
            .unwrap()
    }};
}

fn audit<B: Backend, P: PageTable>(
    vmemmap: &Vmemmap<Page<Mask>, &arch_sim::SimFrames, &arch_sim::SimMemory>,
    table: &P,
    machine: &Machine<B>,
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    vmemmap
        .audit(table, &[machine.frames()], &mut scratch)
        .unwrap()
}

fn costs_one_frame_for_all_tails<B: Backend>() {
    for (align, bytes, heads) in [(GIB, GIB, 1), (GIB, 4 * GIB, 4), (2 * MIB, GIB, 512)] {
        for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
            let machine = machine::<B>();
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap!(machine, Page<Mask>);
            let ranges = [range::<B>(24 * GIB, bytes)];
            let pagemap = pagemap::<B>(&ranges, align).with_piece(piece);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            assert!(region.notes().is_empty());
            let report = audit(&vmemmap, &table, &machine);
            assert_eq!(report.descriptor_frames, heads + 1);
            if B::HAS_TABLES {
                assert_eq!(report.leaf_tables, 8 * bytes / GIB);
            }
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0);
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

fn outlives_each_region_but_the_last<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap!(machine, Page<Mask>);
    let (first, second) = ([range::<B>(0, GIB)], [range::<B>(8 * GIB, GIB)]);
    let tail_of = |table: &B::Table<'_>, ranges: &[PfnRange]| {
        let at = B::MODEL.descriptor_address(ranges[0].last()).unwrap();
        table.lookup(at).unwrap().leaf
    };
    let one = vmemmap
        .online(&mut table, &pagemap::<B>(&first, GIB))
        .unwrap();
    let tail = tail_of(&table, &first);
    assert_eq!((tail.role, tail.writable), (Role::Tail, false));
    let other = vmemmap
        .online(&mut table, &pagemap::<B>(&second, GIB))
        .unwrap();
    assert_eq!(tail_of(&table, &second), tail);
    let frame = tail.block.first();
    assert_eq!(machine.frames().references(frame), Some(2 * 4095));

    vmemmap.offline(&mut table, one);
    assert_eq!(machine.frames().references(frame), Some(4095));
    audit(&vmemmap, &table, &machine);
    vmemmap.offline(&mut table, other);
    assert_eq!(machine.frames().references(frame), Some(0));
    assert_eq!(machine.frames().outstanding(), 0);

    // Nothing remembers the dead frame.
    let again = vmemmap
        .online(&mut table, &pagemap::<B>(&first, GIB))
        .unwrap();
    audit(&vmemmap, &table, &machine);
    vmemmap.offline(&mut table, again);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

fn differs_by_order_and_by_node<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap!(machine, Page<Mask>);
    let ranges = [
        [range::<B>(0, GIB)],
        [range::<B>(GIB, GIB)],
        [range::<B>(2 * GIB, GIB)],
    ];
    let maps = [
        pagemap::<B>(&ranges[0], GIB),
        pagemap::<B>(&ranges[1], 2 * MIB),
        pagemap::<B>(&ranges[2], GIB).with_node(NodeId::new(1)),
    ];
    let regions = maps.map(|pagemap| vmemmap.online(&mut table, &pagemap).unwrap());
    assert_eq!(
        audit(&vmemmap, &table, &machine).descriptor_frames,
        2 + 513 + 2
    );
    for (range, align) in ranges.iter().zip([GIB, 2 * MIB, GIB]) {
        let frame = range[0].start().saturating_add(200_001);
        let order = Geometry::from_bytes(align, B::MODEL.granule())
            .unwrap()
            .order();
        assert_eq!(
            vmemmap.head_of(&table, frame),
            Some(frame.align_down(order))
        );
    }
    for region in regions {
        vmemmap.offline(&mut table, region);
    }
    assert_eq!(machine.frames().outstanding(), 0);
}

fn every_failed_allocation_leaves_everything_as_it_was<B: Backend>() {
    let ranges = [range::<B>(24 * GIB, GIB)];
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap!(machine, Page<Mask>);
    let pagemap = pagemap::<B>(&ranges, GIB);
    let mut failures = 0;
    let region = loop {
        machine.frames().fail_after(failures);
        match vmemmap.online(&mut table, &pagemap) {
            Ok(region) => break region,
            Err(OnlineError::OutOfFrames(_)) => failures += 1,
            Err(other) => panic!("{other}"),
        }
        machine.frames().no_more_faults();
        assert_eq!(machine.frames().outstanding(), 0);
        assert_eq!(audit(&vmemmap, &table, &machine), AuditReport::default());
    };
    assert_eq!(failures, machine.frames().outstanding());
    machine.frames().no_more_faults();
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

fn needs_tails_that_are_alike<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap!(machine, Page<Pointer>);
    let ranges = [range::<B>(0, GIB)];
    let refused = vmemmap.online(&mut table, &pagemap::<B>(&ranges, GIB));
    assert_eq!(refused.err(), Some(OnlineError::TailsDiffer));
    assert_eq!(machine.frames().outstanding(), 0);
}

fn saves_one_of_two_vmemmap_pages<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap!(machine, Page<Mask>);
    let ranges = [range::<B>(0, 2 * MIB)];
    let region = vmemmap
        .online(&mut table, &pagemap::<B>(&ranges, MIB / 2))
        .unwrap();
    assert_eq!(region.notes().iter().collect::<Vec<Note>>(), []);
    assert_eq!(audit(&vmemmap, &table, &machine).descriptor_frames, 4 + 1);
    vmemmap.offline(&mut table, region);
}

macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        mod shared_tail {
            use super::{AArch64_4K, Sim, X86_64, X86_64La57};
            $(#[test]
            fn $test() {
                super::$test::<Sim>();
                super::$test::<X86_64>();
                super::$test::<X86_64La57>();
                super::$test::<AArch64_4K>();
            })*
        }
    };
}

on_each_backend!(
    costs_one_frame_for_all_tails,
    outlives_each_region_but_the_last,
    differs_by_order_and_by_node,
    every_failed_allocation_leaves_everything_as_it_was,
    needs_tails_that_are_alike,
    saves_one_of_two_vmemmap_pages,
);
