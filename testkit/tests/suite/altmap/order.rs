//! In which order the pieces of devices with altmaps come and go.

use super::{SHARED_TAILS, pagemap, with_device};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Piece, Tails};
use testkit::testbed::{Setup, Sizes, shuffled};
use testkit::{OnBackend, on_backends};

fn pieces_come_and_go_in_any_order_those_of_the_reserved_part_too(kind: BackendKind) {
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
            let pieces: Vec<PfnRange> = pagemap.pieces().collect();
            for seed in 1..4 {
                for index in shuffled(pieces.len(), seed) {
                    bed.populate(&pagemap, pieces[index]).unwrap();
                    bed.audit();
                    let again = bed.populate(&pagemap, pieces[index]);
                    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyOnline);
                }
                let in_ram = u64::from(tails == Tails::PerOrder);
                assert_eq!(bed.audit().descriptor_frames, altmap.in_use() + in_ram);
                let base_pages = pagemap.base_pages().unwrap();
                bed.assert_described(base_pages, Order::BASE);
                for index in shuffled(pieces.len(), seed + 77) {
                    bed.depopulate(&pagemap, pieces[index]).unwrap();
                    bed.audit();
                    bed.assert_offline(pieces[index]);
                }
                assert_eq!(altmap.in_use(), 0);
            }
        });
    }
}

fn a_piece_with_the_reserved_part_and_more_comes_and_goes_as_one(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.small();
    let ranges = [sizes.blocks(order, 8, 16)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let (first, second) = ranges[0].split_at(8 * order.frames());
        let pieces = [first.unwrap(), second.unwrap()];
        assert!(altmap.reserved().frames() < pieces[0].frames());
        for [one, other] in [[0, 1], [1, 0]] {
            for piece in [one, other] {
                bed.populate(&pagemap, pieces[piece]).unwrap();
                bed.audit();
            }
            for piece in [one, other] {
                bed.depopulate(&pagemap, pieces[piece]).unwrap();
                bed.audit();
            }
        }
    });
}

/// The altmap of a region that goes may hold descriptors of memory outside of it.
fn a_region_leaves_what_others_have_in_its_altmap(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.small();
    let ranges = [sizes.blocks(order, 8, 16)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let reserved = [altmap.reserved()];
        let small = pagemap_of_reserved(&model, &reserved);
        let region = bed.online(&small.with_altmap(altmap).unwrap()).unwrap();
        let others = sizes.blocks(order, 8 + 8, 8);
        bed.populate(&pagemap, others).unwrap();
        let before = bed.audit().descriptor_frames;
        assert_eq!(bed.offline(region).kept, 0);
        bed.assert_offline(reserved[0]);
        let gone = reserved[0].frames() / model.descriptors_per_page();
        assert_eq!(bed.audit().descriptor_frames, before - gone);
        bed.assert_described(others, order);
        assert!(altmap.in_use() > 0 && bed.is_reserved(reserved[0].start()));
        bed.depopulate(&pagemap, others).unwrap();
        assert_eq!(altmap.in_use(), 0);
    });
}

fn pagemap_of_reserved<'p>(model: &MemoryModel, reserved: &'p [PfnRange; 1]) -> DevPagemap<'p> {
    pagemap(model, reserved, Order::BASE, Tails::None).with_huge_leaves(false)
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
    pieces_come_and_go_in_any_order_those_of_the_reserved_part_too,
    a_piece_with_the_reserved_part_and_more_comes_and_goes_as_one,
    a_region_leaves_what_others_have_in_its_altmap,
    two_devices_keep_to_their_own_altmaps,
);
