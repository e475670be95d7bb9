//! Where descriptors lie, and how large things are, for each granule.
use arch_aarch64::{MODEL_4K, MODEL_16K, MODEL_64K};
use mm_core::model::MemoryModel;

const MIB: u64 = 1 << 20;

/// Sizes in bytes: what a vmemmap page describes, subsection, section, largest compound page.
fn sizes(model: &MemoryModel) -> [u64; 4] {
    let orders = [
        model.vmemmap_page_order(),
        model.subsection(),
        model.section(),
        model.max_order(),
    ];
    orders.map(|order| order.bytes(model.granule()).unwrap())
}

#[test]
fn sizes_are_those_of_the_granule() {
    assert_eq!(sizes(&MODEL_4K), [MIB / 4, 2 * MIB, 128 * MIB, 1 << 40]);
    assert_eq!(sizes(&MODEL_16K), [4 * MIB, 4 * MIB, 128 * MIB, 1 << 40]);
    assert_eq!(sizes(&MODEL_64K), [64 * MIB, 64 * MIB, 512 * MIB, 1 << 40]);
    let orders = |model: &MemoryModel| (model.section().get(), model.subsection().get());
    assert_eq!(orders(&MODEL_4K), (15, 9));
    assert_eq!(orders(&MODEL_16K), (13, 8));
    assert_eq!(orders(&MODEL_64K), (13, 10));
}

#[test]
fn every_frame_of_48_bit_physical_memory_has_a_descriptor() {
    for (model, first, last) in [
        (MODEL_4K, 0xffff_f800_0000_0000, 0xffff_fbff_ffff_ffff),
        (MODEL_16K, 0xffff_8000_0000_0000, 0xffff_80ff_ffff_ffff),
        (MODEL_64K, 0xffff_f800_0000_0000_u64, 0xffff_f83f_ffff_ffff),
    ] {
        let frames = model.all_frames();
        assert_eq!(frames.frames() << model.granule().shift(), 1 << 48);
        let descriptors = model.descriptors(frames).unwrap();
        assert_eq!(descriptors.start().get(), first);
        assert_eq!(descriptors.last().get(), last);
    }
}

#[test]
fn every_compound_page_that_fills_a_vmemmap_page_has_a_place_for_its_head() {
    for (model, first, last) in [
        (MODEL_4K, 0xffff_f780_0000_0000, 0xffff_f79f_ffff_ffff),
        (MODEL_16K, 0xffff_8100_0000_0000, 0xffff_8101_ffff_ffff),
        (MODEL_64K, 0xffff_f400_0000_0000_u64, 0xffff_f400_1fff_ffff),
    ] {
        let heads = model.heads().unwrap();
        assert_eq!((heads.start().get(), heads.last().get()), (first, last));
        let smallest = model.vmemmap_page_order();
        let end = model.packed_head(model.all_frames().last(), smallest);
        assert_eq!(end.unwrap().get() + 63, last);
        // The heads of the largest pages come first.
        let largest = model.packed_head(model.all_frames().start(), model.max_order());
        let count = model.all_frames().frames() >> model.max_order().get();
        assert_eq!(largest.unwrap().get(), first + 64 * count);
    }
}
