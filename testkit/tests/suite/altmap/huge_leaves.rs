//! Base pages whose descriptors are mapped by huge leaves of an altmap.

use super::{GIB, KIB, MIB, pagemap, range, with_device};
use hosted::BackendKind;
use mm_core::addr::Order;
use mm_core::pagemap::Tails;
use mm_core::vmemmap::Note;
use testkit::on_backends;
use testkit::testbed::Sizes;

fn base_pages_have_huge_leaves_from_the_altmap(kind: BackendKind) {
    let model = kind.model();
    let order = Sizes::of(model).order(4 * KIB);
    let ranges = [range(&model, 24 * GIB, 16 * GIB)];
    let plain = pagemap(&model, &ranges, order, Tails::None);
    with_device(kind, plain, |bed, pagemap, altmap| {
        assert_eq!(altmap.reserved().frames(), 128 * 512);
        let region = bed.online(&pagemap).unwrap();
        assert!(region.notes().is_empty(), "{:?}", region.notes());
        let report = bed.audit();
        assert_eq!((report.descriptor_frames, report.leaf_tables), (65536, 0));
        // The reserved part is two sections, each described by one leaf: the first two blocks.
        let leaf = bed.leaf_of(ranges[0].start()).unwrap();
        assert_eq!(leaf.frame, ranges[0].start());
        assert_eq!(Some(leaf.order), bed.huge_leaf());
        assert_eq!(altmap.references(leaf.frame), Some(1));
        assert_eq!(bed.frames().outstanding(), report.upper_tables);
        bed.offline(region);
    });
}

/// The reserved part has room for what a huge leaf describes, but does not start at a multiple of
/// that.
fn huge_leaves_that_cannot_describe_themselves_are_reported(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB + 64 * MIB, 17 * GIB - 64 * MIB)];
    let plain = pagemap(&model, &ranges, Order::BASE, Tails::None);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let notes: Vec<Note> = region.notes().iter().collect();
        let [Note::HugeLeavesUnavailable { leaves }] = notes[..] else {
            panic!("{notes:?}");
        };
        // That one, and those for which base pages have left no whole block.
        assert!((1..=3).contains(&leaves), "{leaves}");
        let report = bed.audit();
        assert_eq!(report.descriptor_frames, altmap.in_use());
        assert!(report.leaf_tables <= leaves + 3, "{report:?}");
        bed.offline(region);
    });
}

/// Blocks of the altmap go back as blocks, also those of which a part goes first.
fn a_part_of_a_huge_leaf_goes_back_to_the_altmap(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB, 16 * GIB)];
    let plain = pagemap(&model, &ranges, Order::BASE, Tails::None);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let in_use = altmap.in_use();
        let piece = range(&model, 32 * GIB + 64 * MIB, 4 * MIB);
        bed.depopulate(&pagemap, piece).unwrap();
        bed.audit();
        assert_eq!(altmap.in_use(), in_use - 16);
        bed.assert_offline(piece);
        bed.assert_described(range(&model, 32 * GIB, 64 * MIB), Order::BASE);
        bed.populate(&pagemap, piece).map(drop).unwrap();
        bed.audit();
        assert_eq!(altmap.in_use(), in_use);
        bed.offline(region);
    });
}

on_backends!(pages_of_4k:
    base_pages_have_huge_leaves_from_the_altmap,
    huge_leaves_that_cannot_describe_themselves_are_reported,
    a_part_of_a_huge_leaf_goes_back_to_the_altmap,
);
