//! Memory in which a part of a page went offline, and others came online in its place.

use super::{Form, reorder};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{Tables, Tails};
use mm_core::vmemmap::FoldError;
use testkit::testbed::{Setup, Sizes, Testbed};
use testkit::{OnBackend, on_backends};

/// The pages that the tests have, of four subsections, and what they are made of.
fn orders(sizes: Sizes) -> (Order, Order) {
    let piece = sizes.subsection();
    (Order::new(piece.get() + 2).unwrap(), piece)
}

/// Takes `pieces`, a part of pages of `before`, offline, and brings base pages online instead.
fn replace(bed: &mut dyn Testbed<'_>, before: Form, memory: PfnRange, pieces: PfnRange) {
    let (model, ranges) = (bed.model(), [memory]);
    let base = Form {
        huge_leaves: false,
        ..Form::new(Order::BASE, Tails::None, Tables::Private)
    };
    bed.depopulate(&before.pagemap(&model, &ranges), pieces)
        .map(drop)
        .unwrap();
    bed.populate(&base.pagemap(&model, &ranges), pieces)
        .map(drop)
        .unwrap();
}

/// What came online in the place of a part of a page is not changed with the rest of it: all of it has to be
/// asked for.
fn others_in_the_place_of_a_part_of_a_page_are_left_alone(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, piece) = orders(sizes);
    let memory = sizes.blocks(large, 4, 1);
    let ranges = [memory];
    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
        // Before what is asked for, in it, and behind it.
        for (other, part, count) in [(1, 2, 1), (2, 1, 2), (1, 1, 2), (3, 1, 2)] {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let form = |order| Form {
                    huge_leaves: false,
                    ..Form::new(order, tails, Tables::Private)
                };
                let region = bed.online(&form(large).pagemap(&model, &ranges)).unwrap();
                replace(bed, form(large), memory, sizes.blocks(piece, 16 + other, 1));
                let part = sizes.blocks(piece, 16 + part, count);
                let after = form(piece).pagemap(&model, &ranges);
                let snapshot = bed.snapshot();
                let stopped = bed.reorder(&after, part).unwrap_err();
                assert_eq!(stopped.error, FoldError::SplitsPage { pages: memory });
                assert_eq!((stopped.done.units, stopped.done.rest), (0, Some(part)));
                bed.assert_unchanged(&snapshot, "others are there");
                reorder(bed, &after, memory, large).map(drop).unwrap();
                bed.assert_described(memory, piece);
                bed.audit();
                bed.offline(region);
            });
        }
    }
}

/// A compound page has one tail frame, whatever of it was mapped to that before.
fn what_of_a_page_shares_its_tails_keeps_the_frame(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, piece) = orders(sizes);
    // A whole table's, which changes at once, and less.
    let all = model.granule().entries_per_table() as u64 / sizes.pages(large);
    let counts: &[u64] = if all > 256 { &[1, 3] } else { &[1, 3, all] };
    for count in counts {
        let memory = sizes.blocks(large, all, *count);
        let ranges = [memory];
        kind.testbed(&Setup::new(&ranges), |bed| {
            let form = Form::new(large, Tails::PerCompound, Tables::Private);
            let pagemap = form.pagemap(&model, &ranges);
            let region = bed.online(&pagemap).unwrap();
            let report = bed.audit();
            let last_page = all + count - 1;
            for first in [4 * all, 4 * last_page + 1, 4 * last_page + 2] {
                // What comes after the head, or is behind it.
                let pieces = sizes.blocks(piece, first, 2);
                let kept = sizes.blocks(piece, first / 4 * 4 + 3, 1);
                let tail = bed.holder_of(kept.last());
                replace(bed, form, memory, pieces);
                reorder(bed, &pagemap, memory, large).map(drop).unwrap();
                assert_eq!(bed.audit(), report, "{pieces} of {count}");
                if !pieces.overlaps(kept) {
                    assert_eq!(bed.holder_of(kept.last()), tail);
                }
                bed.assert_described(memory, large);
            }
            bed.offline(region);
        });
    }
}

/// Pages that are smaller than what a vmemmap page describes change together.
fn small_pages_of_a_vmemmap_page_are_one_unit(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.natural(), 4, 1);
    let ranges = [memory];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let form = |order| Form {
            huge_leaves: false,
            ..Form::new(Order::new(order).unwrap(), Tails::None, Tables::Private)
        };
        let region = bed.online(&form(0).pagemap(&model, &ranges)).unwrap();
        let page = sizes.vmemmap_page();
        let part = sizes.blocks(page, 4 << (sizes.natural().get() - page.get()), 2);
        let done = reorder(
            bed,
            &form(2).pagemap(&model, &ranges),
            part,
            sizes.natural(),
        );
        assert_eq!(done.unwrap().units, 2);
        bed.assert_described(part, Order::new(2).unwrap());
        bed.offline(region);
    });
}

on_backends!(all:
    others_in_the_place_of_a_part_of_a_page_are_left_alone,
    what_of_a_page_shares_its_tails_keeps_the_frame,
    small_pages_of_a_vmemmap_page_are_one_unit,
);
