//! One leaf table for all the places where nothing but the same tail frame is mapped.
//!
//! That is possible where the span of a leaf table lies wholly within one compound page: above 128
//! MiB with 4K pages, above 8 GiB with 16K, above 512 GiB with 64K. Otherwise tables are private,
//! and that is said.

use hosted::BackendKind;
use hosted::inspect::SeenEntry;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::frame::InspectFrames;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, TablesFallback, Tails};
use mm_core::vmemmap::Note;
use std::collections::{BTreeMap, BTreeSet};
use testkit::testbed::{self, Costs, Faults, SHARED_TAILS, Setup, Sizes, Testbed, Used, fail_each};
use testkit::{OnBackend, on_backends};

const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

fn pagemap<'p>(
    model: &MemoryModel,
    ranges: &'p [PfnRange],
    order: Order,
    tails: Tails,
) -> DevPagemap<'p> {
    testbed::pagemap(model, ranges, order, tails).with_tables(Tables::Shared)
}

/// The frame behind each vmemmap page, as the reader of bytes sees it.
fn frames_behind(bed: &dyn Testbed<'_>, frames: PfnRange) -> BTreeMap<u64, Pfn> {
    let mut behind = BTreeMap::new();
    let range = bed.model().descriptors(frames).unwrap();
    bed.scan(range, &mut |entry| {
        if let SeenEntry::Leaf(leaf) = entry {
            behind.insert(leaf.at.get(), leaf.frame);
        }
    });
    behind
}

/// Pieces that are larger than sections where these are small for the memory.
fn pieces(model: &MemoryModel, frames: PfnRange) -> impl Iterator<Item = Piece> + use<> {
    let many = frames.frames() / model.subsection().frames() > 1 << 14;
    let all = PIECES.into_iter();
    all.skip(usize::from(many))
}

fn memory_costs_a_table_for_each_head_and_one_for_each_tail_frame(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let gigantic = sizes.gigantic();
    let larger = Order::new(gigantic.get() + 2)
        .unwrap()
        .min(model.max_order());
    for (order, count) in [(gigantic, 1), (gigantic, 3), (larger, 2)] {
        for tails in SHARED_TAILS {
            let ranges = [sizes.blocks(order, 2, count)];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let used = Used::compound(ranges[0], order, tails);
                let expected = Costs::of(kind, &model).report(&[used], Tables::Shared);
                let of_tails = if tails == Tails::PerOrder { 1 } else { count };
                assert_eq!(expected.leaf_tables, count + of_tails);
                for piece in pieces(&model, ranges[0]) {
                    let pagemap = pagemap(&model, &ranges, order, tails).with_piece(piece);
                    let region = bed.online(&pagemap).unwrap();
                    assert!(region.notes().is_empty(), "{:?}", region.notes());
                    assert_eq!(region.tables(), Tables::Shared);
                    assert_eq!(bed.audit(), expected, "{order} {tails:?} {piece:?}");
                    let pages = frames_behind(bed, ranges[0]);
                    assert_eq!(pages.len() as u64, expected.mapped_pages);
                    bed.fill_cpus(ranges[0]);
                    bed.offline(region);
                    assert!(frames_behind(bed, ranges[0]).is_empty());
                }
            });
        }
    }
}

fn every_descriptor_behind_a_shared_table_is_that_of_its_compound_page(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    for tails in SHARED_TAILS {
        let ranges = [sizes.blocks(order, 2, 2)];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&pagemap(&model, &ranges, order, tails)).unwrap();
            // The last table's worth of each, and the first frames.
            let table = sizes.table();
            for compound in 2..4u64 {
                let per = 1 << (order.get() - table.get());
                let last = sizes.blocks(table, (compound + 1) * per - 1, 1);
                let part = last.take_first(1 << 18).0;
                bed.assert_described(part, order);
                bed.assert_described(PfnRange::single(last.last()), order);
                let head = sizes.blocks(order, compound, 1);
                bed.assert_described(head.take_first(1 << 12).0, order);
            }
            bed.offline(region);
        });
    }
}

fn tails_that_fill_no_table_get_private_ones_and_it_is_said(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for order in [sizes.natural(), sizes.table()] {
        for tails in SHARED_TAILS {
            let ranges = [sizes.blocks(order, 5, 3)];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let region = bed.online(&pagemap(&model, &ranges, order, tails)).unwrap();
                let notes: Vec<Note> = region.notes().iter().collect();
                let fallback = TablesFallback::NoWholeTable { order };
                assert_eq!(notes, [Note::Tables(fallback)]);
                assert_eq!(region.tables(), Tables::Private);
                let used = Used::compound(ranges[0], order, tails);
                let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
                assert_eq!(bed.audit(), expected);
                bed.offline(region);
            });
        }
    }
}

/// A gigantic page twice as large as it has to be: one table with the head, three without.
fn four_tables(model: &MemoryModel) -> Order {
    let gigantic = Sizes::of(*model).gigantic();
    Order::new(gigantic.get() + 1)
        .unwrap()
        .min(model.max_order())
}

/// The leaf tables of compound pages of `order`, when a part of each table in `split` has been
/// offline.
fn leaf_tables_with_copies(
    model: &MemoryModel,
    frames: PfnRange,
    order: Order,
    tails: Tails,
    split: &[PfnRange],
) -> u64 {
    let table = Sizes::of(*model).table();
    let number = |frame: Pfn| frame.get() >> table.get();
    let copies: BTreeSet<u64> = split.iter().map(|piece| number(piece.start())).collect();
    let per_compound = 1 << (order.get() - table.get());
    let mut private = 0;
    let mut with_links = 0;
    for first in (number(frames.start())..=number(frames.last())).step_by(per_compound) {
        let tables = first..first + per_compound as u64;
        let copied = tables
            .skip(1)
            .filter(|table| copies.contains(table))
            .count();
        private += 1 + copied as u64;
        with_links += u64::from(copied < per_compound - 1);
    }
    private
        + if tails == Tails::PerOrder {
            with_links.min(1)
        } else {
            with_links
        }
}

/// Pieces of two compound pages go offline one by one, and come back.
fn a_part_of_a_shared_table_gets_a_copy(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = four_tables(&model);
    for tails in SHARED_TAILS {
        for step in [1, 37, 61] {
            let ranges = [sizes.blocks(order, 2, 2)];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let pagemap = pagemap(&model, &ranges, order, tails);
                let region = bed.online(&pagemap).unwrap();
                let before = bed.audit();
                let mut expected = frames_behind(bed, ranges[0]);
                let all = sizes.subsections(ranges[0]);
                // From the second table on.
                let second = (sizes.table().frames() / sizes.subsection().frames()) as usize;
                let gone: Vec<PfnRange> = (0..20)
                    .map(|turn| all[(second + turn * step) % all.len()])
                    .collect();
                for piece in &gone {
                    bed.fill_cpus(ranges[0]);
                    bed.depopulate(&pagemap, *piece).unwrap();
                    let addresses = model.descriptors(*piece).unwrap();
                    let span = addresses.start().get()..=addresses.last().get();
                    expected.retain(|at, _| !span.contains(at));
                    assert_eq!(frames_behind(bed, ranges[0]), expected);
                    bed.audit();
                    let again = bed.depopulate(&pagemap, *piece);
                    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotOnline);
                }
                for piece in &gone {
                    bed.populate(&pagemap, *piece).unwrap();
                    bed.audit();
                    bed.assert_described(*piece, order);
                }
                let after = bed.audit();
                assert_eq!(after.descriptor_frames, before.descriptor_frames);
                let copies = leaf_tables_with_copies(&model, ranges[0], order, tails, &gone);
                assert_eq!(after.leaf_tables, copies, "{tails:?} {step}");
                bed.fill_cpus(ranges[0]);
                bed.offline(region);
            });
        }
    }
}

/// From the middle of one shared table to the middle of another.
fn a_copy_that_fails_changes_nothing(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = four_tables(&model);
    let table = sizes.table().frames();
    for tails in SHARED_TAILS {
        let ranges = [sizes.blocks(order, 2, 1)];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = pagemap(&model, &ranges, order, tails);
            let region = bed.online(&pagemap).unwrap();
            // From within the second table to within the third, or to the end where there is none.
            let middle = ranges[0].split_at(table + table / 2).1.unwrap();
            let piece = middle.take_first(table).0;
            let copies = if piece.last() == ranges[0].last() {
                1
            } else {
                2
            };
            // Brings back what is shared besides.
            let mut region = Some(region);
            let failures = fail_each(
                bed,
                Faults::Ram,
                |bed| bed.depopulate(&pagemap, piece),
                |bed, _| {
                    bed.offline(region.take().unwrap());
                    region = Some(bed.online(&pagemap).unwrap());
                },
            );
            assert_eq!(failures, copies);
            // What is left goes without any memory.
            bed.depopulate(&pagemap, piece).unwrap();
            bed.frames().fail_after(0);
            bed.offline(region.unwrap());
            bed.frames().no_more_faults();
        });
    }
}

fn a_table_serves_regions_one_after_the_other(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [[sizes.blocks(order, 2, 1)], [sizes.blocks(order, 5, 2)]];
    kind.testbed(&Setup::new(&ranges.concat()), |bed| {
        let maps = [0, 1].map(|one: usize| pagemap(&model, &ranges[one], order, Tails::PerOrder));
        let both = |bed: &mut dyn Testbed<'_>| bed.audit().leaf_tables;
        let first = bed.online(&maps[0]).unwrap();
        assert_eq!(both(bed), 2);
        let second = bed.online(&maps[1]).unwrap();
        assert_eq!(both(bed), 1 + 2 + 1);
        bed.offline(first);
        assert_eq!(both(bed), 2 + 1);
        let first = bed.online(&maps[0]).unwrap();
        assert_eq!(both(bed), 1 + 2 + 1);
        bed.offline(second);
        bed.offline(first);
        // Nothing remembers the dead table, whatever its frame is used for now.
        let base = DevPagemap::new(&model, &ranges[1], Geometry::compound(sizes.natural()));
        let base = bed.online(&base.unwrap()).unwrap();
        let first = bed.online(&maps[0]).unwrap();
        bed.audit();
        bed.offline(first);
        bed.offline(base);
    });
}

fn nothing_is_counted_twice_for_its_links(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.gigantic().get() + 1)
        .unwrap()
        .min(model.max_order());
    let ranges = [sizes.blocks(order, 2, 3)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder);
        let region = bed.online(&pagemap).unwrap();
        let tail = bed.leaf_of(ranges[0].last()).unwrap().frame;
        // The rest of each head's table, and the shared table once.
        let expected = 3 * (sizes.entries() - 1) + sizes.entries();
        assert_eq!(bed.frames().references(tail), Some(expected));
        bed.offline(region);
    });
}

/// The oracle has no tables.
#[test]
fn a_page_table_without_tables_says_so() {
    let kind = BackendKind::Sim;
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 2, 2)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed
            .online(&pagemap(&model, &ranges, order, Tails::PerOrder))
            .unwrap();
        let notes: Vec<Note> = region.notes().iter().collect();
        assert_eq!(notes, [Note::Tables(TablesFallback::NotSupported)]);
        assert_eq!(region.tables(), Tables::Private);
        bed.offline(region);
    });
}

on_backends!(radix:
    memory_costs_a_table_for_each_head_and_one_for_each_tail_frame,
    every_descriptor_behind_a_shared_table_is_that_of_its_compound_page,
    tails_that_fill_no_table_get_private_ones_and_it_is_said,
    a_part_of_a_shared_table_gets_a_copy,
    a_copy_that_fails_changes_nothing,
    a_table_serves_regions_one_after_the_other,
    nothing_is_counted_twice_for_its_links,
);
