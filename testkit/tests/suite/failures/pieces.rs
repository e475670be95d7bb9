//! Bringing pieces online one by one.

use super::{Place, SHARED_TAILS, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::Tails;
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, fail_each};

/// The parts of `range` in this order.
fn parts(range: PfnRange, order: &[u64]) -> Vec<PfnRange> {
    let size = range.frames() / order.len() as u64;
    let part = |index: &u64| {
        let start = range.start().saturating_add(index * size);
        PfnRange::new(start, size).unwrap()
    };
    order.iter().map(part).collect()
}

fn each_piece_leaves_earlier_ones_alone(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        let place = Place::new(kind, neighbour);
        let sizes = place.sizes;
        let small = sizes.small();
        // A compound page of four pieces, and base pages beside it.
        let larger = Order::new(sizes.subsection().get() + 3).unwrap().max(small);
        for (order, tails) in [
            (larger, Tails::PerCompound),
            (larger, Tails::PerOrder),
            (Order::BASE, Tails::None),
        ] {
            let ranges = [place.first(larger, 1), place.across()];
            let pagemap = pagemap(&model, &ranges, order.min(small), Tails::None);
            let pagemap = match order == larger {
                true => super::pagemap(&model, &ranges[..1], larger, tails),
                false => pagemap.with_huge_leaves(false),
            };
            let mut calls = parts(ranges[0], &[2, 0, 3, 1]);
            if order == Order::BASE {
                calls.extend(parts(ranges[1], &[1, 0]));
            }
            place.run(kind, &place.setup(), |bed| {
                for piece in &calls {
                    fail_each(
                        bed,
                        Faults::Ram,
                        |bed| bed.populate(&pagemap, *piece),
                        |bed, _| {
                            bed.depopulate(&pagemap, *piece).unwrap();
                        },
                    );
                    bed.populate(&pagemap, *piece).map(drop).unwrap();
                }
                bed.assert_described(ranges[0], order);
                for piece in &calls {
                    bed.depopulate(&pagemap, *piece).unwrap();
                }
            });
        }
    }
}

/// Pieces of a compound page with several leaf tables.
fn each_piece_of_a_gigantic_page_leaves_earlier_ones_alone(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        for tails in SHARED_TAILS {
            let place = Place::new(kind, neighbour);
            let order = place.sizes.gigantic();
            let ranges = [place.first(order, 1)];
            let pagemap = pagemap(&model, &ranges, order, tails);
            let calls = parts(ranges[0], &[5, 0, 7, 2, 1, 6, 4, 3]);
            place.run(kind, &place.setup(), |bed| {
                for piece in &calls {
                    fail_each(
                        bed,
                        Faults::Ram,
                        |bed| bed.populate(&pagemap, *piece),
                        |bed, _| {
                            bed.depopulate(&pagemap, *piece).unwrap();
                        },
                    );
                    bed.populate(&pagemap, *piece).map(drop).unwrap();
                }
                bed.assert_described(ranges[0].take_first(1 << 14).0, order);
                for piece in calls.iter().rev() {
                    bed.depopulate(&pagemap, *piece).unwrap();
                }
            });
        }
    }
}

on_backends!(all:
    each_piece_leaves_earlier_ones_alone,
    each_piece_of_a_gigantic_page_leaves_earlier_ones_alone,
);
