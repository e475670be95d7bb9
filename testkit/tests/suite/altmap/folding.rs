//! Folding memory whose descriptors lie in an altmap.

use super::{SHARED_TAILS, pagemap, with_device};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Piece, Tails};
use mm_core::vmemmap::FoldError;
use testkit::testbed::{Setup, Sizes};
use testkit::{OnBackend, on_backends};

/// Brought online as base pages, folded as compound pages, and unfolded.
fn frames_come_from_and_go_back_to_the_altmap(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    // Huge leaves of 4K pages describe 64 compound pages; with larger ones there is no place for
    // them here.
    let count = 512;
    let ranges = [sizes.blocks(order, 64 * 8, count)];
    for (huge, tails) in SHARED_TAILS
        .into_iter()
        .flat_map(|one| [(false, one), (true, one)])
    {
        let base_pages = pagemap(&model, &ranges, Order::BASE, Tails::None)
            .with_piece(Piece::Range)
            .with_huge_leaves(huge);
        // Blocks need a little more than single frames.
        let needed = base_pages.altmap_needed().unwrap().frames();
        let reserved = ranges[0]
            .take_first(needed.next_multiple_of(8 * order.frames()) * 2)
            .0;
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let altmap = bed.altmaps()[0];
            let base_pages = base_pages.with_altmap(altmap).unwrap();
            let folded_as = pagemap(&model, &ranges, order, tails).with_huge_leaves(huge);
            let folded_as = folded_as.with_altmap(altmap).unwrap();
            let rest = ranges[0].split_at(reserved.frames()).1.unwrap();
            let compounds = rest.frames() >> order.get();

            let region = bed.online(&base_pages).unwrap();
            let before = bed.audit();
            let (out, ram) = (altmap.in_use(), bed.frames().outstanding());
            let across = reserved.split_at(reserved.frames() - order.frames()).1;
            let across = PfnRange::new(across.unwrap().start(), 2 * order.frames()).unwrap();
            let snapshot = bed.snapshot();
            for too_much in [ranges[0], across] {
                let refused = Err(FoldError::Reserved { reserved });
                assert_eq!(bed.fold(&folded_as, too_much), refused);
                assert_eq!(bed.unfold(&folded_as, too_much), refused);
                let refused = bed.reshape(&folded_as, too_much).unwrap_err();
                assert_eq!(refused, FoldError::Reserved { reserved });
                assert_eq!(refused.kind(), ErrorKind::Overlap);
            }
            bed.assert_unchanged(&snapshot, "refused");

            let folded = bed.fold(&folded_as, rest).unwrap();
            assert_eq!(folded.changed, compounds);
            bed.audit();
            let own = if tails == Tails::PerOrder { 1 } else { 2 };
            let holders = reserved.frames() / model.descriptors_per_page();
            assert_eq!(altmap.in_use(), holders + compounds * own);
            bed.assert_described(rest, order);

            let unfolded = bed.unfold(&folded_as, rest).unwrap();
            assert_eq!(unfolded.changed, compounds);
            let after = bed.audit();
            assert_eq!(after.descriptor_frames, before.descriptor_frames);
            assert_eq!((altmap.in_use(), bed.frames().outstanding()), (out, ram));
            bed.assert_described(rest, order);
            bed.offline(region);
        });
    }
}

/// An altmap that is just large enough for what is folded cannot hold what is unfolded.
fn an_altmap_that_is_too_small_to_unfold_says_so(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 8, 512)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let before = bed.snapshot();
        let rest = sizes.blocks(order, 8 + 256, 256);
        let refused = bed.unfold(&pagemap, rest);
        let reserved = altmap.reserved();
        assert_eq!(refused, Err(FoldError::AltmapExhausted { reserved }));
        bed.assert_unchanged(&before, "refused");
        bed.offline(region);
    });
}

/// Memory that came online without the altmap, some of it what that reserves, is unfolded with it: refused only where
/// a frame of it would be taken.
fn what_takes_nothing_needs_no_altmap(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    // A huge leaf of 4K pages maps what 64 of them have; there is no room for one of larger pages.
    let ranges = [sizes.blocks(order, 64 * 8, 128)];
    for huge in [false, true] {
        let plain = pagemap(&model, &ranges, Order::BASE, Tails::None)
            .with_piece(Piece::Range)
            .with_huge_leaves(huge);
        let reserved = ranges[0].take_first(8 * order.frames()).0;
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let altmap = bed.altmaps()[0];
            let pages = 64 * model.vmemmap_pages(order);
            let has_leaves = bed.huge_leaf().is_some_and(|leaf| leaf.frames() == pages);
            let unfolded_as = pagemap(&model, &ranges, order, Tails::PerCompound)
                .with_huge_leaves(true)
                .with_altmap(altmap)
                .unwrap();
            let region = bed.online(&plain).unwrap();
            let behind = ranges[0].split_at(64 * order.frames()).1.unwrap();
            let little = behind.take_first(4 * order.frames()).0;
            let snapshot = bed.snapshot();
            let unfolded = bed.unfold(&unfolded_as, little).unwrap();
            assert_eq!((unfolded.changed, unfolded.unchanged), (0, 4));
            bed.assert_unchanged(&snapshot, "nothing was folded");
            let all = bed.unfold(&unfolded_as, behind);
            match has_leaves && !huge {
                true => assert_eq!(all.unwrap_err().kind(), ErrorKind::AlreadyOnline),
                false => assert_eq!(all.unwrap().unchanged, 64),
            }
            bed.assert_unchanged(&snapshot, "nothing was taken");
            bed.offline(region);
        });
    }
}

on_backends!(all:
    what_takes_nothing_needs_no_altmap,
    frames_come_from_and_go_back_to_the_altmap,
    an_altmap_that_is_too_small_to_unfold_says_so,
);
