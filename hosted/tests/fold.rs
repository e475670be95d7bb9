//! Folding and unfolding memory that is online.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::{SimFrames, SimMemory};
use hosted::{
    AArch64_4K, AArch64_16K, AArch64_64K, Backend, Machine, MachineConfig, RadixBackend, Sim,
    SimCpus, X86_64, X86_64La57,
};
use mm_core::addr::{Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Descriptor, Mask, Page, Pointer, TailEncoding};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, FoldError, Folded, Note, Vmemmap};
use std::sync::atomic::Ordering;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

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

type Array<'m, E> = Vmemmap<Page<E>, &'m SimFrames, &'m SimMemory>;

fn vmemmap<B: Backend, E: TailEncoding>(machine: &Machine<B>) -> Array<'_, E> {
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    unsafe { Vmemmap::new(B::MODEL, machine.frames(), machine.memory()) }.unwrap()
}

fn audit<B: Backend, E: TailEncoding, P: PageTable>(
    vmemmap: &Array<'_, E>,
    table: &P,
    machine: &Machine<B>,
) -> AuditReport {
    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    let report = vmemmap.audit(table, &[machine.frames()], &mut scratch);
    assert!(machine.violations().is_empty(), "{}", machine.violations());
    report.unwrap()
}

/// The heads of all frames of `frames` are those of compound pages of `align` bytes.
fn assert_heads<B: Backend, E: TailEncoding, P: PageTable>(
    vmemmap: &Array<'_, E>,
    table: &P,
    frames: PfnRange,
    align: u64,
) {
    let order = Geometry::from_bytes(align, B::MODEL.granule())
        .unwrap()
        .order();
    for index in 0..frames.frames() {
        let frame = frames.start().saturating_add(index);
        let head = frame.align_down(order);
        assert_eq!(vmemmap.head_of(table, frame), Some(head), "{frame}");
        let descriptor = vmemmap.descriptor(table, frame).unwrap();
        assert_eq!(descriptor.order(), order, "{frame}");
        assert_eq!(descriptor.is_tail(), frame != head && align > 4 * KIB);
    }
}

/// What the kernel keeps in the descriptor of `frame`.
fn state_of<E: TailEncoding, P: PageTable>(
    vmemmap: &Array<'_, E>,
    table: &P,
    frame: Pfn,
) -> [u64; 4] {
    let page = vmemmap.descriptor(table, frame).unwrap();
    [
        page.flags().load(Ordering::Relaxed),
        u64::from(page.references().load(Ordering::Relaxed)),
        u64::from(page.mappings().load(Ordering::Relaxed)),
        page.private()[3].load(Ordering::Relaxed),
    ]
}

fn set_state<E: TailEncoding, P: PageTable>(
    vmemmap: &Array<'_, E>,
    table: &P,
    frame: Pfn,
    value: u64,
) -> [u64; 4] {
    let page = vmemmap.descriptor(table, frame).unwrap();
    page.flags().store(value, Ordering::Relaxed);
    page.references().store(value as u32, Ordering::Relaxed);
    page.private()[3].store(!value, Ordering::Relaxed);
    state_of(vmemmap, table, frame)
}

/// Folds and unfolds a GiB that was brought online as base pages, with and without huge leaves.
fn fold_then_unfold_returns_to_the_frames_of_the_start<B: Backend>() {
    // Compound pages, tails, then the frames folded: descriptors, and leaf tables.
    let cases = [
        (2 * MIB, Tails::PerCompound, 1024),
        (2 * MIB, Tails::PerOrder, 513),
        (GIB, Tails::PerCompound, 2),
        (GIB, Tails::PerOrder, 2),
        (MIB, Tails::PerCompound, 2048),
        (MIB / 2, Tails::PerOrder, 2049),
    ];
    for huge_leaves in [true, false] {
        for (align, tails, folded_frames) in cases {
            let machine = machine::<B>();
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap::<B, Mask>(&machine);
            let ranges = [range::<B>(24 * GIB, GIB)];
            let base = pagemap::<B>(&ranges, 4 * KIB).with_huge_leaves(huge_leaves);
            let region = vmemmap.online(&mut table, &base).unwrap();
            let frames_base = audit(&vmemmap, &table, &machine);
            let outstanding = machine.frames().outstanding();

            let compound = pagemap::<B>(&ranges, align)
                .with_tails(tails)
                .with_huge_leaves(huge_leaves);
            let count = GIB / align;
            let folded = vmemmap.fold(&mut table, &compound, ranges[0]).unwrap();
            assert_eq!((folded.changed, folded.unchanged), (count, 0));
            assert!(folded.notes.is_empty());
            let frames_folded = audit(&vmemmap, &table, &machine);
            assert_eq!(frames_folded.descriptor_frames, folded_frames);
            if B::HAS_TABLES {
                assert_eq!(frames_folded.leaf_tables, 8);
                assert_eq!(frames_folded.upper_tables, frames_base.upper_tables);
            }
            assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);

            let unfolded = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
            assert_eq!((unfolded.changed, unfolded.unchanged), (count, 0));
            assert!(unfolded.notes.is_empty());
            assert_eq!(audit(&vmemmap, &table, &machine), frames_base);
            assert_eq!(machine.frames().outstanding(), outstanding);
            assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);

            // Taken apart, they are what they were at first.
            vmemmap.reshape(&table, &base, ranges[0]).unwrap();
            assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], 4 * KIB);
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0);
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

fn pointers_name_the_right_head_after_either<B: Backend>() {
    for align in [2 * MIB, 128 * MIB] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Pointer>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB / 4)];
        let region = vmemmap
            .online(&mut table, &pagemap::<B>(&ranges, 4 * KIB))
            .unwrap();
        let compound = pagemap::<B>(&ranges, align);
        vmemmap
            .fold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

fn live_fields_of_the_head_page_survive<B: Backend>() {
    for huge_leaves in [true, false] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Pointer>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB / 4)];
        let base = pagemap::<B>(&ranges, 4 * KIB).with_huge_leaves(huge_leaves);
        let region = vmemmap.online(&mut table, &base).unwrap();
        let compound = pagemap::<B>(&ranges, 2 * MIB).with_huge_leaves(huge_leaves);
        // The head, the tails that real kernels keep state in, and the last of the head's page.
        let kept: Vec<Pfn> = (0..ranges[0].frames())
            .step_by(512)
            .flat_map(|head| [0, 1, 3, 63].map(|tail| head + tail))
            .map(|index| ranges[0].start().saturating_add(index))
            .collect();
        let before: Vec<_> = kept
            .iter()
            .map(|frame| set_state(&vmemmap, &table, *frame, frame.get() | 1))
            .collect();
        for step in 0..2 {
            let done = match step {
                0 => vmemmap.fold(&mut table, &compound, ranges[0]),
                _ => vmemmap.unfold(&mut table, &compound, ranges[0]),
            };
            assert_eq!(done.unwrap().changed, 128);
            let after: Vec<_> = kept
                .iter()
                .map(|frame| state_of(&vmemmap, &table, *frame))
                .collect();
            assert_eq!(after, before);
        }
        // What tails outside the head's page had in them is gone, not mixed up.
        let tail = ranges[0].start().saturating_add(100);
        assert_eq!(state_of(&vmemmap, &table, tail), [0; 4]);
        vmemmap.offline(&mut table, region);
    }
}

fn every_unfolded_page_has_memory_of_its_own<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap::<B, Pointer>(&machine);
    let ranges = [range::<B>(24 * GIB, GIB / 4)];
    let region = vmemmap
        .online(&mut table, &pagemap::<B>(&ranges, 2 * MIB))
        .unwrap();
    for huge_leaves in [false, true] {
        let compound = pagemap::<B>(&ranges, 2 * MIB).with_huge_leaves(huge_leaves);
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        let frames =
            || (0..ranges[0].frames()).map(|index| ranges[0].start().saturating_add(index));
        for frame in frames() {
            set_state(&vmemmap, &table, frame, frame.get() | 1);
        }
        for frame in frames() {
            assert_eq!(state_of(&vmemmap, &table, frame)[0], frame.get() | 1);
        }
        audit(&vmemmap, &table, &machine);
        vmemmap
            .fold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_eq!(audit(&vmemmap, &table, &machine).descriptor_frames, 256);
    }
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
}

/// A part of what was brought online, whose borders lie within huge leaves.
fn neighbours_are_left_as_they_are<B: Backend>() {
    for (tails, align) in [
        (Tails::PerCompound, 2 * MIB),
        (Tails::PerOrder, 2 * MIB),
        (Tails::PerCompound, 64 * MIB),
    ] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Mask>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB)];
        let region = vmemmap
            .online(&mut table, &pagemap::<B>(&ranges, 4 * KIB))
            .unwrap();
        let part = range::<B>(24 * GIB + 192 * MIB, 384 * MIB);
        let outside = |index: &u64| !part.contains(ranges[0].start().saturating_add(*index));
        let others: Vec<Pfn> = (0..ranges[0].frames())
            .filter(outside)
            .map(|index| ranges[0].start().saturating_add(index))
            .collect();
        let before: Vec<_> = others
            .iter()
            .map(|frame| set_state(&vmemmap, &table, *frame, frame.get() | 1))
            .collect();
        let unchanged = |vmemmap: &Array<'_, Mask>, table: &B::Table<'_>| {
            for (frame, before) in others.iter().zip(&before) {
                assert_eq!(vmemmap.head_of(table, *frame), Some(*frame));
                assert_eq!(state_of(vmemmap, table, *frame), *before);
            }
        };
        let base = audit(&vmemmap, &table, &machine);
        let compound = pagemap::<B>(&ranges, align).with_tails(tails);
        let folded = vmemmap.fold(&mut table, &compound, part).unwrap();
        assert_eq!(folded.changed, 384 * MIB / align);
        audit(&vmemmap, &table, &machine);
        unchanged(&vmemmap, &table);
        assert_heads::<B, _, _>(&vmemmap, &table, part, align);

        // Two huge leaves are within the part and come back; two are not, and come back when all of
        // them are asked for.
        vmemmap
            .unfold(&mut table, &compound, part)
            .map(drop)
            .unwrap();
        let partly = audit(&vmemmap, &table, &machine);
        assert_eq!(partly.descriptor_frames, base.descriptor_frames);
        if B::HAS_TABLES {
            assert_eq!(partly.leaf_tables, 2);
        }
        unchanged(&vmemmap, &table);
        assert_heads::<B, _, _>(&vmemmap, &table, part, align);
        let rest = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
        assert_eq!((rest.changed, rest.unchanged), (0, GIB / align));
        assert_eq!(audit(&vmemmap, &table, &machine), base);
        unchanged(&vmemmap, &table);
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
        assert!(machine.violations().is_empty(), "{}", machine.violations());
    }
}

fn compound_pages_are_folded_and_unfolded_one_by_one<B: Backend>() {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Mask>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB / 4)];
        let region = vmemmap
            .online(&mut table, &pagemap::<B>(&ranges, 4 * KIB))
            .unwrap();
        let base = audit(&vmemmap, &table, &machine);
        let compound = pagemap::<B>(&ranges, 2 * MIB).with_tails(tails);
        let pages =
            || (0..128).map(|page| range::<B>(24 * GIB + page * 53 % 128 * 2 * MIB, 2 * MIB));
        for page in pages() {
            let folded = vmemmap.fold(&mut table, &compound, page).unwrap();
            assert_eq!(folded.changed, 1);
            audit(&vmemmap, &table, &machine);
        }
        for page in pages() {
            let unfolded = vmemmap.unfold(&mut table, &compound, page).unwrap();
            assert_eq!(unfolded.changed, 1);
            audit(&vmemmap, &table, &machine);
        }
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        assert_eq!(audit(&vmemmap, &table, &machine), base);
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

fn the_same_call_twice_changes_nothing<B: Backend>() {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Mask>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB)];
        let region = vmemmap
            .online(&mut table, &pagemap::<B>(&ranges, 4 * KIB))
            .unwrap();
        let compound = pagemap::<B>(&ranges, 2 * MIB).with_tails(tails);
        let part = range::<B>(24 * GIB + 2 * MIB, 64 * MIB);
        let nothing = |unchanged| Folded {
            unchanged,
            ..Folded::default()
        };
        let first = vmemmap.fold(&mut table, &compound, part).unwrap();
        assert_eq!(first.changed, 32);
        let folded = audit(&vmemmap, &table, &machine);
        assert_eq!(vmemmap.fold(&mut table, &compound, part), Ok(nothing(32)));
        assert_eq!(audit(&vmemmap, &table, &machine), folded);

        // What is folded already is passed over.
        let rest = vmemmap.fold(&mut table, &compound, ranges[0]).unwrap();
        assert_eq!((rest.changed, rest.unchanged), (480, 32));
        audit(&vmemmap, &table, &machine);
        vmemmap
            .unfold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        let unfolded = audit(&vmemmap, &table, &machine);
        assert_eq!(
            vmemmap.unfold(&mut table, &compound, ranges[0]),
            Ok(nothing(512))
        );
        assert_eq!(audit(&vmemmap, &table, &machine), unfolded);
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

/// Memory that was brought online with shared tails is unfolded, shared tables included, and folded
/// again.
fn what_came_online_folded_can_be_unfolded<B: Backend>() {
    for (align, tails, tables) in [
        (2 * MIB, Tails::PerCompound, Tables::Private),
        (2 * MIB, Tails::PerOrder, Tables::Private),
        (GIB, Tails::PerCompound, Tables::Shared),
        (GIB, Tails::PerOrder, Tables::Shared),
    ] {
        for huge_leaves in [true, false] {
            let machine = machine::<B>();
            let mut table = machine.take_table().unwrap();
            let mut vmemmap = vmemmap::<B, Mask>(&machine);
            let ranges = [range::<B>(24 * GIB, 2 * GIB)];
            let compound = pagemap::<B>(&ranges, align)
                .with_tails(tails)
                .with_tables(tables)
                .with_huge_leaves(huge_leaves);
            let region = vmemmap.online(&mut table, &compound).unwrap();
            let online = audit(&vmemmap, &table, &machine);
            let part = range::<B>(25 * GIB, GIB);
            let unfolded = vmemmap.unfold(&mut table, &compound, part).unwrap();
            assert_eq!(unfolded.changed, GIB / align);
            let report = audit(&vmemmap, &table, &machine);
            assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);
            assert!(report.descriptor_frames >= 4096);
            if B::HAS_TABLES && huge_leaves {
                assert!(report.leaf_tables <= 8);
            }
            vmemmap.fold(&mut table, &compound, part).map(drop).unwrap();
            let again = audit(&vmemmap, &table, &machine);
            assert_eq!(again.descriptor_frames, online.descriptor_frames);
            assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);
            vmemmap.offline(&mut table, region);
            assert_eq!(machine.frames().outstanding(), 0);
            assert!(machine.violations().is_empty(), "{}", machine.violations());
        }
    }
}

/// All table bytes, as far as the backend has tables, by what they mean.
fn mapped<B: Backend>(table: &B::Table<'_>, frames: PfnRange) -> Vec<String> {
    let range = B::MODEL.descriptors(frames);
    let mut seen = Vec::new();
    if let Some(range) = range {
        let _ = table.visit(range, &mut |visit| {
            seen.push(format!("{visit:?}"));
            std::ops::ControlFlow::Continue(())
        });
    }
    seen
}

fn every_failed_allocation_leaves_everything_as_it_was<B: Backend>() {
    for (tails, huge_leaves) in [
        (Tails::PerCompound, true),
        (Tails::PerOrder, true),
        (Tails::PerCompound, false),
        (Tails::PerOrder, false),
    ] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Mask>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB / 2)];
        let base = pagemap::<B>(&ranges, 4 * KIB).with_huge_leaves(huge_leaves);
        let region = vmemmap.online(&mut table, &base).unwrap();
        let compound = pagemap::<B>(&ranges, 2 * MIB)
            .with_tails(tails)
            .with_huge_leaves(huge_leaves);
        for fold in [true, false] {
            let before = audit(&vmemmap, &table, &machine);
            let entries = mapped::<B>(&table, ranges[0]);
            let align = if fold { 4 * KIB } else { 2 * MIB };
            let mut failures = 0;
            loop {
                machine.frames().fail_after(failures);
                let done = match fold {
                    true => vmemmap.fold(&mut table, &compound, ranges[0]),
                    false => vmemmap.unfold(&mut table, &compound, ranges[0]),
                };
                machine.frames().no_more_faults();
                match done {
                    Ok(done) => {
                        assert_eq!(done.changed, 256);
                        assert!(done.notes.is_empty());
                        break;
                    }
                    Err(FoldError::OutOfFrames(_)) => failures += 1,
                    Err(other) => panic!("{other}"),
                }
                assert_eq!(audit(&vmemmap, &table, &machine), before);
                assert_eq!(mapped::<B>(&table, ranges[0]), entries);
                if failures < 8 {
                    assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], align);
                }
            }
            let expected = match (fold, tails, huge_leaves) {
                (true, Tails::PerCompound, false) => 0,
                (true, Tails::PerCompound, true) => 4 * u64::from(B::HAS_TABLES),
                (true, _, true) => 1 + 4 * u64::from(B::HAS_TABLES),
                (true, _, false) => 1,
                (false, _, true) => 4,
                (false, Tails::PerCompound, false) => 256 * 6,
                (false, _, false) => 256 * 7,
            };
            assert_eq!(failures, expected);
            audit(&vmemmap, &table, &machine);
        }
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
        assert!(machine.violations().is_empty(), "{}", machine.violations());
    }
}

fn fragmented_memory_gives_single_frames_for_a_huge_leaf<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap::<B, Pointer>(&machine);
    let ranges = [range::<B>(24 * GIB, GIB)];
    let region = vmemmap
        .online(&mut table, &pagemap::<B>(&ranges, 4 * KIB))
        .unwrap();
    let base = audit(&vmemmap, &table, &machine);
    let compound = pagemap::<B>(&ranges, 2 * MIB);
    vmemmap
        .fold(&mut table, &compound, ranges[0])
        .map(drop)
        .unwrap();
    machine.frames().fail_blocks(true);
    let unfolded = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
    let notes: Vec<Note> = unfolded.notes.iter().collect();
    assert_eq!(notes, [Note::HugeLeavesUnavailable { leaves: 8 }]);
    let report = audit(&vmemmap, &table, &machine);
    assert_eq!(report.descriptor_frames, base.descriptor_frames);
    assert_heads::<B, _, _>(&vmemmap, &table, ranges[0], 2 * MIB);

    // The same call brings the leaves back once there are blocks.
    machine.frames().fail_blocks(false);
    vmemmap
        .unfold(&mut table, &compound, ranges[0])
        .map(drop)
        .unwrap();
    assert_eq!(audit(&vmemmap, &table, &machine), base);
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
}

fn one_flush_serves_a_batch_of_compound_pages<B: Backend>() {
    // A batch is 32 changes: one for each compound page, and one for each of 8 huge leaves.
    for (huge_leaves, at_most) in [(true, 17), (false, 16)] {
        let machine = machine::<B>();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Pointer>(&machine);
        let ranges = [range::<B>(24 * GIB, GIB)];
        let base = pagemap::<B>(&ranges, 4 * KIB).with_huge_leaves(huge_leaves);
        let region = vmemmap.online(&mut table, &base).unwrap();
        let compound = pagemap::<B>(&ranges, 2 * MIB).with_huge_leaves(huge_leaves);
        let folded = vmemmap.fold(&mut table, &compound, ranges[0]).unwrap();
        assert!((1..=at_most).contains(&folded.flushes), "{folded:?}");
        let unfolded = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
        let at_most = if huge_leaves { 1 } else { 2 * at_most };
        assert!((1..=at_most).contains(&unfolded.flushes), "{unfolded:?}");
        vmemmap.offline(&mut table, region);
    }
}

fn what_cannot_be_folded_is_refused_and_named<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap::<B, Pointer>(&machine);
    let ranges = [range::<B>(24 * GIB, GIB), range::<B>(28 * GIB, GIB)];
    let all = ranges[0];
    let half = range::<B>(24 * GIB, GIB / 2);
    let online = [half];
    let region = vmemmap
        .online(&mut table, &pagemap::<B>(&online, 4 * KIB))
        .unwrap();
    let before = audit(&vmemmap, &table, &machine);
    let compound = pagemap::<B>(&ranges, 2 * MIB);
    let order = compound.geometry().order();

    let frames = PfnRange::new(half.start().saturating_add(64), 512).unwrap();
    let refused = vmemmap.fold(&mut table, &compound, frames);
    assert_eq!(refused, Err(FoldError::Misaligned { frames, order }));
    let frames = range::<B>(25 * GIB, 2 * MIB);
    let refused = vmemmap.unfold(&mut table, &compound, frames);
    assert_eq!(refused, Err(FoldError::Outside { frames }));
    let at = B::MODEL
        .descriptor_address(half.last().saturating_add(1))
        .unwrap();
    let refused = vmemmap.fold(&mut table, &compound, all);
    assert_eq!(refused, Err(FoldError::NotOnline { at }));
    let base = pagemap::<B>(&ranges, 4 * KIB);
    let refused = vmemmap.fold(&mut table, &base, half);
    assert_eq!(refused, Err(FoldError::NothingToShare(None)));
    let refused = vmemmap.fold(&mut table, &compound.with_tails(Tails::PerOrder), half);
    assert_eq!(refused, Err(FoldError::TailsDiffer));
    assert_eq!(audit(&vmemmap, &table, &machine), before);

    // Of another order, folded: as a whole, and in part.
    let first = range::<B>(24 * GIB, 2 * MIB);
    vmemmap
        .fold(&mut table, &compound, first)
        .map(drop)
        .unwrap();
    let before = audit(&vmemmap, &table, &machine);
    for align in [MIB, 4 * MIB] {
        let other = pagemap::<B>(&ranges, align);
        let refused = vmemmap.fold(&mut table, &other, half);
        assert!(
            matches!(refused, Err(FoldError::OtherTails { .. })),
            "{refused:?}"
        );
        let refused = vmemmap.unfold(&mut table, &other, half);
        assert!(
            matches!(refused, Err(FoldError::OtherTails { .. })),
            "{refused:?}"
        );
    }
    let refused = vmemmap.reshape(&table, &base, half);
    assert!(matches!(refused, Err(FoldError::OtherTails { .. })));
    let refused = vmemmap.reshape(&table, &compound, first);
    assert!(matches!(refused, Err(FoldError::OtherTails { .. })));
    assert_eq!(audit(&vmemmap, &table, &machine), before);
    assert_heads::<B, _, _>(&vmemmap, &table, first, 2 * MIB);
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);
}

/// Pieces of other orders in the place of one that went offline: half a compound page, and two that look like one.
fn a_compound_page_of_which_a_piece_was_exchanged_is_refused<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap::<B, Mask>(&machine);
    let ranges = [range::<B>(24 * GIB, 4 * MIB)];
    let compound = pagemap::<B>(&ranges, 4 * MIB).with_piece(Piece::Subsection);
    let _stays = vmemmap.online(&mut table, &compound).unwrap();
    let first = range::<B>(24 * GIB, 2 * MIB);
    for align in [4 * KIB, 2 * MIB] {
        vmemmap
            .depopulate(&mut table, &compound, first)
            .map(drop)
            .unwrap();
        let other = pagemap::<B>(&ranges, align);
        vmemmap
            .populate(&mut table, &other, first)
            .map(drop)
            .unwrap();
        let before = audit(&vmemmap, &table, &machine);
        for refused in [
            vmemmap.fold(&mut table, &compound, ranges[0]),
            vmemmap.unfold(&mut table, &compound, ranges[0]),
        ] {
            assert!(
                matches!(refused, Err(FoldError::OtherTails { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(audit(&vmemmap, &table, &machine), before);
    }
}

fn folded_memory_goes_offline_by_pieces_in_any_order<B: Backend>() {
    let machine = machine::<B>();
    let mut table = machine.take_table().unwrap();
    let mut vmemmap = vmemmap::<B, Mask>(&machine);
    let ranges = [range::<B>(24 * GIB, GIB)];
    let base = pagemap::<B>(&ranges, 4 * KIB).with_piece(Piece::Section);
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        let _stays = vmemmap.online(&mut table, &base).unwrap();
        let compound = pagemap::<B>(&ranges, GIB).with_tails(tails);
        vmemmap
            .fold(&mut table, &compound, ranges[0])
            .map(drop)
            .unwrap();
        for piece in 0..512 {
            let piece = range::<B>(24 * GIB + piece * 71 % 512 * 2 * MIB, 2 * MIB);
            vmemmap.depopulate(&mut table, &base, piece).unwrap();
            audit(&vmemmap, &table, &machine);
        }
        assert_eq!(machine.frames().outstanding(), 0);
    }
}

/// The natural compound pages of each granule, in as much memory as two huge leaves of vmemmap
/// describe, on CPUs that cache all they can and demand break-before-make.
fn granule_folds_its_natural_compound_pages<B: RadixBackend>() {
    let granule = B::MODEL.granule();
    let leaf = 1 << (granule.shift() - 3);
    let describes = B::MODEL.descriptors_per_page() << granule.shift();
    // Eight vmemmap pages each, and a leaf table each.
    for (tails, align) in [
        (Tails::PerCompound, 8 * describes),
        (Tails::PerOrder, 8 * describes),
        (Tails::PerCompound, leaf * describes),
    ] {
        let start = 4 * leaf * describes;
        let ranges = [range::<B>(start, 2 * leaf * describes)];
        let machine = Machine::<B>::new(&MachineConfig {
            devices: ranges.to_vec(),
            ..MachineConfig::default()
        })
        .unwrap();
        let mut table = machine.take_table().unwrap();
        let mut vmemmap = vmemmap::<B, Mask>(&machine);
        let base = pagemap::<B>(&ranges, granule.bytes()).with_piece(Piece::Range);
        let region = vmemmap.online(&mut table, &base).unwrap();
        let before = audit(&vmemmap, &table, &machine);
        let all = B::MODEL.descriptors(ranges[0]).unwrap();
        for cpu in machine.cpus().all() {
            cpu.watch(machine.frames());
            cpu.fill_at_allocations(machine.frames(), all);
            cpu.fill(all);
        }
        let compound = pagemap::<B>(&ranges, align).with_tails(tails);
        let order = compound.geometry().order();
        let heads = |table: &B::Table<'_>, vmemmap: &Array<'_, Mask>| {
            for index in (0..ranges[0].frames()).step_by(509) {
                let frame = ranges[0].start().saturating_add(index);
                assert_eq!(vmemmap.head_of(table, frame), Some(frame.align_down(order)));
            }
        };
        let count = 2 * leaf * describes / align;
        let folded = vmemmap.fold(&mut table, &compound, ranges[0]).unwrap();
        assert_eq!(folded.changed, count);
        heads(&table, &vmemmap);
        let frames = match tails {
            Tails::PerOrder => count + 1,
            _ => 2 * count,
        };
        let report = audit(&vmemmap, &table, &machine);
        assert_eq!((report.descriptor_frames, report.leaf_tables), (frames, 2));
        machine.cpus().all().iter().for_each(|cpu| cpu.fill(all));
        let unfolded = vmemmap.unfold(&mut table, &compound, ranges[0]).unwrap();
        assert_eq!(unfolded.changed, count);
        heads(&table, &vmemmap);
        machine.cpus().all().iter().for_each(|cpu| cpu.fill(all));
        assert_eq!(audit(&vmemmap, &table, &machine), before);
        vmemmap.offline(&mut table, region);
        assert_eq!(machine.frames().outstanding(), 0);
        assert!(machine.violations().is_empty(), "{}", machine.violations());
    }
}

#[test]
fn each_granule_folds_its_natural_compound_pages() {
    granule_folds_its_natural_compound_pages::<X86_64>();
    granule_folds_its_natural_compound_pages::<AArch64_4K>();
    granule_folds_its_natural_compound_pages::<AArch64_16K>();
    granule_folds_its_natural_compound_pages::<AArch64_64K>();
}

macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        mod fold {
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
    fold_then_unfold_returns_to_the_frames_of_the_start,
    pointers_name_the_right_head_after_either,
    live_fields_of_the_head_page_survive,
    every_unfolded_page_has_memory_of_its_own,
    neighbours_are_left_as_they_are,
    compound_pages_are_folded_and_unfolded_one_by_one,
    the_same_call_twice_changes_nothing,
    what_came_online_folded_can_be_unfolded,
    every_failed_allocation_leaves_everything_as_it_was,
    fragmented_memory_gives_single_frames_for_a_huge_leaf,
    one_flush_serves_a_batch_of_compound_pages,
    what_cannot_be_folded_is_refused_and_named,
    a_compound_page_of_which_a_piece_was_exchanged_is_refused,
    folded_memory_goes_offline_by_pieces_in_any_order,
);
