//! Frames of an altmap stay its own when a pagemap that does not have it meets them.

use super::pagemap;
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;
use mm_core::vmemmap::{FoldError, OfflineError};
use testkit::testbed::{Setup, Sizes};
use testkit::{OnBackend, on_backends};

/// Compound pages that are eight subsections and share tails on every model.
fn order(model: &MemoryModel) -> Order {
    Order::new(model.subsection().get() + 3).unwrap()
}

/// Compound pages of the device, from the one with the number `first` on.
fn compounds(model: &MemoryModel, first: u64, count: u64) -> PfnRange {
    Sizes::of(*model).blocks(order(model), 64 + first, count)
}

/// A machine with altmaps over the first subsections of two of them.
fn setup(model: &MemoryModel) -> Setup {
    let unit = model.subsection().frames();
    let reserved = |compound| compounds(model, compound, 1).take_first(unit).0;
    Setup::new(&[compounds(model, 0, 16)])
        .with_altmap(reserved(0))
        .with_altmap(reserved(8))
}

fn memory_of_an_altmap_is_refused_to_a_pagemap_without_it(kind: BackendKind) {
    let model = kind.model();
    kind.testbed(&setup(&model), |bed| {
        let (own, other) = (bed.altmaps()[0], bed.altmaps()[1]);
        let ranges = [compounds(&model, 0, 4)];
        let without = pagemap(&model, &ranges, order(&model), Tails::PerCompound);
        let with = without.with_altmap(own).unwrap();
        let region = bed.online(&with).unwrap();
        bed.audit();
        assert!(own.in_use() > 0);
        let before = bed.snapshot();

        let elsewhere = [compounds(&model, 8, 2), compounds(&model, 0, 4)];
        let with_other = pagemap(&model, &elsewhere, order(&model), Tails::PerCompound);
        let with_other = with_other.with_altmap(other).unwrap();
        let reserved = own.reserved();
        let frames = compounds(&model, 2, 1);
        for pagemap in [without, with_other] {
            let gone = bed.depopulate(&pagemap, frames);
            assert_eq!(gone, Err(OfflineError::OtherAltmap { reserved }));
            let refused = FoldError::OtherAltmap { reserved };
            assert_eq!(bed.fold(&pagemap, frames), Err(refused));
            assert_eq!(bed.unfold(&pagemap, frames), Err(refused));
            assert_eq!(bed.reshape(&pagemap, frames), Err(refused));
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            bed.assert_unchanged(&before, "refused");
        }
        bed.depopulate(&with, frames).unwrap();
        bed.offline(region);
    });
}

fn a_piece_of_ram_takes_no_tail_frame_of_an_altmap(kind: BackendKind) {
    let model = kind.model();
    kind.testbed(&setup(&model), |bed| {
        let own = bed.altmaps()[0];
        let reserved = own.reserved();
        let ranges = [compounds(&model, 0, 4)];
        let without = pagemap(&model, &ranges, order(&model), Tails::PerCompound);
        let with = without.with_altmap(own).unwrap();
        let unit = model.subsection().frames();
        let (first, second) = compounds(&model, 2, 1).split_at(4 * unit);
        let (first, second) = (first.unwrap(), second.unwrap());
        bed.populate(&with, reserved).unwrap();
        bed.populate(&with, first).unwrap();
        let (in_altmap, out) = (own.in_use(), bed.frames().outstanding());
        bed.populate(&without, second).unwrap();
        assert_eq!(own.in_use(), in_altmap);
        assert_eq!(bed.frames().outstanding(), out + 1);
        bed.audit();
        bed.assert_described(compounds(&model, 2, 1), order(&model));

        // And the other way round.
        bed.depopulate(&with, first).unwrap();
        bed.populate(&with, first).unwrap();
        bed.audit();
        bed.depopulate(&without, second).unwrap();
        bed.depopulate(&with, first).unwrap();
        bed.depopulate(&with, reserved).unwrap();
    });
}

fn memory_of_another_altmap_in_a_gap_stays_when_the_region_goes(kind: BackendKind) {
    let model = kind.model();
    for with_altmap in [false, true] {
        kind.testbed(&setup(&model), |bed| {
            let (own, other) = (bed.altmaps()[0], bed.altmaps()[1]);
            let ranges = [compounds(&model, 0, 6), compounds(&model, 12, 2)];
            let around = pagemap(&model, &ranges, order(&model), Tails::PerCompound);
            let around = match with_altmap {
                true => around.with_altmap(own).unwrap(),
                false => around,
            };
            let region = bed.online(&around).unwrap();
            let gap = compounds(&model, 3, 2);
            bed.depopulate(&around, gap).unwrap();
            let elsewhere = [compounds(&model, 8, 1), gap];
            let inside = pagemap(&model, &elsewhere, Order::BASE, Tails::None);
            let inside = inside.with_huge_leaves(false).with_altmap(other).unwrap();
            let reserved = other.reserved();
            bed.populate(&inside, reserved).unwrap();
            // As many as there are frames for.
            let pieces = gap.take_first(2 * model.subsection().frames()).0;
            bed.populate(&inside, pieces).unwrap();
            let in_other = other.in_use();

            assert_eq!(bed.offline(region).kept, pieces.frames());
            bed.audit();
            assert_eq!((own.in_use(), other.in_use()), (0, in_other));
            bed.assert_described(pieces, Order::BASE);
            for (first, count) in [(0, 3), (5, 1), (12, 2)] {
                bed.assert_offline(compounds(&model, first, count));
            }
            bed.depopulate(&inside, pieces).unwrap();
            bed.depopulate(&inside, reserved).unwrap();
        });
    }
}

on_backends!(all:
    memory_of_an_altmap_is_refused_to_a_pagemap_without_it,
    a_piece_of_ram_takes_no_tail_frame_of_an_altmap,
    memory_of_another_altmap_in_a_gap_stays_when_the_region_goes,
);
