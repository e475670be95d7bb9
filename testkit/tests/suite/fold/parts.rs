//! Folding and unfolding piece by piece, and taking folded memory offline so.

use super::{SHARED_TAILS, base_pages, compound, little_memory, memory};
use hosted::BackendKind;
use mm_core::pagemap::Tables;
use testkit::testbed::{Costs, Setup, Sizes, Used, shuffled};
use testkit::{OnBackend, on_backends};

fn compound_pages_are_folded_and_unfolded_one_by_one(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [memory(sizes, 1)];
    let first = ranges[0].start().get() >> order.get();
    let count = 40.min(ranges[0].frames() >> order.get()) as usize;
    for (tails, seed) in SHARED_TAILS.into_iter().zip(1..) {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges, true)).unwrap();
            let base = bed.audit();
            let folded_as = compound(&model, &ranges, order, tails);
            for page in shuffled(count, seed) {
                let page = sizes.blocks(order, first + page as u64, 1);
                let folded = bed.fold(&folded_as, page).unwrap();
                assert_eq!(folded.changed, 1);
                bed.audit();
                bed.assert_described(page, order);
            }
            for page in shuffled(count, seed + 7) {
                let page = sizes.blocks(order, first + page as u64, 1);
                let unfolded = bed.unfold(&folded_as, page).unwrap();
                assert_eq!(unfolded.changed, 1);
                bed.audit();
                bed.assert_described(page, order);
            }
            // The huge leaf comes back when all of it is asked for.
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(bed.audit(), base);
            bed.offline(region);
        });
    }
}

fn folded_memory_goes_offline_by_pieces_in_any_order(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for (order, memory, tables) in [
        (sizes.small(), little_memory(sizes), Tables::Private),
        (sizes.gigantic(), memory(sizes, 2), Tables::Private),
        (sizes.gigantic(), memory(sizes, 2), Tables::Shared),
    ] {
        let ranges = [memory];
        let base = base_pages(&model, &ranges, true);
        for tails in SHARED_TAILS {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let _stays = bed.online(&base).unwrap();
                let folded_as = compound(&model, &ranges, order, tails).with_tables(tables);
                bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
                // Some subsections one by one, then the rest in groups.
                let pieces = sizes.subsections(ranges[0]);
                let group = pieces.len().div_ceil(40);
                let groups: Vec<_> = pieces.chunks(group).collect();
                for index in shuffled(groups.len(), 5) {
                    let group = groups[index];
                    let frames = group.iter().map(|piece| piece.frames()).sum();
                    let piece = mm_core::addr::PfnRange::new(group[0].start(), frames).unwrap();
                    bed.depopulate(&base, piece).unwrap();
                    bed.audit();
                    bed.assert_offline(piece);
                }
            });
        }
    }
}

/// Half of it is folded, in one order and another, and what is left is as if it had come online so.
fn several_orders_lie_side_by_side(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [little_memory(sizes)];
    let (small, natural) = (sizes.small(), sizes.natural());
    let larger = mm_core::addr::Order::new(natural.get() + 1).unwrap();
    let first = ranges[0].start().get() >> larger.get();
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges, false)).unwrap();
            let parts = [
                (small, sizes.blocks(larger, first + 1, 1)),
                (larger, sizes.blocks(larger, first + 2, 2)),
                (natural, sizes.blocks(larger, first + 4, 1)),
            ];
            for (order, part) in parts {
                let folded_as = compound(&model, &ranges, order, tails).with_huge_leaves(false);
                bed.fold(&folded_as, part).map(drop).unwrap();
                bed.audit();
            }
            let end = ranges[0].frames() / larger.frames();
            let mut used = parts
                .map(|(order, part)| Used::compound(part, order, tails))
                .to_vec();
            used.push(Used::base_pages(sizes.blocks(larger, first, 1), false));
            let rest = sizes.blocks(larger, first + 5, end - 5);
            used.push(Used::base_pages(rest, false));
            let expected = Costs::of(kind, &model).report(&used, Tables::Private);
            assert_eq!(bed.audit(), expected);
            for (order, part) in parts {
                bed.assert_described(part, order);
                let folded_as = compound(&model, &ranges, order, tails).with_huge_leaves(false);
                bed.unfold(&folded_as, part).map(drop).unwrap();
                bed.assert_described(part, order);
            }
            bed.offline(region);
        });
    }
}

on_backends!(all:
    compound_pages_are_folded_and_unfolded_one_by_one,
    folded_memory_goes_offline_by_pieces_in_any_order,
    several_orders_lie_side_by_side,
);
