//! The reserved part describes itself, and the counts of its frames lie there.

use super::{pagemap, with_device};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order};
use mm_core::error::ErrorKind;
use mm_core::frame::Released;
use mm_core::pagemap::Tails;
use testkit::on_backends;
use testkit::testbed::Sizes;

/// Where the count of references is in a descriptor.
const COUNT: usize = 16;

fn hardware_sees_the_reserved_part_describe_itself(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 8, 128)];
    let plain = pagemap(&model, &ranges, sizes.natural(), Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let reserved = altmap.reserved();
        let per_page = model.descriptors_per_page();
        for index in 0..reserved.frames() / per_page {
            let described = reserved.start().checked_add(per_page * index).unwrap();
            let holder = reserved.start().checked_add(index);
            assert_eq!(bed.holder_of(described), holder);
        }
        bed.offline(region);
    });
}

fn counts_lie_in_the_descriptors_of_the_reserved_part(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 8, 32)];
    let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let reserved = altmap.reserved();
        let mut by_count = [0; 9];
        for index in 0..reserved.frames() {
            let frame = reserved.start().checked_add(index).unwrap();
            let bytes = bed
                .memory()
                .page_bytes(bed.holder_of(frame).unwrap())
                .unwrap();
            let offset = bed.address_of(frame).get() as usize & (bytes.len() - 1);
            let count = bytes[offset + COUNT..offset + COUNT + 4]
                .try_into()
                .unwrap();
            let count = u32::from_le_bytes(count);
            assert_eq!(altmap.references(frame), Some(count.into()));
            by_count[count as usize] += 1;
        }
        // Base pages for one compound page, and 31 others: a head each, and a tail frame, mapped
        // seven times.
        let base_pages = pagemap.base_pages().unwrap();
        assert_eq!(
            (base_pages.frames(), sizes.pages(order)),
            (order.frames(), 8)
        );
        let free = reserved.frames() - (8 + 2 * 31);
        assert_eq!(by_count, [free, 8 + 31, 0, 0, 0, 0, 0, 31, 0]);
        bed.offline(region);
    });
}

fn what_is_reserved_stays_as_long_as_somebody_has_a_frame_of_it(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 8, 32)];
    let plain = pagemap(&model, &ranges, sizes.natural(), Tails::PerCompound);
    with_device(kind, plain, |bed, pagemap, altmap| {
        let region = bed.online(&pagemap).unwrap();
        let kept = altmap.allocate(Order::BASE, NodeId::new(0)).unwrap();
        let reserved = altmap.reserved();
        // Its count lies in the reserved part's descriptors.
        assert_eq!(bed.offline(region).kept, reserved.frames());
        assert_eq!(altmap.in_use(), altmap.holder_frames() + 1);
        let refused = bed.online(&pagemap).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyOnline);
        // SAFETY: 1: allocated above. 2: the one reference that it came with.
        if let Released::Last(frame) = unsafe { altmap.release(kept, 1) } {
            // SAFETY: 1: it released the frame just now.
            unsafe { altmap.free(frame) };
        }
        let offlined = bed.depopulate(&pagemap, reserved).unwrap();
        assert_eq!(offlined.kept, 0);
        assert_eq!((altmap.in_use(), bed.frames().outstanding()), (0, 0));
        let region = bed.online(&pagemap).unwrap();
        bed.audit();
        bed.offline(region);
    });
}

on_backends!(all:
    hardware_sees_the_reserved_part_describe_itself,
    counts_lie_in_the_descriptors_of_the_reserved_part,
    what_is_reserved_stays_as_long_as_somebody_has_a_frame_of_it,
);
