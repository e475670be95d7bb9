//! Every allocation fails.

use super::{OWN, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use mm_core::pagemap::{Tables, Tails};
use testkit::on_backends;
use testkit::testbed::{Faults, Setup, Sizes, fail_each};

fn every_failed_allocation_leaves_everything_as_it_was(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        for tails in own.tails() {
            for (order, count) in [(sizes.small(), 4), (sizes.gigantic(), 1)] {
                let ranges = [sizes.blocks(order, 4, count)];
                let setup = Setup::new(&ranges).with_cpus_that_cache(ranges[0]);
                own.testbed(kind, &setup, |bed| {
                    let pagemap =
                        pagemap(&model, &ranges, order, *tails).with_tables(Tables::Shared);
                    let failures = fail_each(
                        bed,
                        Faults::Ram,
                        |bed| bed.online(&pagemap),
                        |bed, region| {
                            bed.offline(region);
                        },
                    );
                    assert!(failures > 1);
                    let region = bed.online(&pagemap).unwrap();
                    let frame = ranges[0].last();
                    let failures = fail_each(
                        bed,
                        Faults::Ram,
                        |bed| bed.mark(frame, NodeId::new(0)),
                        |bed, _| assert!(bed.unmark(frame)),
                    );
                    assert_eq!(failures, 1);
                    bed.offline(region);
                });
            }
        }
    }
}

fn a_failed_fold_or_unfold_changes_nothing(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.natural();
        let ranges = [sizes.blocks(order, 6, 2)];
        for tails in own.tails() {
            own.testbed(kind, &Setup::new(&ranges), |bed| {
                let base = pagemap(&model, &ranges, Order::BASE, Tails::None);
                let base = base.with_huge_leaves(false);
                let folded_as = pagemap(&model, &ranges, order, *tails).with_huge_leaves(false);
                let mut region = Some(bed.online(&base).unwrap());
                let failures = fail_each(
                    bed,
                    Faults::Ram,
                    |bed| bed.fold(&folded_as, ranges[0]),
                    |bed, _| {
                        bed.offline(region.take().unwrap());
                        region = Some(bed.online(&base).unwrap());
                    },
                );
                let per_order = u64::from(*tails == Tails::PerOrder);
                assert_eq!(failures, per_order);
                bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
                let failures = fail_each(
                    bed,
                    Faults::Ram,
                    |bed| bed.unfold(&folded_as, ranges[0]),
                    |bed, _| {
                        bed.offline(region.take().unwrap());
                        region = Some(bed.online(&base).unwrap());
                        bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
                    },
                );
                let shared = sizes.pages(order) - 2 + per_order;
                assert_eq!(failures, 2 * shared);
                bed.offline(region.unwrap());
            });
        }
    }
}

fn an_altmap_or_ram_that_runs_out_leaves_nothing_behind(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.small();
        let ranges = [sizes.blocks(order, 8, 6)];
        for tails in own.tails() {
            let plain = pagemap(&model, &ranges, order, *tails);
            let setup = Setup::new(&ranges).with_altmap(plain.altmap_needed().unwrap());
            own.testbed(kind, &setup, |bed| {
                let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
                for faults in [Faults::Ram, Faults::Altmap(0)] {
                    fail_each(
                        bed,
                        faults,
                        |bed| bed.online(&pagemap),
                        |bed, region| {
                            bed.offline(region);
                        },
                    );
                }
            });
        }
    }
}

on_backends!(all:
    every_failed_allocation_leaves_everything_as_it_was,
    a_failed_fold_or_unfold_changes_nothing,
    an_altmap_or_ram_that_runs_out_leaves_nothing_behind,
);
