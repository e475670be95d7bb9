//! What memory costs: the figures that were asked for, literally, on every backend with 4 KiB pages,
//! and on every granule what closed formulas over page size, range and compound size say.

use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails, TailsFallback};
use mm_core::vmemmap::{AuditReport, Note};
use testkit::testbed::{Costs, Encoding, SHARED_TAILS, Setup, Sizes, Used, pagemap};
use testkit::{OnBackend, on_backends};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PIECES: [Piece; 3] = [Piece::Section, Piece::Range, Piece::Subsection];

fn range(model: &MemoryModel, start: u64, bytes: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), bytes, model.granule()).unwrap()
}

/// Brings `ranges` online and offline by each of `pieces`, which may make no difference, and answers
/// with what that cost and what was noted.
fn cost(
    kind: BackendKind,
    setup: &Setup,
    pagemap: &DevPagemap<'_>,
    pieces: &[Piece],
) -> (AuditReport, Vec<Note>) {
    let mut costs = Vec::new();
    kind.testbed(setup, |bed| {
        for piece in pieces {
            let region = bed.online(&pagemap.with_piece(*piece)).unwrap();
            let notes: Vec<Note> = region.notes().iter().collect();
            costs.push((bed.audit(), notes));
            for range in pagemap.ranges() {
                // The ends, and some of what lies between.
                let order = pagemap.geometry().order();
                let some = range.frames().min(1 << 14);
                bed.assert_described(range.take_first(some).0, order);
                let last = range.split_at(range.frames() - some).1.unwrap_or(*range);
                bed.assert_described(last, order);
            }
            bed.offline(region);
        }
    });
    let first = costs[0].clone();
    assert!(costs.iter().all(|cost| *cost == first), "{costs:?}");
    first
}

/// Descriptor frames and leaf tables of 1 GiB.
fn a_gib_costs_what_was_asked_for(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB, GIB)];
    let (private, shared) = (Tables::Private, Tables::Shared);
    for (align, tails, tables, descriptor_frames, leaf_tables) in [
        (GIB, Tails::PerCompound, private, 2, 8),
        (GIB, Tails::PerCompound, shared, 2, 2),
        (GIB, Tails::PerOrder, private, 2, 8),
        (GIB, Tails::PerOrder, shared, 2, 2),
        (2 * MIB, Tails::PerCompound, private, 1024, 8),
        (2 * MIB, Tails::PerCompound, shared, 1024, 8),
        (2 * MIB, Tails::PerOrder, private, 513, 8),
        (2 * MIB, Tails::PerOrder, shared, 513, 8),
    ] {
        let order = Sizes::of(model).order(align);
        let pagemap = pagemap(&model, &ranges, order, tails).with_tables(tables);
        let (report, _) = cost(kind, &Setup::new(&ranges), &pagemap, &PIECES);
        assert_eq!(report.descriptor_frames, descriptor_frames);
        let leaf_tables = if !kind.has_tables() { 0 } else { leaf_tables };
        assert_eq!(
            report.leaf_tables, leaf_tables,
            "{align:#x} {tails:?} {tables:?}"
        );
        assert_eq!(report.mapped_pages, 4096);
    }
}

/// Whether there is room for a TiB behind a TiB. In Sv39 there is room for 256 GiB.
fn has_room_for_a_tib(model: &MemoryModel) -> bool {
    model.all_frames().frames() << model.granule().shift() >= 2 * TIB
}

/// One head and one table of its own for each GiB, one tail frame and one table for all.
fn a_tib_of_1_gib_pages_costs_at_most_2_03_frames_for_each(kind: BackendKind) {
    let model = kind.model();
    if !has_room_for_a_tib(&model) {
        return;
    }
    let ranges = [range(&model, TIB, TIB)];
    let order = Sizes::of(model).order(GIB);
    let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder).with_tables(Tables::Shared);
    let (report, _) = cost(kind, &Setup::new(&ranges), &pagemap, &[Piece::Section]);
    assert_eq!(report.descriptor_frames, 1024 + 1);
    if kind.has_tables() {
        assert_eq!(report.leaf_tables, 1024 + 1);
    }
    assert!(report.frames() * 100 <= 203 * 1024, "{report:?}");
    // 8 MiB, and the tables above.
    assert!(report.frames() * 4 <= 8 * 1024 + 128, "{report:?}");
}

fn a_tib_of_2_mib_pages_costs_at_most_2081_mib(kind: BackendKind) {
    let model = kind.model();
    if !has_room_for_a_tib(&model) {
        return;
    }
    let ranges = [range(&model, TIB, TIB)];
    let order = Sizes::of(model).order(2 * MIB);
    let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder);
    let setup = Setup::new(&ranges).with_ram(1 << 20);
    let (report, _) = cost(kind, &setup, &pagemap, &[Piece::Section]);
    assert_eq!(report.descriptor_frames, 512 * 1024 + 1);
    if kind.has_tables() {
        assert_eq!(report.leaf_tables, 8 * 1024);
    }
    assert!(report.frames() * 4 <= 2081 * 1024, "{report:?}");
}

/// Ranges that start and end within sections, leaf tables and upper tables, of compound pages from
/// the natural ones to the largest.
fn compound_pages_cost_what_the_formula_says(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (natural, table) = (sizes.natural(), sizes.table());
    let larger = Order::new(natural.get() + 3).unwrap();
    let per_table = |order: Order| 1u64 << (table.get() - order.get());
    let largest_pages = model.all_frames().frames() / model.max_order().frames();
    for (order, first, count) in [
        // Within a leaf table, across the end of one, and more than one.
        (sizes.small(), 3, 5),
        (natural, 5 * per_table(natural) - 2, 5),
        (natural, 3, per_table(natural) + 2),
        (larger, 3 * per_table(larger) - 1, 4),
        (table, 5, 2),
        (sizes.gigantic(), 1, 2),
        // In Sv39 there is one, the first.
        (model.max_order(), (largest_pages - 1).min(1), 1),
    ] {
        let ranges = [sizes.blocks(order, first, count)];
        let many = ranges[0].frames() / model.section().frames() > 256;
        let pieces = if many { &PIECES[1..2] } else { &PIECES };
        for (tails, encoding) in [
            (Tails::PerCompound, Encoding::Pointer),
            (Tails::PerOrder, Encoding::Mask),
        ] {
            let setup = Setup::new(&ranges).with_encoding(encoding);
            let pagemap = pagemap(&model, &ranges, order, tails);
            let used = Used::compound(ranges[0], order, tails);
            let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
            let (report, notes) = cost(kind, &setup, &pagemap, pieces);
            assert_eq!(report, expected, "{order} {tails:?}");
            assert_eq!(notes, []);
        }
    }
}

fn the_first_and_the_last_memory_of_the_model_comes_online(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for order in [sizes.small(), sizes.gigantic()] {
        let last = (model.all_frames().frames() >> order.get()) - 1;
        for first in [0, last] {
            let ranges = [sizes.blocks(order, first, 1)];
            for tails in SHARED_TAILS {
                let pagemap = pagemap(&model, &ranges, order, tails);
                let used = Used::compound(ranges[0], order, tails);
                let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
                let (report, _) = cost(kind, &Setup::new(&ranges), &pagemap, &[Piece::Range]);
                assert_eq!(report, expected, "{order} {first}");
            }
        }
    }
}

/// Several heads in each vmemmap page, one, and one in every other.
fn compound_pages_with_too_few_vmemmap_pages_are_base_pages_and_it_is_said(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let page = sizes.vmemmap_page().get();
    for order in [1, page - 2, page, page + 1] {
        let order = Order::new(order).unwrap();
        let unit = order.max(sizes.subsection());
        let ranges = [sizes.blocks(unit, 7, 5)];
        for tails in SHARED_TAILS {
            let worth = tails == Tails::PerOrder && order.get() == page + 1;
            let pagemap = pagemap(&model, &ranges, order, tails);
            let used = Used::compound(ranges[0], order, tails);
            let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
            let (report, notes) = cost(kind, &Setup::new(&ranges), &pagemap, &PIECES);
            assert_eq!(report, expected, "{order} {tails:?}");
            let fallback = Note::Tails(TailsFallback::NothingToSave {
                order,
                vmemmap_pages: sizes.pages(order),
            });
            let expected: &[Note] = if worth { &[] } else { &[fallback] };
            assert_eq!(notes, expected);
        }
    }
}

/// With 4K pages a section is what a huge leaf describes; with larger ones many are.
fn huge_leaves_need_pieces_that_cover_all_they_describe(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let table = sizes.table();
    let ranges = [sizes.blocks(table, 5, 1)];
    let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::PerCompound);
    let said = Note::Tails(TailsFallback::BasePages);
    for piece in PIECES {
        let frames = match piece {
            Piece::Subsection => model.subsection().frames(),
            Piece::Section => model.section().frames(),
            Piece::Range => ranges[0].frames(),
        };
        let whole = frames >= table.frames();

        let used = Used::base_pages(ranges[0], whole);
        let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
        let (report, notes) = cost(kind, &Setup::new(&ranges), &pagemap, &[piece]);
        assert_eq!(report, expected, "{piece:?}");
        let expected = match whole {
            true => vec![said],
            false => vec![said, Note::PiecesSmallerThanHugeLeaf],
        };
        assert_eq!(notes, expected, "{piece:?}");
    }
    // Where there is no place for a whole leaf, none is missed.
    let half = [ranges[0].take_first(table.frames() / 64).0];
    let pagemap = DevPagemap::new(&model, &half, Geometry::BASE_PAGES).unwrap();
    let used = Used::base_pages(half[0], false);
    let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
    let (report, notes) = cost(kind, &Setup::new(&half), &pagemap, &PIECES);
    assert_eq!((report, notes), (expected, Vec::new()));
}

on_backends!(pages_of_4k:
    a_gib_costs_what_was_asked_for,
    a_tib_of_1_gib_pages_costs_at_most_2_03_frames_for_each,
    a_tib_of_2_mib_pages_costs_at_most_2081_mib,
);

on_backends!(all:
    compound_pages_cost_what_the_formula_says,
    the_first_and_the_last_memory_of_the_model_comes_online,
    compound_pages_with_too_few_vmemmap_pages_are_base_pages_and_it_is_said,
    huge_leaves_need_pieces_that_cover_all_they_describe,
);
