//! One leaf table for all the places where nothing but the same tail frame is mapped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{Backend, Machine, MachineConfig, RadixBackend, Sim, SimCpus, X86_64, X86_64La57};
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, TablesFallback, Tails};
use mm_core::vmemmap::{AuditReport, AuditSlot, Note, OfflineError, Vmemmap};
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

fn range<B: Backend>(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, B::MODEL.granule()).unwrap()
}

fn pagemap<B: Backend>(ranges: &[PfnRange], align: u64, tails: Tails) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, B::MODEL.granule()).unwrap();
    DevPagemap::new(&B::MODEL, ranges, geometry)
        .unwrap()
        .with_tails(tails)
        .with_tables(Tables::Shared)
}

fn machine<B: Backend>() -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![range::<B>(0, 1 << 40)],
        ..MachineConfig::default()
    })
    .unwrap()
}

fn vmemmap<B: Backend>(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

fn audit<B: Backend>(
    vmemmap: &Array<'_>,
    table: &B::Table<'_>,
    machine: &Machine<B>,
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 14];
    let report = vmemmap.audit(table, &[machine.frames()], &mut scratch);
    // A little scratch memory gives the same answer in more walks.
    let few = vmemmap.audit(table, &[machine.frames()], &mut scratch[..300]);
    assert_eq!(report, few);
    report.unwrap()
}

/// The frame that each vmemmap page of `frames` is mapped to, as the byte-level reader sees it.
fn frames_behind<B: Backend>(machine: &Machine<B>, frames: PfnRange) -> BTreeMap<u64, u64> {
    let range = B::MODEL.descriptors(frames).unwrap();
    (0..range.pages(B::MODEL.granule()))
        .filter_map(|page| {
            let at = range.start().checked_add(page * PAGE).unwrap();
            let leaf = B::translate(machine, at)?;
            Some((at.get(), leaf.address(at, B::MODEL.granule()).get()))
        })
        .collect()
}

fn fill_cpus<B: RadixBackend>(machine: &Machine<B>, frames: PfnRange) {
    for cpu in machine.cpus().all() {
        cpu.fill(B::MODEL.descriptors(frames).unwrap());
    }
}

fn costs_what_the_design_says<B: RadixBackend>() {
    let cases = [
        // (align, tails, GiB) -> (descriptor frames, leaf tables)
        (GIB, Tails::PerCompound, 1, 2, 2),
        (GIB, Tails::PerOrder, 1, 2, 2),
        (GIB, Tails::PerCompound, 40, 80, 80),
        (GIB, Tails::PerOrder, 40, 41, 41),
        (2 * MIB, Tails::PerCompound, 1, 1024, 8),
        (2 * MIB, Tails::PerOrder, 1, 513, 8),
        (256 * MIB, Tails::PerOrder, 1, 5, 5),
        (256 * MIB, Tails::PerCompound, 1, 8, 8),
        (128 * MIB, Tails::PerOrder, 1, 9, 8),
    ];
    for (align, tails, gib, descriptors, leaf_tables) in cases {
        for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
            let machine = machine::<B>();
            for cpu in machine.cpus().all() {
                cpu.watch(machine.frames());
            }
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap(&machine);
            let ranges = [range::<B>(24 * GIB, gib * GIB)];
            let pagemap = pagemap::<B>(&ranges, align, tails).with_piece(piece);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            let report = audit::<B>(&vmemmap, &table, &machine);
            let context = format!("{align:#x} {tails:?} {gib} GiB {piece:?}");
            assert_eq!(report.descriptor_frames, descriptors, "{context}");
            assert_eq!(report.leaf_tables, leaf_tables, "{context}");
            assert_eq!(report.mapped_pages, gib * 4096, "{context}");
            let order = pagemap.geometry().order();
            let used = if align <= 128 * MIB {
                let fallback = TablesFallback::NoWholeTable { order };
                assert_eq!(region.notes().iter().next(), Some(Note::Tables(fallback)));
                Tables::Private
            } else {
                assert!(region.notes().is_empty(), "{context}");
                Tables::Shared
            };
            assert_eq!(region.tables(), used);

            // Every page is there, and tails are where they belong.
            let behind = frames_behind(&machine, ranges[0]);
            assert_eq!(behind.len() as u64, gib * 4096);
            fill_cpus(&machine, ranges[0]);
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0, "{context}");
            assert!(frames_behind(&machine, ranges[0]).is_empty());
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

/// Pieces of a compound page go offline one by one, in the order that `step` makes, and come back.
fn a_part_of_a_shared_table_gets_a_copy<B: RadixBackend>() {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for step in [1, 37, 301] {
            let machine = machine::<B>();
            for cpu in machine.cpus().all() {
                cpu.watch(machine.frames());
            }
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap(&machine);
            let ranges = [range::<B>(24 * GIB, 2 * GIB)];
            let pagemap = pagemap::<B>(&ranges, GIB, tails);
            let region = vmemmap.online(&mut table, &pagemap).unwrap();
            let before = audit::<B>(&vmemmap, &table, &machine);
            let mut model = frames_behind(&machine, ranges[0]);
            let subsection = |index: u64| {
                let start = ranges[0].start().saturating_add(index * 512);
                PfnRange::new(start, 512).unwrap()
            };
            let gone: Vec<u64> = (0..20).map(|turn| 130 + turn * step % 512).collect();
            for index in &gone {
                fill_cpus(&machine, ranges[0]);
                let piece = subsection(*index);
                vmemmap.depopulate(&mut table, &pagemap, piece).unwrap();
                let addresses = B::MODEL.descriptors(piece).unwrap();
                model.retain(|at, _| {
                    !(addresses.start().get()..=addresses.last().get()).contains(at)
                });
                assert_eq!(frames_behind(&machine, ranges[0]), model);
                audit::<B>(&vmemmap, &table, &machine);
                assert_eq!(
                    vmemmap
                        .depopulate(&mut table, &pagemap, piece)
                        .map_err(|error| error.kind().name()),
                    Err("not-online")
                );
            }
            for index in &gone {
                let piece = subsection(*index);
                vmemmap.populate(&mut table, &pagemap, piece).unwrap();
                audit::<B>(&vmemmap, &table, &machine);
            }
            let after = audit::<B>(&vmemmap, &table, &machine);
            assert_eq!(after.descriptor_frames, before.descriptor_frames);
            assert!(after.leaf_tables > before.leaf_tables);
            for frame in [0, 300_000, 524_287].map(|at| ranges[0].start().saturating_add(at)) {
                let head = frame.align_down(Order::new(18).unwrap());
                assert_eq!(vmemmap.head_of(&table, frame), Some(head));
            }
            fill_cpus(&machine, ranges[0]);
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0);
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

fn a_copy_that_fails_changes_nothing<B: RadixBackend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges = [range::<B>(24 * GIB, GIB)];
    let pagemap = pagemap::<B>(&ranges, GIB, Tails::PerOrder);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let before = (
        audit::<B>(&vmemmap, &table, &machine),
        frames_behind(&machine, ranges[0]),
    );
    // Half of one section, all of the next, half of the one behind it: two copies.
    let start = ranges[0].start().saturating_add((2 << 15) + (1 << 14));
    let piece = PfnRange::new(start, 2 << 15).unwrap();
    for failures in 0..2 {
        machine.frames().fail_after(failures);
        let refused = vmemmap.depopulate(&mut table, &pagemap, piece);
        machine.frames().no_more_faults();
        assert!(
            matches!(refused, Err(OfflineError::OutOfFrames(_))),
            "{refused:?}"
        );
        let now = (
            audit::<B>(&vmemmap, &table, &machine),
            frames_behind(&machine, ranges[0]),
        );
        assert!(now == before);
    }
    machine.frames().fail_after(2);
    vmemmap.depopulate(&mut table, &pagemap, piece).unwrap();
    audit::<B>(&vmemmap, &table, &machine);
    // What is left goes without any memory.
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

fn every_failed_allocation_leaves_everything_as_it_was<B: RadixBackend>() {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
            let machine = machine::<B>();
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap(&machine);
            let ranges = [range::<B>(24 * GIB, 2 * GIB)];
            let pagemap = pagemap::<B>(&ranges, GIB, tails).with_piece(piece);
            let mut failures = 0;
            let region = loop {
                machine.frames().fail_after(failures);
                match vmemmap.online(&mut table, &pagemap) {
                    Ok(region) => break region,
                    Err(error) => assert_eq!(error.kind().name(), "out-of-frames"),
                }
                machine.frames().no_more_faults();
                failures += 1;
                assert_eq!(machine.frames().outstanding(), 0);
                assert_eq!(
                    audit::<B>(&vmemmap, &table, &machine),
                    AuditReport::default()
                );
            };
            machine.frames().no_more_faults();
            audit::<B>(&vmemmap, &table, &machine);
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0);
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

macro_rules! on_both_formats {
    ($($test:ident),* $(,)?) => {
        mod shared_table {
            use super::{X86_64, X86_64La57};
            $(#[test]
            fn $test() {
                super::$test::<X86_64>();
                super::$test::<X86_64La57>();
            })*
        }
    };
}

on_both_formats!(
    costs_what_the_design_says,
    a_part_of_a_shared_table_gets_a_copy,
    a_copy_that_fails_changes_nothing,
    every_failed_allocation_leaves_everything_as_it_was,
);

#[test]
fn a_page_table_without_tables_says_so() {
    let machine = machine::<Sim>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges = [range::<Sim>(24 * GIB, GIB)];
    let pagemap = pagemap::<Sim>(&ranges, GIB, Tails::PerOrder);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let notes: Vec<Note> = region.notes().iter().collect();
    assert_eq!(notes, [Note::Tables(TablesFallback::NotSupported)]);
    assert_eq!(region.tables(), Tables::Private);
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
}
