//! What packed heads cost: the figures that were asked for, and closed formulas.

use super::{assert_packed, packed, report};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, HeadsFallback, Piece, Tables};
use mm_core::vmemmap::Note;
use testkit::testbed::{Costs, Setup, Sizes, Used};
use testkit::{OnBackend, on_backends};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// On four levels 40 frames for a TiB of 1 GiB pages, and 8300 for one of 2 MiB pages. Five levels have a
/// table more below each of two entries of the root.
fn a_tib_costs_what_was_asked_for(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let range = PfnRange::from_bytes(PhysAddr::new(TIB), TIB, model.granule()).unwrap();
    // In Sv39 there is room for 256 GiB.
    if !model.all_frames().contains_range(range) {
        return;
    }
    let more = 2 * u64::from(kind.table_levels().saturating_sub(4));
    // The oracle has an entry for each page, which takes long, and no tables to count.
    if !kind.has_tables() {
        return;
    }
    for (bytes, heads, leaf_tables, upper, most) in [
        (GIB, 16, 1 + 1, 17 + 2, 40),
        (2 << 20, 8192, 1 + 16, 17 + 2, 8300),
    ] {
        let order = sizes.order(bytes);
        let pagemap = packed(&model, std::slice::from_ref(&range), order).with_piece(Piece::Range);
        kind.testbed(&Setup::new(&[range]), |bed| {
            let region = bed.online(&pagemap).unwrap();
            assert!(region.notes().is_empty(), "{:?}", region.notes());
            let audited = bed.recount_by_library().unwrap();
            assert_eq!(audited, report(kind, &[(range, order)], Tables::Shared));
            assert_eq!(audited.descriptor_frames, heads + 1);
            assert_eq!(audited.leaf_tables, leaf_tables);
            assert_eq!(audited.upper_tables, upper + more);
            assert!(audited.frames() <= most + more, "{audited:?}");
            assert_packed(bed, range, order);
            bed.offline(region);
        });
    }
}

/// Ranges that begin and end within pages of places, leaf tables and upper tables.
fn packed_heads_cost_what_the_formula_says(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let per_page = model.descriptors_per_page();
    let larger = Order::new(sizes.gigantic().get() + 2).unwrap();
    let larger = larger.min(model.max_order());
    let smallest = sizes.vmemmap_page().max(sizes.subsection());
    for (order, first, count) in [
        (smallest, 3, 5),
        (smallest, per_page - 1, 2),
        (sizes.small(), 3, 5),
        (sizes.natural(), 2 * per_page - 1, 3),
        (sizes.natural(), per_page, per_page),
        (sizes.table(), 5, 3),
        (sizes.gigantic(), 1, 2),
        (larger, 1, 1),
    ] {
        let ranges = [sizes.blocks(order, first, count)];
        let few = ranges[0].frames() / model.section().frames() <= 64;
        let pieces = [Piece::Range, Piece::Section, Piece::Subsection];
        let pieces = &pieces[..if few { 3 } else { 1 }];
        kind.testbed(&Setup::new(&ranges), |bed| {
            for tables in [Tables::Shared, Tables::Private] {
                // So many private tables are not needed to see it.
                if !few && tables == Tables::Private {
                    continue;
                }
                for piece in pieces {
                    let pagemap = packed(&model, &ranges, order).with_tables(tables);
                    let region = bed.online(&pagemap.with_piece(*piece)).unwrap();
                    let as_asked = region.tables() == tables;
                    assert_eq!(as_asked, bed.shares_tables() || tables == Tables::Private);
                    assert_eq!(as_asked, region.notes().is_empty(), "{:?}", region.notes());
                    let tables = region.tables();
                    let expected = report(kind, &[(ranges[0], order)], tables);
                    assert_eq!(bed.audit(), expected, "{order} {tables:?} {piece:?}");
                    assert_packed(bed, ranges[0], order);
                    bed.fill_cpus(ranges[0].take_first(1 << 15).0);
                    bed.offline(region);
                }
            }
        });
    }
}

fn the_first_and_the_last_memory_of_the_model_has_packed_heads(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for order in [sizes.small(), sizes.gigantic()] {
        let last = (model.all_frames().frames() >> order.get()) - 1;
        for first in [0, last] {
            let ranges = [sizes.blocks(order, first, 1)];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let region = bed.online(&packed(&model, &ranges, order)).unwrap();
                let expected = report(kind, &[(ranges[0], order)], region.tables());
                assert_eq!(bed.audit(), expected, "{order} {first}");
                assert_packed(bed, ranges[0], order);
                bed.offline(region);
            });
        }
    }
}

fn pages_that_fill_no_vmemmap_page_have_heads_in_place_and_it_is_said(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let below = Order::new(sizes.vmemmap_page().get() - 1).unwrap();
    let unit = sizes.subsection();
    for (order, fallback) in [
        (Order::BASE, HeadsFallback::BasePages),
        (below, HeadsFallback::NoWholePage { order: below }),
    ] {
        let ranges = [sizes.blocks(unit, 7, 3)];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = DevPagemap::new(&model, &ranges, Geometry::compound(order)).unwrap();
            let pagemap = pagemap.with_huge_leaves(false).with_heads(Heads::Packed);
            let region = bed.online(&pagemap).unwrap();
            let said = region.notes().iter().next();
            assert_eq!(said, Some(Note::Heads(fallback)));
            let used = Used::compound(ranges[0], order, region.tails());
            let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
            assert_eq!(bed.audit(), expected);
            bed.assert_described(ranges[0], order);
            bed.offline(region);
        });
    }
}

on_backends!(pages_of_4k: a_tib_costs_what_was_asked_for);
on_backends!(all:
    packed_heads_cost_what_the_formula_says,
    the_first_and_the_last_memory_of_the_model_has_packed_heads,
    pages_that_fill_no_vmemmap_page_have_heads_in_place_and_it_is_said,
);
