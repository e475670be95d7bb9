//! In which order the pieces of devices with altmaps come and go.

use super::{SHARED_TAILS, pagemap, with_device};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Piece, Tails};
use mm_core::vmemmap::{OfflineError, OnlineError};
use testkit::testbed::{Setup, Sizes, Testbed, shuffled};
use testkit::{OnBackend, on_backends};

fn pieces_go_in_any_order_behind_the_reserved_part(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let small = sizes.small();
    let larger = Order::new(small.get() + 3).unwrap();
    let ranges = [sizes.blocks(larger, 6, 3), sizes.blocks(larger, 2, 2)];
    for (order, tails) in [
        (larger, Tails::PerCompound),
        (larger, Tails::PerOrder),
        (small, Tails::PerCompound),
        (Order::BASE, Tails::None),
    ] {
        let plain = pagemap(&model, &ranges, order, tails).with_huge_leaves(false);
        // At least two subsections, so that there is an order within the reserved part.
        let needed = plain.altmap_needed().unwrap();
        let two = 2 * model.subsection().frames();
        let reserved = ranges[0].take_first(needed.frames().max(two)).0;
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let altmap = bed.altmaps()[0];
            let pagemap = plain
                .with_piece(Piece::Subsection)
                .with_altmap(altmap)
                .unwrap();
            let (kept, others): (Vec<PfnRange>, Vec<PfnRange>) = pagemap
                .pieces()
                .partition(|piece| reserved.contains_range(*piece));
            let (first, last) = (kept[0], kept[kept.len() - 1]);
            for seed in 1..3 {
                for piece in &kept {
                    // Neither another piece nor a later one of the reserved part comes before its
                    // start.
                    let rest = altmap.undescribed().unwrap();
                    for early in [others[0], others[others.len() - 1], last] {
                        if early != *piece {
                            let refused = bed.populate(&pagemap, early);
                            assert_eq!(refused, Err(OnlineError::ReservedFirst { rest }));
                        }
                    }
                    bed.populate(&pagemap, *piece).unwrap();
                    bed.audit();
                }
                for index in shuffled(others.len(), seed) {
                    bed.populate(&pagemap, others[index]).unwrap();
                    bed.audit();
                }
                let again = bed.populate(&pagemap, first);
                assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyOnline);

                for (turn, index) in shuffled(others.len(), seed + 77).into_iter().enumerate() {
                    if turn % 8 == 0 {
                        refuses_all(bed, &pagemap, &kept);
                    }
                    bed.depopulate(&pagemap, others[index]).unwrap();
                    bed.audit();
                }
                assert_eq!(altmap.in_use(), altmap.holder_frames());
                let refused = bed.depopulate(&pagemap, first);
                let online = ranges[0].split_at(model.subsection().frames()).1.unwrap();
                assert_eq!(refused, Err(OfflineError::ReservedLast { online }));
                bed.depopulate(&pagemap, last).unwrap();
                bed.audit();
                bed.populate(&pagemap, last).unwrap();
                for piece in kept.iter().rev() {
                    bed.depopulate(&pagemap, *piece).unwrap();
                    bed.audit();
                }
                assert_eq!(altmap.undescribed(), Some(reserved));
            }
        });
    }
}

/// While other memory is online by the altmap, none of the reserved part goes.
fn refuses_all(
    bed: &mut dyn Testbed<'_>,
    pagemap: &mm_core::pagemap::DevPagemap<'_>,
    reserved: &[PfnRange],
) {
    let before = bed.snapshot();
    for early in reserved {
        let refused = bed.depopulate(pagemap, *early);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfOrder);
    }
    bed.assert_unchanged(&before, "refused");
}

fn a_piece_with_the_reserved_part_and_more_goes_offline_as_one(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.small();
    let ranges = [sizes.blocks(order, 8, 16)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let (first, second) = ranges[0].split_at(8 * order.frames());
        let pieces = [first.unwrap(), second.unwrap()];
        assert!(altmap.reserved().frames() < pieces[0].frames());
        for piece in &pieces {
            bed.populate(&pagemap, *piece).unwrap();
        }
        let refused = bed.depopulate(&pagemap, pieces[0]);
        let online = pieces[1];
        assert_eq!(refused, Err(OfflineError::ReservedLast { online }));
        for piece in pieces.iter().rev() {
            bed.depopulate(&pagemap, *piece).unwrap();
            bed.audit();
        }
    });
}

/// They lie side by side, in one leaf table.
fn two_devices_keep_to_their_own_altmaps(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.small();
    let ranges = [[sizes.blocks(order, 8, 8)], [sizes.blocks(order, 16, 16)]];
    for tails in SHARED_TAILS {
        let plain = [0, 1].map(|one: usize| {
            pagemap(&model, &ranges[one], order, tails).with_piece(Piece::Subsection)
        });
        let reserved = plain.map(|plain| plain.altmap_needed().unwrap());
        let setup = Setup::new(&ranges.concat());
        let setup = setup.with_altmap(reserved[0]).with_altmap(reserved[1]);
        kind.testbed(&setup, |bed| {
            let altmaps = [bed.altmaps()[0], bed.altmaps()[1]];
            let devices = [0, 1].map(|one: usize| plain[one].with_altmap(altmaps[one]).unwrap());
            let pieces = devices.map(|device| device.pieces().collect::<Vec<PfnRange>>());
            for index in 0..pieces[1].len() {
                for (device, pieces) in devices.iter().zip(&pieces) {
                    if let Some(piece) = pieces.get(index) {
                        bed.populate(device, *piece).unwrap();
                        bed.audit();
                    }
                }
            }
            for (altmap, ranges) in altmaps.iter().zip(&ranges) {
                let shared = bed.leaf_of(ranges[0].last()).unwrap();
                for frame in bed.holders_of(ranges[0]) {
                    let of_all = tails == Tails::PerOrder && frame == shared.frame;
                    assert_eq!(altmap.contains(frame), !of_all);
                }
            }
            let used = altmaps[1].in_use();
            for piece in pieces[0].iter().rev() {
                bed.depopulate(&devices[0], *piece).unwrap();
                bed.audit();
            }
            assert_eq!(altmaps.map(|altmap| altmap.in_use()), [0, used]);
            // The first comes again beside the second, which then goes before it.
            let region = bed.online(&devices[0]).unwrap();
            for piece in pieces[1].iter().rev() {
                bed.depopulate(&devices[1], *piece).unwrap();
            }
            bed.audit();
            bed.offline(region);
        });
    }
}

on_backends!(all:
    pieces_go_in_any_order_behind_the_reserved_part,
    a_piece_with_the_reserved_part_and_more_goes_offline_as_one,
    two_devices_keep_to_their_own_altmaps,
);
