//! Fold with shared leaf tables: folded memory costs what it would if it had come online so.

use super::{SHARED_TAILS, base_pages, compound};
use hosted::BackendKind;
use mm_core::pagemap::{Tables, Tails};
use testkit::testbed::{Costs, Setup, Sizes, Used};
use testkit::{OnBackend, on_backends};

fn folded_memory_costs_what_it_would_if_it_had_come_online_so(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 3, 2)];
    let costs = Costs::of(kind, &model);
    for (tails, huge_leaves) in [(Tails::PerCompound, true), (Tails::PerOrder, false)] {
        let setup = Setup::new(&ranges);
        kind.testbed(&setup, |bed| {
            let folded_as = compound(&model, &ranges, order, tails)
                .with_tables(Tables::Shared)
                .with_huge_leaves(huge_leaves);
            let used = Used::compound(ranges[0], order, tails);
            let expected = costs.report(&[used], Tables::Shared);
            let region = bed.online(&folded_as).unwrap();
            assert_eq!(bed.audit(), expected);
            bed.offline(region);

            let region = bed
                .online(&base_pages(&model, &ranges, huge_leaves))
                .unwrap();
            let before = bed.audit();
            bed.fill_cpus(ranges[0]);
            // One compound page, then all: what is shared already is found again.
            let first = ranges[0].take_first(order.frames()).0;
            for frames in [first, ranges[0]] {
                let folded = bed.fold(&folded_as, frames).unwrap();
                assert_eq!(folded.changed, 1);
                bed.audit();
                bed.fill_cpus(ranges[0]);
            }
            assert_eq!(bed.audit(), expected, "{tails:?}");
            let again = bed.fold(&folded_as, ranges[0]).unwrap();
            assert_eq!((again.changed, again.flushes), (0, 0));

            let unfolded = bed.unfold(&folded_as, ranges[0]).unwrap();
            assert_eq!(unfolded.changed, 2);
            bed.fill_cpus(ranges[0]);
            assert_eq!(bed.audit(), before, "{tails:?}");
            bed.offline(region);
        });
    }
}

fn private_tables_of_folded_memory_become_one(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 3, 2)];
    let costs = Costs::of(kind, &model);
    for tails in SHARED_TAILS {
        let setup = Setup::new(&ranges).with_cpus_that_cache(ranges[0]);
        kind.testbed(&setup, |bed| {
            let private = compound(&model, &ranges, order, tails);
            let shared = private.with_tables(Tables::Shared);
            let used = Used::compound(ranges[0], order, tails);
            let region = bed.online(&private).unwrap();
            assert_eq!(bed.audit(), costs.report(&[used], Tables::Private));
            let folded = bed.fold(&shared, ranges[0]).unwrap();
            assert_eq!((folded.changed, folded.unchanged), (0, 2));
            // Per compound page there is one such table, with nothing to be exchanged for.
            assert_eq!(folded.flushes > 0, tails == Tails::PerOrder);
            assert_eq!(bed.audit(), costs.report(&[used], Tables::Shared));
            bed.offline(region);
        });
    }
}

/// Of two compound pages that have a table in common one is unfolded.
fn unfolding_one_leaves_the_others_table_alone(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 3, 2)];
    let costs = Costs::of(kind, &model);
    kind.testbed(&Setup::new(&ranges), |bed| {
        let shared = compound(&model, &ranges, order, Tails::PerOrder).with_tables(Tables::Shared);
        let region = bed.online(&shared).unwrap();
        let (first, second) = ranges[0].split_at(order.frames());
        let (first, second) = (first.unwrap(), second.unwrap());
        bed.fill_cpus(ranges[0]);
        bed.unfold(&shared, second).map(drop).unwrap();
        bed.fill_cpus(ranges[0]);
        let used = [
            Used::compound(first, order, Tails::PerOrder),
            Used::base_pages(second, true),
        ];
        assert_eq!(bed.audit(), costs.report(&used, Tables::Shared));
        bed.assert_described(first, order);
        bed.assert_described(second, order);
        bed.offline(region);
    });
}

on_backends!(radix:
    folded_memory_costs_what_it_would_if_it_had_come_online_so,
    private_tables_of_folded_memory_become_one,
    unfolding_one_leaves_the_others_table_alone,
);
