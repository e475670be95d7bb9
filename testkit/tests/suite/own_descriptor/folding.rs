//! Fold, unfold and reshape.

use super::{OWN, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn};
use mm_core::pagemap::{Piece, Tables, Tails};
use testkit::on_backends;
use testkit::testbed::{Costs, Setup, Sizes, Used};

fn fold_then_unfold_returns_to_the_frames_and_the_contents_of_the_start(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let costs = Costs::of(kind, &model);
        let order = sizes.natural();
        let little = sizes.blocks(order, 64, 8);
        let leaf = sizes.blocks(sizes.table(), 3, 1);
        for (memory, huge) in [(little, false), (leaf, true)] {
            let ranges = [memory];
            for tails in own.tails() {
                own.testbed(kind, &Setup::new(&ranges), |bed| {
                    let base = pagemap(&model, &ranges, Order::BASE, Tails::None)
                        .with_piece(Piece::Range)
                        .with_huge_leaves(huge);
                    let region = bed.online(&base).unwrap();
                    let before = bed.audit();
                    // What a kernel keeps in heads, and in tails of the head's page.
                    let kept: Vec<Pfn> = (0..memory.frames())
                        .step_by(order.frames() as usize)
                        .flat_map(|head| [head, head + 1, head + model.descriptors_per_page() - 1])
                        .map(|index| memory.start().saturating_add(index))
                        .collect();
                    for frame in &kept {
                        bed.set_state_of(*frame, frame.get() * 0x1_0001 + 1);
                    }
                    let states: Vec<_> = kept.iter().map(|frame| bed.state_of(*frame)).collect();
                    let keeps = |bed: &dyn testkit::testbed::Testbed<'_>| {
                        let now: Vec<_> = kept.iter().map(|frame| bed.state_of(*frame)).collect();
                        assert_eq!(now, states);
                    };

                    let folded_as = pagemap(&model, &ranges, order, *tails).with_huge_leaves(huge);
                    bed.fold(&folded_as, memory).map(drop).unwrap();
                    let used = Used::compound(memory, order, *tails);
                    assert_eq!(bed.audit(), costs.report(&[used], Tables::Private));
                    bed.assert_described(memory, order);
                    keeps(bed);
                    bed.unfold(&folded_as, memory).map(drop).unwrap();
                    assert_eq!(bed.audit(), before);
                    bed.assert_described(memory, order);
                    keeps(bed);
                    bed.reshape(&base, memory).unwrap();
                    bed.assert_described(memory, Order::BASE);
                    keeps(bed);
                    bed.offline(region);
                });
            }
        }
    }
}

fn gigantic_pages_share_tables_once_folded(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.gigantic();
        let ranges = [sizes.blocks(order, 2, 1)];
        let tails = own.tails()[own.tails().len() - 1];
        own.testbed(kind, &Setup::new(&ranges), |bed| {
            let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_piece(Piece::Range);
            let region = bed.online(&base).unwrap();
            let before = bed.audit();
            let folded_as = pagemap(&model, &ranges, order, tails).with_tables(Tables::Shared);
            bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
            let used = Used::compound(ranges[0], order, tails);
            let shares = bed.shares_tables();
            let tables = if shares {
                Tables::Shared
            } else {
                Tables::Private
            };
            assert_eq!(bed.audit(), Costs::of(kind, &model).report(&[used], tables));
            bed.assert_described(ranges[0], order);
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            assert_eq!(bed.audit(), before);
            bed.assert_described(ranges[0], order);
            bed.offline(region);
        });
    }
}

on_backends!(all:
    fold_then_unfold_returns_to_the_frames_and_the_contents_of_the_start,
    gigantic_pages_share_tables_once_folded,
);
