//! Memory with packed heads that comes and goes by pieces, whose heads have neighbours.

use super::{address, assert_heads, assert_packed, head_at, packed, report};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Geometry, Tables};
use testkit::testbed::{Faults, Setup, Sizes, fail_each};
use testkit::{OnBackend, on_backends};

/// Pages of one order whose places are in one page, and in the next.
fn neighbours_share_a_page_of_places_in_any_order(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (order, per_page) = (sizes.natural(), model.descriptors_per_page());
    let first = 3 * per_page - 3;
    let whole = [sizes.blocks(order, first, 6)];
    let pages: Vec<PfnRange> = (0..6)
        .map(|page| sizes.blocks(order, first + page, 1))
        .collect();
    for (on, off) in [
        ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]),
        ([4, 2, 0, 5, 3, 1], [0, 2, 4, 1, 3, 5]),
        ([3, 0, 5, 2, 4, 1], [2, 3, 0, 5, 1, 4]),
    ] {
        kind.testbed(&Setup::new(&whole), |bed| {
            let pagemap = packed(&model, &whole, order).with_tables(Tables::Private);
            let mut online = Vec::new();
            let check = |bed: &mut dyn testkit::testbed::Testbed<'_>, online: &[usize]| {
                let used: Vec<_> = online.iter().map(|page| (pages[*page], order)).collect();
                assert_eq!(
                    bed.audit(),
                    report(kind, &used, Tables::Private),
                    "{online:?}"
                );
                for (number, page) in pages.iter().enumerate() {
                    let has_head = head_at(bed, address(&model, page.start(), order));
                    if online.contains(&number) {
                        assert_packed(bed, *page, order);
                    } else {
                        assert!(has_head.is_none_or(|(_, vacant)| vacant), "{online:?}");
                        bed.assert_offline(*page);
                    }
                }
            };
            for page in on {
                assert!(bed.populate(&pagemap, pages[page]).unwrap().is_empty());
                online.push(page);
                check(bed, &online);
            }
            for page in off {
                bed.depopulate(&pagemap, pages[page]).unwrap();
                online.retain(|other| *other != page);
                check(bed, &online);
            }
        });
    }
}

/// A page has its head as long as its first piece is online.
fn pieces_of_a_page_come_and_go_in_any_order(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.subsection().get() + 2)
        .unwrap()
        .max(sizes.small());
    let ranges = [sizes.blocks(order, 5, 1)];
    let quarter = Order::new(order.get() - 2).unwrap();
    let pieces: Vec<PfnRange> = (0..4)
        .map(|piece| sizes.blocks(quarter, 20 + piece, 1))
        .collect();
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = packed(&model, &ranges, order);
        for (on, off) in [([0, 1, 2, 3], [0, 1, 2, 3]), ([3, 1, 0, 2], [2, 0, 3, 1])] {
            let has_head = |bed: &dyn testkit::testbed::Testbed<'_>| {
                head_at(bed, address(&model, ranges[0].start(), order)).is_some()
            };
            let mut first = false;
            for piece in on {
                fail_each(
                    bed,
                    Faults::Ram,
                    |bed| bed.populate(&pagemap, pieces[piece]),
                    |bed, _| {
                        bed.depopulate(&pagemap, pieces[piece]).unwrap();
                    },
                );
                bed.populate(&pagemap, pieces[piece]).map(drop).unwrap();
                first |= piece == 0;
                assert_eq!(has_head(bed), first);
                bed.audit();
            }
            assert_packed(bed, ranges[0], order);
            for piece in off {
                bed.depopulate(&pagemap, pieces[piece]).unwrap();
                first &= piece != 0;
                assert_eq!(has_head(bed), first);
                bed.audit();
            }
        }
    });
}

/// Each allocation fails once, and nothing is left of the call: of places too that others have begun.
fn a_failure_leaves_nothing_beside_neighbours(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (order, per_page) = (sizes.natural(), model.descriptors_per_page());
    let before = [sizes.blocks(order, per_page - 4, 2)];
    let ranges = [sizes.blocks(order, per_page - 2, per_page + 4)];
    let behind = [sizes.blocks(order, 2 * per_page + 2, 1)];
    let all = [before[0], ranges[0], behind[0]];
    for tables in [Tables::Private, Tables::Shared] {
        kind.testbed(&Setup::new(&all), |bed| {
            let with = |ranges| packed(&model, ranges, order).with_tables(tables);
            let neighbours = [&before, &behind].map(|ranges| bed.online(&with(ranges)).unwrap());
            let pagemap = with(&ranges);
            fail_each(
                bed,
                Faults::Ram,
                |bed| bed.online(&pagemap),
                |bed, region| {
                    bed.offline(region);
                },
            );
            let region = bed.online(&pagemap).unwrap();
            for frames in all {
                assert_heads(bed, frames, order);
            }
            let mut regions = neighbours.into_iter();
            bed.offline(regions.next().unwrap());
            assert_heads(bed, ranges[0], order);
            bed.offline(region);
            assert_heads(bed, behind[0], order);
            bed.offline(regions.next().unwrap());
        });
    }
}

/// Memory of several orders and nodes, packed and in place, side by side.
fn orders_and_policies_live_side_by_side(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (small, large) = (sizes.natural(), sizes.gigantic());
    let ranges = [
        [sizes.blocks(large, 2, 2)],
        [sizes.blocks(large, 4, 1)],
        [sizes.blocks(large, 5, 1)],
        [sizes.blocks(large, 6, 1)],
    ];
    let all: Vec<PfnRange> = ranges.iter().map(|[range]| *range).collect();
    kind.testbed(&Setup::new(&all), |bed| {
        let in_place = DevPagemap::new(&model, &ranges[2], Geometry::compound(small)).unwrap();
        let regions = [
            bed.online(&packed(&model, &ranges[0], large)).unwrap(),
            bed.online(&packed(&model, &ranges[1], small)).unwrap(),
            bed.online(&in_place).unwrap(),
            bed.online(&packed(&model, &ranges[3], small).with_node(NodeId::new(1)))
                .unwrap(),
        ];
        assert_packed(bed, all[0], large);
        assert_packed(bed, all[1], small);
        bed.assert_described(all[2].take_first(1 << 14).0, small);
        assert_packed(bed, all[3], small);
        assert_ne!(bed.holder_of(all[1].start()), bed.holder_of(all[3].start()));
        bed.audit();
        for region in regions {
            bed.offline(region);
            bed.recount_by_library().unwrap();
        }
    });
}

/// A part of what a shared table of stubs maps goes offline: the rest gets a table of its own.
fn a_part_of_a_shared_table_goes_offline(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (order, table) = (sizes.natural(), sizes.table());
    let ranges = [sizes.blocks(table, 4, 3)];
    let per_table = 1 << (table.get() - order.get());
    let piece = sizes.blocks(order, 5 * per_table + 3, 2);
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = packed(&model, &ranges, order);
        let mut region = Some(bed.online(&pagemap).unwrap());
        let failures = fail_each(
            bed,
            Faults::Ram,
            |bed| bed.depopulate(&pagemap, piece),
            |bed, _| {
                bed.assert_offline(piece);
                assert_heads(bed, sizes.blocks(table, 4, 1), order);
                assert_heads(bed, sizes.blocks(table, 6, 1), order);
                // Back to where all tables are shared.
                bed.offline(region.take().unwrap());
                region = Some(bed.online(&pagemap).unwrap());
            },
        );
        assert_eq!(failures, u64::from(kind.has_tables()));
        bed.offline(region.unwrap());
    });
}

on_backends!(all:
    neighbours_share_a_page_of_places_in_any_order,
    pieces_of_a_page_come_and_go_in_any_order,
    a_failure_leaves_nothing_beside_neighbours,
    orders_and_policies_live_side_by_side,
    a_part_of_a_shared_table_goes_offline,
);
