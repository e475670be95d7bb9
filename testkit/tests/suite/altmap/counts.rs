//! Frames of an altmap are counted where neither safe code nor what a kernel does with its own
//! descriptors reaches.

use super::{pagemap, with_device};
use hosted::BackendKind;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange, PhysAddr};
use mm_core::error::ErrorKind;
use mm_core::frame::Released;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::OnlineError;
use std::collections::HashSet;
use testkit::on_backends;
use testkit::testbed::{Sizes, TestAltmap, Testbed};

/// Where the count of references is in a descriptor.
const REFERENCES: u64 = 16;

/// How many bytes of the first reserved frame are no counts.
const RECORD: u64 = 64;

/// Runs `test` with a device of 32 compound pages that fill whole vmemmap pages, and its altmap.
fn with_natural_pages(
    kind: BackendKind,
    test: impl FnOnce(&mut dyn Testbed<'_>, DevPagemap<'_>, &dyn TestAltmap),
) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 8, 32)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, test);
}

/// Four of those pages, from the middle on.
fn piece_of(pagemap: &DevPagemap<'_>) -> PfnRange {
    let order = pagemap.geometry().order();
    Sizes::of(*pagemap.model()).blocks(order, 8 + 16, 4)
}

/// Reads the counts of all that `altmap` reserves from its first frames.
fn counts_in_memory(bed: &dyn Testbed<'_>, altmap: &dyn TestAltmap) -> Vec<u64> {
    let bytes = bed.model().granule().bytes();
    let start = altmap.reserved().start();
    let pages = (0..altmap.count_frames()).map(|index| start.checked_add(index).unwrap());
    let pages = pages.flat_map(|page| bed.memory().page_bytes(page).unwrap());
    let all: Vec<u8> = pages.skip(RECORD as usize).collect();
    let counts = all
        .chunks_exact(4)
        .take(altmap.reserved().frames() as usize);
    let counts = counts.map(|count| u32::from_le_bytes(count.try_into().unwrap()).into());
    let counts: Vec<u64> = counts.collect();
    assert_eq!(counts.len() as u64, altmap.reserved().frames());
    assert!(altmap.count_frames() * bytes >= RECORD + 4 * altmap.reserved().frames());
    assert!((altmap.count_frames() - 1) * bytes < RECORD + 4 * altmap.reserved().frames());
    counts
}

fn counts_lie_in_frames_that_no_entry_points_at(kind: BackendKind) {
    with_natural_pages(kind, |bed, pagemap, altmap| {
        assert!(
            counts_in_memory(bed, altmap)
                .iter()
                .all(|count| *count == 0)
        );
        let region = bed.online(&pagemap).unwrap();
        let reserved = altmap.reserved();
        let counts = counts_in_memory(bed, altmap);
        let mut by_count = [0; 9];
        for (frame, count) in reserved.into_iter().zip(&counts) {
            assert_eq!(altmap.references(frame), Some(*count));
            by_count[*count as usize] += 1;
        }
        // Base pages for one compound page, and 31 others: a head each, and a tail frame, mapped
        // seven times.
        let base_pages = pagemap.base_pages().unwrap();
        let (sizes, order) = (Sizes::of(bed.model()), pagemap.geometry().order());
        assert_eq!(
            (base_pages.frames(), sizes.pages(order)),
            (order.frames(), 8)
        );
        let none = reserved.frames() - (8 + 2 * 31);
        assert_eq!(by_count, [none, 8 + 31, 0, 0, 0, 0, 0, 31, 0]);

        let own = reserved.take_first(altmap.count_frames()).0;
        let mapped = bed.holders_of(pagemap.ranges()[0]);
        assert!(!mapped.iter().any(|frame| own.contains(*frame)));
        bed.offline(region);
        assert!(
            counts_in_memory(bed, altmap)
                .iter()
                .all(|count| *count == 0)
        );
    });
}

/// What a kernel's scanner of frame numbers finds: the count of references of a descriptor.
fn references_of(bed: &dyn Testbed<'_>, frame: Pfn) -> (PhysAddr, u32) {
    let granule = bed.model().granule();
    let holder = bed.holder_of(frame).unwrap();
    let offset = bed.address_of(frame).get() & (granule.bytes() - 1);
    let at = PhysAddr::new(holder.base(granule).get() + offset + REFERENCES);
    (at, bed.memory().read_u64(at).unwrap() as u32)
}

/// All descriptors of what is reserved are in the kernel's hands: by their addresses in the vmemmap,
/// since the library hands none of them out.
fn no_store_to_a_descriptor_changes_a_count(kind: BackendKind) {
    with_natural_pages(kind, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let reserved = altmap.reserved();
        let free = reserved.frames() - altmap.count_frames() - altmap.in_use();
        for value in [0, 1, 5, u32::MAX] {
            let counts = counts_in_memory(bed, altmap);
            for frame in reserved {
                let (at, _) = references_of(bed, frame);
                let other_half = bed.memory().read_u64(at).unwrap() & !u64::from(u32::MAX);
                assert!(
                    bed.memory()
                        .write_u64(at, other_half | u64::from(value))
                        .is_some()
                );
                assert_eq!(references_of(bed, frame), (at, value));
            }
            assert_eq!(counts_in_memory(bed, altmap), counts);
            bed.audit();
            // Whoever takes all frames that are free gets none that holds descriptors.
            let in_use = bed.holders_of(pagemap.ranges()[0]);
            let mut taken = HashSet::new();
            while let Ok(block) = altmap.allocate(Order::BASE, NodeId::new(0)) {
                assert!(!in_use.contains(&block.first()));
                assert!(taken.insert(block.first()));
            }
            assert_eq!(taken.len() as u64, free);
            for frame in taken {
                give_back(altmap, Block::single(frame));
            }
        }
        bed.offline(region);
        assert_eq!(altmap.in_use(), 0);
    });
}

fn give_back(altmap: &dyn TestAltmap, block: Block) {
    // SAFETY: 1: the test allocated it. 2: the one reference that it came with.
    if let Released::Last(frame) = unsafe { altmap.release(block, 1) } {
        // SAFETY: 1: it released the frame just now.
        unsafe { altmap.free(frame) };
    }
}

/// A scanner of frame numbers takes a reference of what has one, around an operation, and gives it
/// back.
fn a_scanner_beside_an_operation_finds_no_page_and_loses_no_frame(kind: BackendKind) {
    with_natural_pages(kind, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let reserved = altmap.reserved();
        for frame in reserved {
            assert!(bed.is_reserved(frame), "{frame} is no page");
            assert_eq!(bed.state_of(frame), None, "{frame} is not handed out");
            // It takes none that has no reference.
            assert_eq!(references_of(bed, frame).1, 0);
        }
        let behind = reserved.last().checked_add(1).unwrap();
        assert!(!bed.is_reserved(behind));
        assert!(bed.state_of(behind).is_some());
        let piece = piece_of(&pagemap);
        bed.depopulate(&pagemap, piece).unwrap();
        bed.audit();
        bed.offline(region);
        assert_eq!(
            (altmap.in_use(), bed.is_reserved(reserved.start())),
            (0, false)
        );
    });
}

fn a_frame_that_somebody_keeps_is_released_long_after_all_is_offline(kind: BackendKind) {
    with_natural_pages(kind, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let kept = altmap.allocate(Order::BASE, NodeId::new(0)).unwrap();
        assert_eq!(bed.offline(region).kept, 0);
        assert_eq!((altmap.in_use(), bed.frames().outstanding()), (1, 0));
        let region = bed.online(&pagemap).unwrap();
        assert!(!bed.holders_of(pagemap.ranges()[0]).contains(&kept.first()));
        bed.offline(region);
        give_back(altmap, kept);
        assert_eq!(altmap.in_use(), 0);
        let region = bed.online(&pagemap).unwrap();
        bed.audit();
        bed.offline(region);
    });
}

/// Reserved frames that others have online are not written to, and while they hold descriptors,
/// nobody else has them online.
fn what_is_reserved_is_in_use_by_one_side_at_a_time(kind: BackendKind) {
    with_natural_pages(kind, |bed, pagemap, altmap| {
        let reserved = altmap.reserved();
        let own = [reserved];
        let others = super::pagemap(pagemap.model(), &own, Order::BASE, Tails::None);
        let others = others.with_huge_leaves(false);
        let piece = piece_of(&pagemap);
        // Theirs.
        let region = bed.online(&others).unwrap();
        let before = bed.snapshot();
        let at = bed.address_of(reserved.start());
        let refused = Err(OnlineError::AlreadyMapped { at });
        assert_eq!(bed.populate(&pagemap, piece).map(drop), refused);
        assert_eq!(bed.online(&pagemap).map(drop), refused);
        bed.assert_unchanged(&before, "refused");
        bed.offline(region);
        // The altmap's.
        bed.populate(&pagemap, piece).unwrap();
        let before = bed.snapshot();
        let refused = OnlineError::Reserved { reserved };
        assert_eq!(bed.online(&others).map(drop), Err(refused));
        assert_eq!(bed.populate(&others, reserved).map(drop), Err(refused));
        assert_eq!(refused.kind(), ErrorKind::Overlap);
        bed.assert_unchanged(&before, "refused");
        bed.populate(&pagemap, reserved).unwrap();
        bed.audit();
        bed.depopulate(&pagemap, reserved).unwrap();
        bed.depopulate(&pagemap, piece).unwrap();
        // Theirs again.
        let region = bed.online(&others).unwrap();
        assert!(!bed.is_reserved(reserved.start()));
        assert!(bed.state_of(reserved.start()).is_some());
        bed.offline(region);
    });
}

on_backends!(all:
    counts_lie_in_frames_that_no_entry_points_at,
    no_store_to_a_descriptor_changes_a_count,
    a_scanner_beside_an_operation_finds_no_page_and_loses_no_frame,
    a_frame_that_somebody_keeps_is_released_long_after_all_is_offline,
    what_is_reserved_is_in_use_by_one_side_at_a_time,
);
