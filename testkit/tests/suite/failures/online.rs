//! Bringing whole pagemaps online.

use super::{Place, SHARED_TAILS, few_neighbours, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, fail_each};

/// Fails all of it, and answers with how many allocations there are.
fn fail_online(kind: BackendKind, place: Place, pagemap: &DevPagemap<'_>) -> u64 {
    let mut failures = 0;
    place.run(kind, &place.setup(), |bed| {
        failures = fail_each(
            bed,
            Faults::Ram,
            |bed| bed.online(pagemap),
            |bed, region| {
                bed.offline(region);
            },
        );
    });
    failures
}

fn base_pages_leave_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    for (index, neighbour) in Neighbour::ALL.into_iter().enumerate() {
        let place = Place::new(kind, neighbour);
        let ranges = [place.first(place.sizes.small(), 1), place.across()];
        let piece = [Piece::Subsection, Piece::Section, Piece::Range][index % 3];
        let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None)
            .with_huge_leaves(false)
            .with_piece(piece);
        let frames = 5 * place.sizes.pages(place.sizes.small());
        assert!(fail_online(kind, place, &pagemap) >= frames);
    }
}

/// A huge leaf, and a table for the rest.
fn huge_leaves_leave_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    for neighbour in few_neighbours(Place::new(kind, Neighbour::Nobody).sizes) {
        let place = Place::new(kind, *neighbour);
        let leaf = place.first(place.sizes.table(), 1);
        let more = leaf.frames() + place.sizes.small().frames();
        let ranges = [PfnRange::new(leaf.start(), more).unwrap()];
        let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
        assert!(fail_online(kind, place, &pagemap) > 1);
    }
}

fn compound_pages_leave_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        for (tails, piece) in SHARED_TAILS.into_iter().zip([Piece::Section, Piece::Range]) {
            let place = Place::new(kind, neighbour);
            let small = place.sizes.small();
            let ranges = [place.across(), place.first(small, 3)];
            let pagemap = pagemap(&model, &ranges, small, tails).with_piece(piece);
            let own = if tails == Tails::PerOrder { 7 } else { 14 };
            assert!(fail_online(kind, place, &pagemap) >= own);
        }
    }
}

/// Compound pages that have several leaf tables.
fn gigantic_pages_leave_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    for (index, neighbour) in Neighbour::ALL.into_iter().enumerate() {
        for tails in SHARED_TAILS {
            let place = Place::new(kind, neighbour);
            let order = place.sizes.gigantic();
            let ranges = [place.first(order, 2)];
            let private = pagemap(&model, &ranges, order, tails);
            // Larger pieces where there would be very many.
            let many = order.frames() / model.section().frames() > 1 << 8;
            let piece = match index % 2 == 0 || many {
                true => Piece::Range,
                false => Piece::Section,
            };
            for tables in [Tables::Private, Tables::Shared] {
                let pagemap = private.with_tables(tables).with_piece(piece);
                assert!(fail_online(kind, place, &pagemap) >= 3);
            }
        }
    }
}

on_backends!(all:
    base_pages_leave_nothing_behind,
    huge_leaves_leave_nothing_behind,
    compound_pages_leave_nothing_behind,
    gigantic_pages_leave_nothing_behind,
);
