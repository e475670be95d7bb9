//! Frames of an altmap stay its own when a pagemap that does not have it meets them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Page, Pointer};
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, DeviceAltmap, InspectFrames};
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::vmemmap::{AuditReport, AuditSlot, FoldError, OfflineError, Vmemmap};

type Array<'m> = Vmemmap<Page<Pointer>, &'m SimFrames, &'m SimMemory>;
type OneAltmap<'m> = DeviceAltmap<Page<Pointer>, &'m SimMemory>;

/// Compound pages that are whole subsections and share tails on every model.
fn order<B: Backend>() -> Order {
    Order::new(B::MODEL.subsection().get() + 3).unwrap()
}

/// Compound pages of the device, from the one with the number `first` on.
fn compounds<B: Backend>(first: u64, count: u64) -> PfnRange {
    let unit = order::<B>().frames();
    PfnRange::new(Pfn::new((64 + first) * unit).unwrap(), count * unit).unwrap()
}

fn pagemap<B: Backend>(ranges: &[PfnRange]) -> DevPagemap<'_> {
    DevPagemap::new(&B::MODEL, ranges, Geometry::compound(order::<B>())).unwrap()
}

fn machine<B: Backend>() -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![compounds::<B>(0, 16)],
        backed: vec![compounds::<B>(0, 16)],
        ..MachineConfig::default()
    })
    .unwrap()
}

fn vmemmap<B: Backend>(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

/// An altmap over the first subsection of a compound page of the device.
fn altmap<B: Backend>(machine: &Machine<B>, compound: u64) -> OneAltmap<'_> {
    let frames = compounds::<B>(compound, 1);
    let reserved = frames.take_first(B::MODEL.subsection().frames()).0;
    // SAFETY: 1: memory of the machine that nobody else uses. 2: the machine has it. 3 and 4: one
    // vmemmap, one thread.
    unsafe { DeviceAltmap::new(&B::MODEL, machine.memory(), reserved, NodeId::new(0)) }.unwrap()
}

/// Recounts, and compares with what is out.
fn audit<B: Backend>(
    vmemmap: &Array<'_>,
    table: &B::Table<'_>,
    machine: &Machine<B>,
    altmaps: &[&OneAltmap<'_>],
) -> AuditReport {
    let mut allocators: Vec<&dyn InspectFrames> = vec![machine.frames()];
    allocators.extend(altmaps.iter().map(|one| *one as &dyn InspectFrames));
    let mut scratch = vec![AuditSlot::default(); 1 << 14];
    let report = vmemmap.audit(table, &allocators, &mut scratch).unwrap();
    let in_altmaps: u64 = altmaps.iter().map(|one| one.in_use()).sum();
    assert_eq!(vmemmap.stats(table).total().altmap_frames, in_altmaps);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    report
}

fn memory_of_an_altmap_is_refused_to_a_pagemap_without_it<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let own = altmap(&machine, 0);
    let other = altmap(&machine, 8);
    let ranges = [compounds::<B>(0, 4)];
    let with = pagemap::<B>(&ranges).with_altmap(&own).unwrap();
    let region = vmemmap.online(&mut table, &with).unwrap();
    let before = audit(&vmemmap, &table, &machine, &[&own]);
    assert!(own.in_use() > own.reserved().frames() / B::MODEL.descriptors_per_page());

    let elsewhere = [compounds::<B>(8, 2), compounds::<B>(0, 4)];
    let without = pagemap::<B>(&ranges);
    let with_other = pagemap::<B>(&elsewhere).with_altmap(&other).unwrap();
    let reserved = own.reserved();
    let frames = compounds::<B>(2, 1);
    for pagemap in [without, with_other] {
        let gone = vmemmap.depopulate(&mut table, &pagemap, frames);
        assert_eq!(gone, Err(OfflineError::OtherAltmap { reserved }));
        let refused = FoldError::OtherAltmap { reserved };
        let folded = vmemmap.fold(&mut table, &pagemap, frames);
        assert_eq!(folded, Err(refused));
        let unfolded = vmemmap.unfold(&mut table, &pagemap, frames);
        assert_eq!(unfolded, Err(refused));
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(audit(&vmemmap, &table, &machine, &[&own]), before);
    }
    vmemmap.depopulate(&mut table, &with, frames).unwrap();
    vmemmap.offline(&mut table, region);
    assert_eq!(
        audit(&vmemmap, &table, &machine, &[&own]),
        AuditReport::default()
    );
    assert_eq!((own.in_use(), machine.frames().outstanding()), (0, 0));
}

fn a_piece_of_ram_takes_no_tail_frame_of_an_altmap<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let own = altmap(&machine, 0);
    let ranges = [compounds::<B>(0, 4)];
    let with = pagemap::<B>(&ranges).with_altmap(&own).unwrap();
    let without = pagemap::<B>(&ranges);
    let unit = B::MODEL.subsection().frames();
    let (first, second) = compounds::<B>(2, 1).split_at(4 * unit);
    let (first, second) = (first.unwrap(), second.unwrap());
    vmemmap.populate(&mut table, &with, own.reserved()).unwrap();
    vmemmap.populate(&mut table, &with, first).unwrap();
    let in_altmap = own.in_use();
    let out = machine.frames().outstanding();
    vmemmap.populate(&mut table, &without, second).unwrap();
    assert_eq!(own.in_use(), in_altmap);
    assert_eq!(machine.frames().outstanding(), out + 1);
    audit(&vmemmap, &table, &machine, &[&own]);
    let frame = second.last();
    assert_eq!(
        vmemmap.head_of(&table, frame),
        Some(frame.align_down(order::<B>()))
    );

    // And the other way round.
    vmemmap.depopulate(&mut table, &with, first).unwrap();
    vmemmap.populate(&mut table, &with, first).unwrap();
    audit(&vmemmap, &table, &machine, &[&own]);
    vmemmap.depopulate(&mut table, &without, second).unwrap();
    vmemmap.depopulate(&mut table, &with, first).unwrap();
    vmemmap
        .depopulate(&mut table, &with, own.reserved())
        .unwrap();
    assert_eq!((own.in_use(), machine.frames().outstanding()), (0, 0));
}

fn memory_of_another_altmap_in_a_gap_stays_when_the_region_goes<B: Backend>(with_altmap: bool) {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let (own, other) = (altmap(&machine, 0), altmap(&machine, 8));
    let ranges = [compounds::<B>(0, 6), compounds::<B>(12, 2)];
    let around = pagemap::<B>(&ranges);
    let around = match with_altmap {
        true => around.with_altmap(&own).unwrap(),
        false => around,
    };
    let region = vmemmap.online(&mut table, &around).unwrap();
    let gap = compounds::<B>(3, 2);
    vmemmap.depopulate(&mut table, &around, gap).unwrap();
    let elsewhere = [compounds::<B>(8, 1), gap];
    let inside = DevPagemap::new(&B::MODEL, &elsewhere, Geometry::BASE_PAGES).unwrap();
    let inside = inside.with_huge_leaves(false).with_altmap(&other).unwrap();
    vmemmap
        .populate(&mut table, &inside, other.reserved())
        .unwrap();
    // As many as there are frames for.
    let pieces = gap.take_first(2 * B::MODEL.subsection().frames()).0;
    vmemmap.populate(&mut table, &inside, pieces).unwrap();
    let in_other = other.in_use();

    vmemmap.offline(&mut table, region);
    audit(&vmemmap, &table, &machine, &[&own, &other]);
    assert_eq!((own.in_use(), other.in_use()), (0, in_other));
    let stays = |frame| vmemmap.is_valid(&table, frame);
    assert!(stays(pieces.start()) && stays(pieces.last()));
    for range in [
        compounds::<B>(0, 3),
        compounds::<B>(5, 1),
        compounds::<B>(12, 2),
    ] {
        assert!(!stays(range.start()) && !stays(range.last()));
    }
    vmemmap.depopulate(&mut table, &inside, pieces).unwrap();
    vmemmap
        .depopulate(&mut table, &inside, other.reserved())
        .unwrap();
    assert_eq!((other.in_use(), machine.frames().outstanding()), (0, 0));
}

macro_rules! on_each_backend {
    ($($backend:ident $module:ident),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn memory_of_an_altmap_is_refused_to_a_pagemap_without_it() {
                super::memory_of_an_altmap_is_refused_to_a_pagemap_without_it::<$backend>();
            }

            #[test]
            fn a_piece_of_ram_takes_no_tail_frame_of_an_altmap() {
                super::a_piece_of_ram_takes_no_tail_frame_of_an_altmap::<$backend>();
            }

            #[test]
            fn memory_of_another_altmap_in_a_gap_stays_when_the_region_goes() {
                super::memory_of_another_altmap_in_a_gap_stays_when_the_region_goes::<$backend>(false);
                super::memory_of_another_altmap_in_a_gap_stays_when_the_region_goes::<$backend>(true);
            }
        }
    )*};
}

on_each_backend!(X86_64 x86_64, AArch64_4K aarch64_4k, AArch64_16K aarch64_16k, AArch64_64K aarch64_64k);
