//! What cannot be folded.

use super::{base_pages, compound, little_memory};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{Piece, Tails};
use mm_core::vmemmap::FoldError;
use testkit::testbed::{Encoding, Setup, Sizes};
use testkit::{OnBackend, on_backends};

fn what_cannot_be_folded_is_refused_and_named(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let all = little_memory(sizes);
    let (half, _) = all.split_at(all.frames() / 2);
    let half = half.unwrap();
    let ranges = [all, sizes.blocks(sizes.table(), 8, 1)];
    let online = [half];
    let setup = Setup::new(&ranges).with_encoding(Encoding::Pointer);
    kind.testbed(&setup, |bed| {
        let region = bed.online(&base_pages(&model, &online, false)).unwrap();
        let before = bed.snapshot();
        let folded_as = compound(&model, &ranges, order, Tails::PerCompound);

        let start = half.start().saturating_add(sizes.vmemmap_page().frames());
        let frames = PfnRange::new(start, order.frames()).unwrap();
        let misaligned = Err(FoldError::Misaligned { frames, order });
        assert_eq!(bed.fold(&folded_as, frames), misaligned);
        assert_eq!(bed.unfold(&folded_as, frames), misaligned);
        let outside = sizes
            .blocks(sizes.table(), 6, 1)
            .take_first(order.frames())
            .0;
        let refused = Err(FoldError::Outside { frames: outside });
        assert_eq!(bed.fold(&folded_as, outside), refused);
        assert_eq!(bed.unfold(&folded_as, outside), refused);
        let at = bed.address_of(half.last().saturating_add(1));
        let refused = Err(FoldError::NotOnline { at });
        assert_eq!(bed.fold(&folded_as, all), refused);
        assert_eq!(bed.unfold(&folded_as, all), refused);
        let base = base_pages(&model, &ranges, true);
        let refused = Err(FoldError::NothingToShare(None));
        assert_eq!(bed.fold(&base, half), refused);
        let per_order = folded_as.with_tails(Tails::PerOrder);
        assert_eq!(bed.fold(&per_order, half), Err(FoldError::TailsDiffer));
        bed.assert_unchanged(&before, "refused");

        // Of another order, folded: as a whole, and in part.
        let first = half.take_first(order.frames()).0;
        bed.fold(&folded_as, first).map(drop).unwrap();
        let before = bed.snapshot();
        let larger = Order::new(order.get() + 1).unwrap();
        let smaller = Order::new(order.get() - 1).unwrap();
        for other in [smaller, larger] {
            let other = compound(&model, &ranges, other, Tails::PerCompound);
            for refused in [bed.fold(&other, half), bed.unfold(&other, half)] {
                let refused = refused.unwrap_err();
                assert!(matches!(refused, FoldError::OtherTails { .. }), "{refused}");
            }
        }
        for other in [base, folded_as] {
            let refused = bed.reshape(&other, first).unwrap_err();
            assert!(matches!(refused, FoldError::OtherTails { .. }), "{refused}");
        }
        bed.assert_unchanged(&before, "refused");
        bed.assert_described(first, order);
        bed.offline(region);
    });
}

/// Pieces of other orders in the place of one that went offline: half a compound page, and two that
/// look like one.
fn a_compound_page_of_which_a_piece_was_exchanged_is_refused(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let small = sizes.small();
    let larger = Order::new(small.get() + 1).unwrap();
    let ranges = [sizes.blocks(larger, 7, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let whole = compound(&model, &ranges, larger, Tails::PerCompound);
        let _stays = bed.online(&whole.with_piece(Piece::Range)).unwrap();
        let first = ranges[0].take_first(small.frames()).0;
        for order in [Order::BASE, small] {
            bed.depopulate(&whole, first).map(drop).unwrap();
            let other = compound(&model, &ranges, order, Tails::PerCompound);
            bed.populate(&other, first).map(drop).unwrap();
            let before = bed.snapshot();
            for refused in [bed.fold(&whole, ranges[0]), bed.unfold(&whole, ranges[0])] {
                let refused = refused.unwrap_err();
                assert!(matches!(refused, FoldError::OtherTails { .. }), "{refused}");
            }
            bed.assert_unchanged(&before, "refused");
        }
        bed.depopulate(&whole, ranges[0]).map(drop).unwrap();
    });
}

on_backends!(all:
    what_cannot_be_folded_is_refused_and_named,
    a_compound_page_of_which_a_piece_was_exchanged_is_refused,
);
