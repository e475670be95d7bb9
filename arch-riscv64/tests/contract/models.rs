//! Where descriptors lie, and how large things are, in each mode.

use arch_riscv64::{MODEL_SV39, MODEL_SV48, MODEL_SV57};

#[test]
fn the_vmemmap_is_where_linux_has_it() {
    for (model, first, last, memory_bits) in [
        (MODEL_SV39, 0xffff_ffc7_0000_0000, 0xffff_ffc7_ffff_ffff, 38),
        (MODEL_SV48, 0xffff_8d80_0000_0000, 0xffff_8f7f_ffff_ffff, 47),
        (
            MODEL_SV57,
            0xff1c_0000_0000_0000_u64,
            0xff1f_ffff_ffff_ffff,
            56,
        ),
    ] {
        let frames = model.all_frames();
        assert_eq!(frames.frames() << 12, 1 << memory_bits);
        let descriptors = model.descriptors(frames).unwrap();
        assert_eq!(descriptors.start().get(), first);
        assert_eq!(descriptors.last().get(), last);
    }
}

#[test]
fn sizes_are_those_of_4_kib_pages_and_the_largest_page_fits() {
    for (model, largest) in [(MODEL_SV39, 26), (MODEL_SV48, 28), (MODEL_SV57, 28)] {
        let orders = [
            model.vmemmap_page_order(),
            model.subsection(),
            model.section(),
            model.max_order(),
        ];
        assert_eq!(orders.map(|order| order.get()), [6, 9, 15, largest]);
        assert!(model.max_order().frames() <= model.all_frames().frames());
    }
}
