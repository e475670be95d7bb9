//! Fold with shared leaf tables: folded memory costs what it would if it had come online so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{
    AArch64_4K, AArch64_16K, Machine, MachineConfig, RadixBackend, X86_64, X86_64La57, watch,
};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

/// The smallest compound pages whose tails fill a leaf table, and more.
fn order<B: RadixBackend>() -> Order {
    let table = B::MODEL.granule().entries_per_table() as u64;
    let describes = 4 * table * B::MODEL.descriptors_per_page();
    Order::new(describes.trailing_zeros() as u8).unwrap()
}

fn range<B: RadixBackend>(count: u64) -> PfnRange {
    let frames = order::<B>().frames();
    PfnRange::new(Pfn::new(8 * frames).unwrap(), count * frames).unwrap()
}

fn machine<B: RadixBackend>(device: PfnRange) -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![device],
        ..MachineConfig::default()
    })
    .unwrap()
}

fn vmemmap<B: RadixBackend>(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

fn audit<B: RadixBackend>(
    vmemmap: &Array<'_>,
    table: &B::Table<'_>,
    machine: &Machine<B>,
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 17];
    let report = vmemmap.audit(table, &[machine.frames()], &mut scratch);
    let report = report.unwrap();
    assert_eq!(report.frames(), machine.frames().outstanding());
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    report
}

/// What it costs to bring `pagemap` online.
fn cost_online<B: RadixBackend>(pagemap: &DevPagemap<'_>) -> AuditReport {
    let machine = machine::<B>(pagemap.ranges()[0]);
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let region = vmemmap.online(&mut table, pagemap).unwrap();
    let report = audit(&vmemmap, &table, &machine);
    vmemmap.offline(&mut table, region);
    report
}

fn folded_memory_costs_what_it_would_if_it_had_come_online_so<B: RadixBackend>() {
    let ranges = [range::<B>(3)];
    let base = DevPagemap::new(&B::MODEL, &ranges, Geometry::BASE_PAGES)
        .unwrap()
        .with_piece(Piece::Range);
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let compound = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order::<B>()));
        let compound = compound
            .unwrap()
            .with_tails(tails)
            .with_tables(Tables::Shared);
        let expected = cost_online::<B>(&compound);
        let private = cost_online::<B>(&compound.with_tables(Tables::Private));
        assert!(expected.leaf_tables < private.leaf_tables);
        for huge_leaves in [true, false] {
            let base = base.with_huge_leaves(huge_leaves);
            let compound = compound.with_huge_leaves(huge_leaves);
            let machine = machine::<B>(ranges[0]);
            watch(&machine, B::MODEL.descriptors(ranges[0]).unwrap());
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap(&machine);
            let region = vmemmap.online(&mut table, &base).unwrap();
            let before = audit(&vmemmap, &table, &machine);

            // One compound page, then all: what is shared already is found again.
            let first = ranges[0].take_first(order::<B>().frames()).0;
            for frames in [first, ranges[0]] {
                let folded = vmemmap.fold(&mut table, &compound, frames).unwrap();
                assert!(folded.changed > 0);
                audit(&vmemmap, &table, &machine);
            }
            assert_eq!(audit(&vmemmap, &table, &machine), expected, "{tails:?}");
            let again = vmemmap.fold(&mut table, &compound, ranges[0]).unwrap();
            assert_eq!((again.changed, again.flushes), (0, 0));

            let unfolded = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
            assert_eq!(unfolded.changed, 3);
            assert_eq!(audit(&vmemmap, &table, &machine), before, "{tails:?}");
            vmemmap.offline(&mut table, region);
            assert_eq!(audit(&vmemmap, &table, &machine), AuditReport::default());
        }
    }
}

fn private_tables_of_folded_memory_become_one<B: RadixBackend>() {
    let ranges = [range::<B>(2)];
    let private = DevPagemap::new(&B::MODEL, &ranges, Geometry::compound(order::<B>()));
    let private = private.unwrap();
    let shared = private.with_tables(Tables::Shared);
    let machine = machine::<B>(ranges[0]);
    watch(&machine, B::MODEL.descriptors(ranges[0]).unwrap());
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let region = vmemmap.online(&mut table, &private).unwrap();
    let folded = vmemmap.fold(&mut table, &shared, ranges[0]).unwrap();
    assert_eq!((folded.changed, folded.unchanged), (0, 2));
    assert!(folded.flushes > 0);
    assert_eq!(audit(&vmemmap, &table, &machine), cost_online::<B>(&shared));
    vmemmap.offline(&mut table, region);
    assert_eq!(audit(&vmemmap, &table, &machine), AuditReport::default());
}

macro_rules! on_each_backend {
    ($($backend:ident $module:ident),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn folded_memory_costs_what_it_would_if_it_had_come_online_so() {
                super::folded_memory_costs_what_it_would_if_it_had_come_online_so::<$backend>();
            }

            #[test]
            fn private_tables_of_folded_memory_become_one() {
                super::private_tables_of_folded_memory_become_one::<$backend>();
            }
        }
    )*};
}

on_each_backend!(X86_64 x86_64, X86_64La57 x86_64_la57, AArch64_4K aarch64_4k, AArch64_16K aarch64_16k);
