//! Taking a part of what a huge leaf or a shared table maps offline, which needs a table.

use super::{Place, SHARED_TAILS, few_neighbours, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use testkit::on_backends;
use testkit::testbed::{Faults, Neighbour, fail_each};

/// Fails the offline of `piece`, and answers with how many allocations it makes.
fn fail_depopulate(
    kind: BackendKind,
    place: Place,
    pagemap: &DevPagemap<'_>,
    piece: PfnRange,
) -> u64 {
    let mut failures = 0;
    place.run(kind, &place.setup(), |bed| {
        let mut region = Some(bed.online(pagemap).unwrap());
        failures = fail_each(
            bed,
            Faults::Ram,
            |bed| {
                for range in pagemap.ranges() {
                    bed.fill_cpus(*range);
                }
                bed.depopulate(pagemap, piece)
            },
            |bed, _| {
                bed.assert_offline(piece);
                // Back to where huge leaves and shared tables are whole.
                bed.offline(region.take().unwrap());
                region = Some(bed.online(pagemap).unwrap());
            },
        );
        // What is left goes without any memory.
        bed.depopulate(pagemap, piece).unwrap();
        bed.frames().fail_after(0);
        bed.offline(region.unwrap());
        bed.frames().no_more_faults();
    });
    failures
}

fn the_middle_of(frames: PfnRange, size: u64) -> PfnRange {
    let start = frames.start().saturating_add((frames.frames() - size) / 2);
    PfnRange::new(start, size).unwrap()
}

/// The oracle's huge leaves become base pages without a table.
fn tables(kind: BackendKind, count: u64) -> u64 {
    if kind.has_tables() { count } else { 0 }
}

fn a_part_of_a_huge_leaf_goes_or_stays_whole(kind: BackendKind) {
    let model = kind.model();
    let place = Place::new(kind, Neighbour::Nobody);
    for neighbour in few_neighbours(place.sizes) {
        let place = Place::new(kind, *neighbour);
        let small = place.sizes.small().frames();
        let ranges = [place.first(place.sizes.table(), 1)];
        let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
        let piece = the_middle_of(ranges[0], 2 * small);
        assert_eq!(
            fail_depopulate(kind, place, &pagemap, piece),
            tables(kind, 1)
        );
    }
}

/// The end of one and the start of the next.
fn parts_of_two_huge_leaves_go_or_stay_whole(kind: BackendKind) {
    let model = kind.model();
    let place = Place::new(kind, Neighbour::Nobody);
    let small = place.sizes.small().frames();
    let ranges = [place.first(place.sizes.table(), 2)];
    let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
    let piece = the_middle_of(ranges[0], 4 * small);
    assert_eq!(
        fail_depopulate(kind, place, &pagemap, piece),
        tables(kind, 2)
    );
}

fn a_part_of_a_shared_table_goes_or_stays_whole(kind: BackendKind) {
    let model = kind.model();
    for neighbour in Neighbour::ALL {
        for tails in SHARED_TAILS {
            let place = Place::new(kind, neighbour);
            let sizes = place.sizes;
            let order = sizes.gigantic();
            let ranges = [place.first(order, 2)];
            let pagemap = pagemap(&model, &ranges, order, tails).with_tables(Tables::Shared);
            // In the second table of the first compound page.
            let tails_only = ranges[0].split_at(sizes.table().frames()).1.unwrap();
            let table = tails_only.take_first(sizes.table().frames()).0;
            let piece = the_middle_of(table, 2 * sizes.small().frames());
            assert_eq!(
                fail_depopulate(kind, place, &pagemap, piece),
                tables(kind, 1)
            );
        }
    }
}

/// From within the shared table of one compound page to within that of the next; the head's table
/// between them is private.
fn parts_of_two_shared_tables_go_or_stay_whole(kind: BackendKind) {
    let model = kind.model();
    for tails in SHARED_TAILS {
        let place = Place::new(kind, Neighbour::OtherOrder);
        let sizes = place.sizes;
        let order = sizes.gigantic();
        let ranges = [place.first(order, 2)];
        let pagemap = pagemap(&model, &ranges, order, tails).with_tables(Tables::Shared);
        let table = sizes.table().frames();
        let start = ranges[0].start().saturating_add(table + table / 2);
        let piece = PfnRange::new(start, 2 * table).unwrap();
        assert_eq!(
            fail_depopulate(kind, place, &pagemap, piece),
            tables(kind, 2)
        );
    }
}

on_backends!(all:
    a_part_of_a_huge_leaf_goes_or_stays_whole,
    parts_of_two_huge_leaves_go_or_stay_whole,
    a_part_of_a_shared_table_goes_or_stays_whole,
    parts_of_two_shared_tables_go_or_stay_whole,
);
