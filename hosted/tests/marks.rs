//! Marks: state of single frames, whatever their descriptors are mapped to.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{AArch64_4K, Backend, Machine, MachineConfig, Sim, X86_64, X86_64La57};
use mm_core::addr::{NodeId, Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, MarkError, MarkStats, Offlined, Vmemmap};
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const NODE: NodeId = NodeId::new(0);

fn range<B: Backend>(start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, B::MODEL.granule()).unwrap()
}

fn pagemap<B: Backend>(ranges: &[PfnRange], align: u64) -> DevPagemap<'_> {
    let geometry = Geometry::from_bytes(align, B::MODEL.granule()).unwrap();
    DevPagemap::new(&B::MODEL, ranges, geometry).unwrap()
}

fn machine<B: Backend>() -> Machine<B> {
    Machine::new(&MachineConfig {
        devices: vec![range::<B>(0, 1 << 40)],
        ..MachineConfig::default()
    })
    .unwrap()
}

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

fn vmemmap<B: Backend>(machine: &Machine<B>) -> Array<'_> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

fn audit<B: Backend, P: PageTable>(
    vmemmap: &Array<'_>,
    table: &P,
    machine: &Machine<B>,
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    let report = vmemmap.audit(table, &[machine.frames()], &mut scratch);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    let report = report.unwrap();
    assert_eq!(report.mark_frames, vmemmap.mark_stats().frames);
    report
}

fn marked(vmemmap: &Array<'_>, frames: PfnRange) -> BTreeSet<Pfn> {
    let found: Vec<Pfn> = vmemmap.marked(frames).collect();
    let set: BTreeSet<Pfn> = found.iter().copied().collect();
    assert_eq!(set.len(), found.len());
    set
}

/// Exactly `expected` of `frames` are marked.
fn assert_marked(vmemmap: &Array<'_>, frames: PfnRange, expected: &BTreeSet<Pfn>) {
    assert_eq!(marked(vmemmap, frames), *expected);
    for index in 0..frames.frames() {
        let frame = frames.start().saturating_add(index);
        assert_eq!(
            vmemmap.is_marked(frame),
            expected.contains(&frame),
            "{frame}"
        );
    }
    assert_eq!(vmemmap.mark_stats().marked, expected.len() as u64);
}

fn a_mark_is_of_one_frame_and_survives_fold_and_unfold<B: Backend>() {
    for (align, tails) in [
        (2 * MIB, Tails::PerCompound),
        (2 * MIB, Tails::PerOrder),
        (GIB, Tails::PerCompound),
        (GIB, Tails::PerOrder),
    ] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap(&machine);
        let ranges = [range::<B>(24 * GIB, GIB)];
        let start = ranges[0].start();
        let base = pagemap::<B>(&ranges, 4 * KIB);
        let region = vmemmap.online(&mut table, &base).unwrap();
        let before = audit(&vmemmap, &table, &machine);
        let compound = pagemap::<B>(&ranges, align).with_tails(tails);
        let mut expected = BTreeSet::new();
        let mut mark = |vmemmap: &mut Array<'_>, table: &B::Table<'_>, indices: [u64; 3]| {
            for index in indices {
                let frame = start.saturating_add(index);
                assert_eq!(vmemmap.mark(table, frame, NODE), Ok(true));
                assert_eq!(vmemmap.mark(table, frame, NODE), Ok(false));
                expected.insert(frame);
            }
            assert_marked(vmemmap, ranges[0], &expected);
            audit(vmemmap, table, &machine);
        };
        // Base pages; folded: a head, a tail of the head's page, a shared tail; unfolded.
        mark(&mut vmemmap, &table, [0, 700, 262_143]);
        vmemmap
            .fold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        mark(&mut vmemmap, &table, [512, 513, 999]);
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        mark(&mut vmemmap, &table, [1, 100_000, 16_384]);
        vmemmap
            .fold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_marked(&vmemmap, ranges[0], &expected);
        for frame in &expected {
            assert!(vmemmap.unmark(*frame));
            assert!(!vmemmap.unmark(*frame));
        }
        assert_marked(&vmemmap, ranges[0], &BTreeSet::new());
        assert_eq!(vmemmap.mark_stats(), MarkStats::default());
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_eq!(audit(&vmemmap, &table, &machine), before);
        assert_eq!(vmemmap.offline(&mut table, region), Offlined { marked: 0 });
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

fn a_mark_writes_to_no_descriptor<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges = [range::<B>(24 * GIB, GIB)];
    let compound = pagemap::<B>(&ranges, 2 * MIB).with_tails(Tails::PerOrder);
    let region = vmemmap.online(&mut table, &compound).unwrap();
    let contents = |table: &B::Table<'_>| {
        let pages = (0..ranges[0].frames()).step_by(64).map(|index| {
            let frame = ranges[0].start().saturating_add(index);
            let at = B::MODEL.descriptor_address(frame).unwrap();
            let holder = table.lookup(at).unwrap().leaf.block.first();
            machine.memory().page_bytes(holder).unwrap()
        });
        pages.collect::<Vec<_>>()
    };
    let before = contents(&table);
    for index in [0, 5, 300, 70_000] {
        let frame = ranges[0].start().saturating_add(index);
        assert_eq!(vmemmap.mark(&table, frame, NODE), Ok(true));
    }
    assert!(contents(&table) == before);
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
}

fn the_first_mark_takes_a_frame_and_the_last_gives_it_back<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    // Enough for several bitmaps on each chain.
    let ranges = [range::<B>(24 * GIB, 16 * GIB)];
    let compound = pagemap::<B>(&ranges, GIB).with_tails(Tails::PerOrder);
    let region = vmemmap.online(&mut table, &compound).unwrap();
    let without = machine.frames().outstanding();
    let order = 14;
    let blocks = ranges[0].frames() >> order;
    let frame_in =
        |block: u64, index: u64| ranges[0].start().saturating_add((block << order) + index);
    let mut expected = BTreeSet::new();
    for block in 0..blocks {
        for index in [0, (1 << order) - 1] {
            assert_eq!(vmemmap.mark(&table, frame_in(block, index), NODE), Ok(true));
            expected.insert(frame_in(block, index));
        }
        assert_eq!(vmemmap.mark_stats().frames, block + 1);
        assert_eq!(machine.frames().outstanding(), without + block + 1);
    }
    audit(&vmemmap, &table, &machine);
    assert_eq!(marked(&vmemmap, ranges[0]), expected);

    // In an order that takes bitmaps from the start, the middle and the end of chains.
    for step in 0..blocks {
        let block = step * 101 % blocks;
        assert!(vmemmap.unmark(frame_in(block, 0)));
        assert_eq!(vmemmap.mark_stats().frames, blocks - step);
        assert!(vmemmap.unmark(frame_in(block, (1 << order) - 1)));
        expected.remove(&frame_in(block, 0));
        expected.remove(&frame_in(block, (1 << order) - 1));
        assert_eq!(vmemmap.mark_stats().frames, blocks - step - 1);
        assert_eq!(marked(&vmemmap, ranges[0]), expected);
    }
    assert_eq!(machine.frames().outstanding(), without);
    audit(&vmemmap, &table, &machine);
    vmemmap.offline(&mut table, region);
}

fn a_mark_that_fails_changes_nothing<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    let ranges = [range::<B>(24 * GIB, GIB)];
    let compound = pagemap::<B>(&ranges, GIB);
    let region = vmemmap.online(&mut table, &compound).unwrap();
    let before = audit(&vmemmap, &table, &machine);
    let frame = ranges[0].start().saturating_add(1000);

    machine.frames().fail_after(0);
    let failed = vmemmap.mark(&table, frame, NODE);
    assert!(matches!(failed, Err(MarkError::OutOfFrames(_))));
    assert_eq!(audit(&vmemmap, &table, &machine), before);
    assert!(!vmemmap.is_marked(frame));
    let offline = ranges[0].last().saturating_add(1);
    let failed = vmemmap.mark(&table, offline, NODE);
    assert_eq!(failed, Err(MarkError::NotOnline { frame: offline }));

    machine.frames().no_more_faults();
    assert_eq!(vmemmap.mark(&table, frame, NODE), Ok(true));
    // The bitmap has room for more.
    machine.frames().fail_after(0);
    let next = frame.saturating_add(1);
    assert_eq!(vmemmap.mark(&table, next, NODE), Ok(true));
    machine.frames().no_more_faults();
    assert_eq!(vmemmap.offline(&mut table, region), Offlined { marked: 2 });
    assert_eq!(machine.frames().outstanding(), 0);
}

fn offline_reports_marks_and_forgets_those_of_its_frames_only<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap(&machine);
    // Neighbours share a bitmap.
    let ranges = [range::<B>(24 * GIB, 64 * MIB)];
    let others = [
        range::<B>(24 * GIB + 64 * MIB, 64 * MIB),
        range::<B>(GIB, 2 * MIB),
    ];
    let compound = pagemap::<B>(&ranges, 2 * MIB);
    let region = vmemmap.online(&mut table, &compound).unwrap();
    let other_map = pagemap::<B>(&others, 2 * MIB);
    let other = vmemmap.online(&mut table, &other_map).unwrap();
    let mut frames = BTreeSet::new();
    for frame in [
        ranges[0].start(),
        ranges[0].start().saturating_add(511),
        ranges[0].start().saturating_add(512),
        ranges[0].last(),
        others[0].start(),
        others[0].last(),
        others[1].last(),
    ] {
        assert_eq!(vmemmap.mark(&table, frame, NODE), Ok(true));
        frames.insert(frame);
    }
    let all = B::MODEL.all_frames();
    assert_eq!(marked(&vmemmap, all), frames);

    let piece = PfnRange::new(ranges[0].start(), 512).unwrap();
    let gone = marked(&vmemmap, piece);
    assert_eq!(gone.len(), 2);
    let offlined = vmemmap.depopulate(&mut table, &compound, piece);
    assert_eq!(offlined, Ok(Offlined { marked: 2 }));
    frames.retain(|frame| !gone.contains(frame));
    assert_eq!(marked(&vmemmap, all), frames);
    audit(&vmemmap, &table, &machine);

    assert_eq!(vmemmap.offline(&mut table, region), Offlined { marked: 2 });
    frames.retain(|frame| !ranges[0].contains(*frame));
    assert_eq!(marked(&vmemmap, all), frames);
    audit(&vmemmap, &table, &machine);
    assert_eq!(vmemmap.offline(&mut table, other), Offlined { marked: 3 });
    assert_eq!(vmemmap.mark_stats(), MarkStats::default());

    // What comes online again is not marked.
    let region = vmemmap.online(&mut table, &compound).unwrap();
    assert_eq!(marked(&vmemmap, all), BTreeSet::new());
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        mod marks {
            $(mod $test {
                use crate::{AArch64_4K, Sim, X86_64, X86_64La57};
                #[test]
                fn sim() {
                    crate::$test::<Sim>();
                }
                #[test]
                fn x86_64() {
                    crate::$test::<X86_64>();
                }
                #[test]
                fn x86_64_la57() {
                    crate::$test::<X86_64La57>();
                }
                #[test]
                fn aarch64_4k() {
                    crate::$test::<AArch64_4K>();
                }
            })*
        }
    };
}

on_each_backend!(
    a_mark_is_of_one_frame_and_survives_fold_and_unfold,
    a_mark_writes_to_no_descriptor,
    the_first_mark_takes_a_frame_and_the_last_gives_it_back,
    a_mark_that_fails_changes_nothing,
    offline_reports_marks_and_forgets_those_of_its_frames_only,
);
