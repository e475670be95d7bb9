//! Base pages whose descriptors are mapped by huge leaves of an altmap.

use super::{GIB, KIB, MIB, pagemap, range, with_device};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{Tables, Tails};
use mm_core::vmemmap::Note;
use testkit::testbed::{Costs, Setup, Sizes, Used};
use testkit::{OnBackend, on_backends};

fn base_pages_have_huge_leaves_from_the_altmap(kind: BackendKind) {
    let model = kind.model();
    let order = Sizes::of(model).order(4 * KIB);
    let ranges = [range(&model, 24 * GIB, 16 * GIB)];
    let plain = pagemap(&model, &ranges, order, Tails::None);
    with_device(kind, plain, |bed, pagemap, altmap| {
        // A frame for each of 65536 vmemmap pages, and 65 of counts, which spoil one block.
        assert_eq!(altmap.reserved().frames(), 129 * 512);
        let region = bed.online(&pagemap).unwrap();
        assert!(region.notes().is_empty(), "{:?}", region.notes());
        let report = bed.audit();
        // The last subsection of what is reserved is described apart from what follows.
        let leaf_tables = u64::from(bed.has_tables());
        assert_eq!(report.descriptor_frames, 65536);
        assert_eq!(report.leaf_tables, leaf_tables);
        // Two sections of what is reserved are described by one leaf each, the first by the first
        // whole block.
        let leaf = bed.leaf_of(ranges[0].start()).unwrap();
        assert_eq!(Some(leaf.frame), ranges[0].start().checked_add(512));
        assert_eq!(Some(leaf.order), bed.huge_leaf());
        assert_eq!(altmap.references(leaf.frame), Some(1));
        let tables = report.upper_tables + leaf_tables;
        assert_eq!(bed.frames().outstanding(), tables);
        bed.offline(region);
    });
}

/// Neither what is reserved nor the memory starts at a multiple of what a huge leaf describes.
fn huge_leaves_describe_what_is_reserved_and_the_rest_where_they_are_whole(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB + 64 * MIB, 17 * GIB - 64 * MIB)];
    let plain = pagemap(&model, &ranges, Order::BASE, Tails::None);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        assert!(region.notes().is_empty(), "{:?}", region.notes());
        let (reserved, rest) = ranges[0].split_at(altmap.reserved().frames());
        let used = [reserved, rest].map(|part| Used::base_pages(part.unwrap(), true));
        let costs = Costs::of(kind, &model);
        let expected = costs.report(&used, Tables::Private);
        let expected = costs.with_altmap(expected, altmap.reserved());
        assert_eq!(bed.audit(), expected);
        assert_eq!(altmap.in_use(), expected.descriptor_frames);
        bed.offline(region);
    });
}

/// Somebody has a frame of each of four blocks.
fn huge_leaves_without_a_block_are_reported(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB, 16 * GIB)];
    let plain = pagemap(&model, &ranges, Order::BASE, Tails::None);
    let needed = plain.altmap_needed().unwrap().frames();
    let more = ranges[0].take_first(needed + 512).0;
    kind.testbed(&Setup::new(&ranges).with_altmap(more), |bed| {
        let altmap = bed.altmaps()[0];
        let leaf = bed.huge_leaf().unwrap();
        let blocks = [(); 4].map(|()| altmap.allocate(leaf, NodeId::new(0)).unwrap());
        for block in blocks {
            let rest = block.frames().split_at(1).1.unwrap();
            // SAFETY: 1 and 2: allocated above, with one reference, and then one on each frame.
            unsafe {
                altmap.split(block);
                altmap.release_run(rest);
            }
        }
        let region = bed.online(&plain.with_altmap(altmap).unwrap()).unwrap();
        let notes: Vec<Note> = region.notes().iter().collect();
        let [Note::HugeLeavesUnavailable { leaves }] = notes[..] else {
            panic!("{notes:?}");
        };
        // 125 whole blocks are left for 127 leaves; the base pages between them may take one.
        assert!((2..=3).contains(&leaves), "{leaves}");
        assert_eq!(altmap.in_use(), 65536 + 4);
        bed.assert_described(ranges[0].take_first((leaves + 1) << 15).0, Order::BASE);
        bed.offline(region);
        for block in blocks {
            // SAFETY: 1 and 2: the first frame's reference is left.
            unsafe { altmap.release_run(PfnRange::single(block.first())) };
        }
        assert_eq!(altmap.in_use(), 0);
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
    huge_leaves_describe_what_is_reserved_and_the_rest_where_they_are_whole,
    huge_leaves_without_a_block_are_reported,
    a_part_of_a_huge_leaf_goes_back_to_the_altmap,
);
