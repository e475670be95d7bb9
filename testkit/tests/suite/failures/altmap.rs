//! Devices with an altmap: RAM for tables runs out, and the altmap does.

use super::{Place, pagemap};
use hosted::BackendKind;
use mm_core::addr::Order;
use mm_core::pagemap::{Piece, Tails};
use mm_core::vmemmap::OnlineError;
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, fail_each};

fn online_leaves_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    for (index, neighbour) in Neighbour::ALL.into_iter().enumerate() {
        let place = Place::new(kind, neighbour);
        let small = place.sizes.small();
        for (order, tails) in [
            (small, Tails::PerCompound),
            (small, Tails::PerOrder),
            (Order::BASE, Tails::None),
        ] {
            let ranges = [place.first(small, 4), place.across()];
            let plain = pagemap(&model, &ranges, order, tails);
            let setup = place.setup().with_altmap(plain.altmap_needed().unwrap());
            let piece = [Piece::Subsection, Piece::Section, Piece::Range][index % 3];
            place.run(kind, &setup, |bed| {
                let altmap = bed.altmaps()[0];
                let pagemap = plain.with_altmap(altmap).unwrap().with_piece(piece);
                for faults in [Faults::Ram, Faults::Altmap(0)] {
                    let failures = fail_each(
                        bed,
                        faults,
                        |bed| bed.online(&pagemap),
                        |bed, region| {
                            bed.offline(region);
                            assert_eq!(altmap.in_use(), 0);
                        },
                    );
                    let tables = kind.has_tables() || tails == Tails::PerOrder;
                    assert_eq!(failures > 0, faults != Faults::Ram || tables);
                }
            });
        }
    }
}

fn pieces_leave_the_altmap_as_it_was(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        let place = Place::new(kind, neighbour);
        let larger = Order::new(place.sizes.subsection().get() + 3).unwrap();
        let ranges = [place.first(larger, 2)];
        let plain = pagemap(&model, &ranges, larger, Tails::PerCompound);
        let reserved = plain.altmap_needed().unwrap();
        let setup = place.setup().with_altmap(reserved);
        place.run(kind, &setup, |bed| {
            let altmap = bed.altmaps()[0];
            let pagemap = plain.with_altmap(altmap).unwrap();
            // The reserved part comes last and goes first.
            let mut pieces = place.sizes.subsections(ranges[0]);
            pieces.reverse();
            pieces.swap(4, 9);
            for piece in &pieces {
                for faults in [Faults::Ram, Faults::Altmap(0)] {
                    fail_each(
                        bed,
                        faults,
                        |bed| bed.populate(&pagemap, *piece),
                        |bed, _| {
                            bed.depopulate(&pagemap, *piece).unwrap();
                        },
                    );
                }
                bed.populate(&pagemap, *piece).map(drop).unwrap();
            }
            for piece in pieces.iter().rev() {
                bed.depopulate(&pagemap, *piece).unwrap();
            }
        });
    }
}

/// Unfolding takes frames of the altmap.
fn fold_and_unfold_leave_the_altmap_as_it_was(kind: BackendKind) {
    let model = kind.model();
    for tails in super::SHARED_TAILS {
        let place = Place::new(kind, Neighbour::OtherNode);
        let order = place.sizes.natural();
        let ranges = [place.first(order, 6)];
        let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_huge_leaves(false);
        let folded_as = pagemap(&model, &ranges, order, tails).with_huge_leaves(false);
        let reserved = base.altmap_needed().unwrap();
        let setup = place.setup().with_altmap(reserved);
        place.run(kind, &setup, |bed| {
            let altmap = bed.altmaps()[0];
            let base = base.with_altmap(altmap).unwrap();
            let folded_as = folded_as.with_altmap(altmap).unwrap();
            let part = place
                .first(order, 4)
                .split_at(2 * order.frames())
                .1
                .unwrap();
            let mut region = Some(bed.online(&base).unwrap());
            for (faults, expected) in [
                (Faults::Ram, u64::from(tails == Tails::PerOrder)),
                (Faults::Altmap(0), 0),
            ] {
                let failures = fail_each(
                    bed,
                    faults,
                    |bed| bed.fold(&folded_as, part),
                    |bed, _| {
                        bed.offline(region.take().unwrap());
                        region = Some(bed.online(&base).unwrap());
                    },
                );
                assert_eq!(failures, expected);
            }
            bed.fold(&folded_as, part).map(drop).unwrap();
            let needed = if tails == Tails::PerOrder { 7 } else { 6 };
            for (faults, expected) in [(Faults::Ram, 0), (Faults::Altmap(0), 2 * needed)] {
                let failures = fail_each(
                    bed,
                    faults,
                    |bed| bed.unfold(&folded_as, part),
                    |bed, _| {
                        bed.offline(region.take().unwrap());
                        region = Some(bed.online(&base).unwrap());
                        bed.fold(&folded_as, part).map(drop).unwrap();
                    },
                );
                assert_eq!(failures, expected);
            }
            bed.offline(region.unwrap());
        });
    }
}

/// From one subsection to one too few.
fn an_altmap_of_any_size_that_is_too_small_leaves_nothing_behind(kind: BackendKind) {
    let model = kind.model();
    let place = Place::new(kind, Neighbour::OtherOrder);
    let sizes = place.sizes;
    // Three and a half subsections of descriptors.
    let unit = model.subsection().frames();
    let pages = 7 * unit / 2;
    let count = (pages * model.descriptors_per_page()).div_ceil(sizes.small().frames());
    for huge in [false, true] {
        let ranges = [place.first(sizes.small(), count)];
        let plain = pagemap(&model, &ranges, Order::BASE, Tails::None);
        let plain = plain.with_huge_leaves(huge).with_piece(Piece::Range);
        for subsections in 1..4 {
            let reserved = ranges[0].take_first(subsections * unit).0;
            let setup = place.setup().with_altmap(reserved);
            place.run(kind, &setup, |bed| {
                let before = bed.snapshot();
                let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
                let refused = bed.online(&pagemap).map(drop);
                let exhausted = OnlineError::AltmapExhausted { reserved };
                assert_eq!(refused, Err(exhausted));
                bed.assert_unchanged(&before, "exhausted");
                // From RAM, the same memory comes online.
                let region = bed.online(&plain).unwrap();
                bed.offline(region);
            });
        }
    }
}

on_backends!(all:
    online_leaves_nothing_behind,
    pieces_leave_the_altmap_as_it_was,
    fold_and_unfold_leave_the_altmap_as_it_was,
    an_altmap_of_any_size_that_is_too_small_leaves_nothing_behind,
);
