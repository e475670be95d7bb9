//! Folding and unfolding.

use super::{Place, SHARED_TAILS, few_neighbours, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, Testbed, fail_each};

/// How memory came online, as what it is folded, and which part of it.
#[derive(Clone, Copy)]
struct Case<'p> {
    base: DevPagemap<'p>,
    compound: DevPagemap<'p>,
    part: PfnRange,
}

impl Case<'_> {
    /// Fails the fold, then the unfold, and answers with how many allocations they make.
    fn fail(&self, kind: BackendKind, place: Place) -> [u64; 2] {
        let mut failures = [0; 2];
        place.run(kind, &place.setup(), |bed| {
            let mut region = None;
            let mut online = |bed: &mut dyn Testbed<'_>| {
                if let Some(region) = region.take() {
                    bed.offline(region);
                }
                region = Some(bed.online(&self.base).unwrap());
            };
            online(bed);
            failures[0] = fail_each(
                bed,
                Faults::Ram,
                |bed| {
                    bed.fill_cpus(self.part);
                    bed.fold(&self.compound, self.part)
                },
                |bed, folded| {
                    assert!(folded.changed > 0);
                    online(bed);
                },
            );
            bed.fold(&self.compound, self.part).map(drop).unwrap();
            failures[1] = fail_each(
                bed,
                Faults::Ram,
                |bed| {
                    bed.fill_cpus(self.part);
                    bed.unfold(&self.compound, self.part)
                },
                |bed, unfolded| {
                    assert!(unfolded.changed > 0);
                    online(bed);
                    bed.fold(&self.compound, self.part).map(drop).unwrap();
                },
            );
            bed.offline(region.unwrap());
        });
        failures
    }
}

fn single_frames_are_all_there_or_nothing_changes(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        for tails in SHARED_TAILS {
            let place = Place::new(kind, neighbour);
            let order = place.sizes.natural();
            let ranges = [place.first(order, 4)];
            let part = place.first(order, 3);
            let case = Case {
                base: pagemap(&model, &ranges, Order::BASE, Tails::None).with_huge_leaves(false),
                compound: pagemap(&model, &ranges, order, tails).with_huge_leaves(false),
                part,
            };
            let expected = match tails {
                Tails::PerOrder => [1, 3 * 7],
                _ => [0, 3 * 6],
            };
            assert_eq!(case.fail(kind, place), expected);
        }
    }
}

fn a_huge_leaf_is_split_and_comes_back_or_nothing_changes(kind: BackendKind) {
    let model = kind.model();
    let place = Place::new(kind, Neighbour::Nobody);
    for neighbour in few_neighbours(place.sizes) {
        let place = Place::new(kind, *neighbour);
        let order = place.sizes.natural();
        let ranges = [place.first(place.sizes.table(), 1)];
        let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
        let case = Case {
            base,
            compound: pagemap(&model, &ranges, order, Tails::PerOrder),
            part: ranges[0],
        };
        let tables = u64::from(kind.has_tables());
        assert_eq!(case.fail(kind, place), [1 + tables, 1]);
    }
}

/// Folded, its tables are shared; unfolded, it has huge leaves again.
fn gigantic_pages_with_shared_tables(kind: BackendKind) {
    let model = kind.model();
    let place = Place::new(kind, Neighbour::Nobody);
    for neighbour in few_neighbours(place.sizes) {
        let place = Place::new(kind, *neighbour);
        let order = place.sizes.gigantic();
        let ranges = [place.first(order, 1)];
        let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
        let compound = pagemap(&model, &ranges, order, Tails::PerCompound);
        let case = Case {
            base,
            compound: compound.with_tables(Tables::Shared),
            part: ranges[0],
        };
        // A table of its own for the shared one is ready before it turns out that a huge leaf takes
        // its place.
        let (tables, copies) = if !kind.has_tables() { (0, 0) } else { (2, 1) };
        assert_eq!(case.fail(kind, place), [tables, 2 + copies]);
    }
}

on_backends!(all:
    single_frames_are_all_there_or_nothing_changes,
    a_huge_leaf_is_split_and_comes_back_or_nothing_changes,
    gigantic_pages_with_shared_tables,
);
