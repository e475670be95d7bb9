//! Base pages by huge leaves of vmemmap, and parts of them that go offline and come back.

use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables};
use mm_core::vmemmap::{AuditReport, Note};
use testkit::testbed::{Costs, Setup, Sizes, Testbed, Used, shuffled};
use testkit::{OnBackend, on_backends};

fn base_pages<'p>(model: &MemoryModel, ranges: &'p [PfnRange]) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::BASE_PAGES)
        .unwrap()
        .with_piece(Piece::Range)
}

/// As much as `leaves` huge leaves describe, from a multiple of that on.
fn memory(sizes: Sizes, leaves: u64) -> PfnRange {
    sizes.blocks(sizes.table(), 6, leaves)
}

/// Every subsection of a leaf with 4K pages, some of the thousands with larger ones.
fn offsets(sizes: Sizes) -> Vec<usize> {
    let all = 1usize << (sizes.table().get() - sizes.subsection().get());
    let most = match sizes.entries() {
        ..=512 => return (0..all).collect(),
        513..=2048 => 24,
        _ => 3,
    };
    let some = shuffled(all, 5).into_iter().take(most - 2);
    [0, all - 1].into_iter().chain(some).collect()
}

/// What is left of `leaves` huge leaves without `frames` of them, which have split `split` of
/// these.
fn without(
    kind: BackendKind,
    model: &MemoryModel,
    all: PfnRange,
    frames: u64,
    split: u64,
) -> AuditReport {
    let whole = Costs::of(kind, model).report(&[Used::base_pages(all, true)], Tables::Private);
    let pages = frames / model.descriptors_per_page();
    AuditReport {
        descriptor_frames: whole.descriptor_frames - pages,
        mapped_pages: whole.mapped_pages - pages,
        leaf_tables: if !kind.has_tables() { 0 } else { split },
        ..whole
    }
}

fn huge_leaves_cost_no_leaf_table(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let small = sizes.small().frames();
    let whole = memory(sizes, 1);
    // A leaf alone, and one with a table at each end.
    let start = Pfn::new(whole.start().get() - small).unwrap();

    let ragged = PfnRange::new(start, whole.frames() + 2 * small).unwrap();
    for (range, leaf_tables) in [(whole, 0), (ragged, 2)] {
        let ranges = [range];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges)).unwrap();
            assert!(region.notes().is_empty(), "{:?}", region.notes());
            let report = bed.audit();
            let used = Used::base_pages(range, true);
            assert_eq!(
                report,
                Costs::of(kind, &model).report(&[used], Tables::Private)
            );
            assert_eq!(
                report.leaf_tables,
                if bed.has_tables() { leaf_tables } else { 0 }
            );
            let leaf = bed.leaf_of(whole.start()).unwrap();
            assert_eq!(Some(leaf.order), bed.huge_leaf());
            bed.assert_described(range, Order::BASE);
            bed.offline(region);
        });
    }
}

/// Of a fresh leaf each time: it goes, the rest stays where it was, and it comes back.
fn any_subsection_of_a_huge_leaf_can_go(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [memory(sizes, 1)];
    let pieces = sizes.subsections(ranges[0]);
    let setup = Setup::new(&ranges).with_cpus_that_cache(ranges[0]);
    kind.testbed(&setup, |bed| {
        let pagemap = base_pages(&model, &ranges);
        for offset in offsets(sizes) {
            let region = bed.online(&pagemap).unwrap();
            let block = bed.leaf_of(ranges[0].start()).unwrap().frame;
            bed.fill_cpus(ranges[0]);
            let piece = pieces[offset];
            bed.depopulate(&pagemap, piece).unwrap();
            let expected = without(kind, &model, ranges[0], piece.frames(), 1);
            assert_eq!(bed.audit(), expected, "{offset}");
            bed.assert_offline(piece);
            let again = bed.depopulate(&pagemap, piece).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::NotOnline);
            // The others are where they were.
            for other in [0, offset.saturating_sub(1), offset + 1, pieces.len() - 1] {
                if let Some(other) = pieces.get(other).filter(|other| **other != piece) {
                    let first = other.start().get() - ranges[0].start().get();
                    let holder = block.saturating_add(first / model.descriptors_per_page());
                    assert_eq!(bed.holder_of(other.start()), Some(holder));
                    bed.assert_described(*other, Order::BASE);
                }
            }
            bed.populate(&pagemap, piece).map(drop).unwrap();
            assert_eq!(bed.audit(), without(kind, &model, ranges[0], 0, 1));
            bed.assert_described(piece, Order::BASE);
            bed.fill_cpus(ranges[0]);
            bed.offline(region);
            assert_eq!(bed.frames().outstanding(), 0);
        }
    });
}

/// The end of one leaf and the start of the next; then all that lies between two ends.
fn a_piece_may_end_within_leaves_at_both_ends(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [memory(sizes, 3)];
    let table = sizes.table().frames();
    let small = sizes.small().frames();
    let part = |first: u64, end: u64| {
        let start = ranges[0].start().saturating_add(first);
        PfnRange::new(start, end - first).unwrap()
    };
    for (piece, split, gone) in [
        (part(table - small, table + small), 2, 0),
        (part(table - small, 2 * table + small), 2, 1),
        (part(table, 2 * table + small), 1, 1),
        (part(table - small, 2 * table), 1, 1),
        (part(table, 2 * table), 0, 1),
    ] {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = base_pages(&model, &ranges);
            let region = bed.online(&pagemap).unwrap();
            bed.fill_cpus(ranges[0]);
            bed.depopulate(&pagemap, piece).unwrap();
            let expected = without(kind, &model, ranges[0], piece.frames(), split);
            assert_eq!(bed.audit(), expected, "{piece}");
            bed.assert_offline(piece);
            let offset = |frame: Pfn| frame.get() - ranges[0].start().get();
            let (first, last) = (offset(piece.start()), offset(piece.last()));
            bed.assert_described(part(0, first), Order::BASE);
            bed.assert_described(part(last + 1, 3 * table), Order::BASE);
            // A whole leaf of it comes back as one.
            bed.populate(&pagemap, piece).map(drop).unwrap();
            let back = without(kind, &model, ranges[0], 0, split);
            assert_eq!(bed.audit(), back, "{piece}, {gone} whole");
            bed.offline(region);
        });
    }
}

/// All subsections of a leaf go, the table with the last of them, and the leaf comes back whole.
fn a_leaf_that_has_gone_piece_by_piece_comes_back_whole(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [memory(sizes, 1)];
    let count = 32;
    let unit = ranges[0].frames() / count;
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = base_pages(&model, &ranges);
        let _stays = bed.online(&pagemap).unwrap();
        let before = bed.audit();
        let mut gone = 0;
        for index in shuffled(count as usize, 11) {
            let start = ranges[0].start().saturating_add(index as u64 * unit);
            let piece = PfnRange::new(start, unit).unwrap();
            bed.fill_cpus(ranges[0]);
            bed.depopulate(&pagemap, piece).unwrap();
            gone += unit;
            if gone < ranges[0].frames() {
                assert_eq!(bed.audit(), without(kind, &model, ranges[0], gone, 1));
            }
        }
        assert_eq!(bed.audit(), AuditReport::default());
        let region = bed.online(&pagemap).unwrap();
        assert_eq!(bed.audit(), before);
        bed.offline(region);
    });
}

/// A block that came as one goes back in parts, and is whole again then.
fn the_block_of_a_split_leaf_is_whole_again_when_all_has_gone(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [memory(sizes, 1)];
    // RAM for one block, and little more.
    let block = sizes.entries();
    let setup = Setup::new(&ranges).with_ram((2 * block).max(64));
    kind.testbed(&setup, |bed| {
        let pagemap = base_pages(&model, &ranges);
        let piece = sizes.subsections(ranges[0])[1];
        for _ in 0..3 {
            let region = bed.online(&pagemap).unwrap();
            let block_of = |bed: &dyn Testbed<'_>| bed.leaf_of(ranges[0].start()).unwrap();
            assert_eq!(Some(block_of(bed).order), bed.huge_leaf());
            bed.depopulate(&pagemap, piece).unwrap();
            assert_eq!(block_of(bed).order, Order::BASE);
            bed.audit();
            bed.offline(region);
        }
    });
}

fn without_blocks_base_pages_take_their_place_and_it_is_said(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [memory(sizes, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = base_pages(&model, &ranges);
        bed.frames().fail_blocks(true);
        let region = bed.online(&pagemap).unwrap();
        bed.frames().fail_blocks(false);
        let notes: Vec<Note> = region.notes().iter().collect();
        assert_eq!(notes, [Note::HugeLeavesUnavailable { leaves: 1 }]);
        assert_eq!(bed.audit(), without(kind, &model, ranges[0], 0, 1));
        bed.assert_described(ranges[0], Order::BASE);
        bed.offline(region);
    });
}

on_backends!(all:
    huge_leaves_cost_no_leaf_table,
    any_subsection_of_a_huge_leaf_can_go,
    a_piece_may_end_within_leaves_at_both_ends,
    a_leaf_that_has_gone_piece_by_piece_comes_back_whole,
    the_block_of_a_split_leaf_is_whole_again_when_all_has_gone,
    without_blocks_base_pages_take_their_place_and_it_is_said,
);
