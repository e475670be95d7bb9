//! Where descriptors lie on RISC-V.
//!
//! The vmemmap stands where Linux's documented memory map has it ("Virtual Memory Layout on RISC-V Linux" of the kernel's
//! documentation), in a region that this map gives to nothing else:
//!
//! | | Sv39 | Sv48 | Sv57 |
//! |---|---|---|---|
//! | region | `ffff_ffc7_0000_0000` to `ffff_ffc7_ffff_ffff`, 4 GiB | `ffff_8d80_0000_0000` to `ffff_8f7f_ffff_ffff`, 2 TiB | `ff1c_0000_0000_0000` to `ff1f_ffff_ffff_ffff`, 1 PiB |
//! | frames | 2^26, 256 GiB | 2^35, 128 TiB | 2^44, 64 PiB: all of 56-bit physical memory |
//! | a slot of the root table | 1 GiB | 512 GiB | 256 TiB |
//! | packed heads | from `ffff_ffc6_8000_0000` on, 128 MiB | from `ffff_8c80_0000_0000` on, 64 GiB | from `ff1a_0000_0000_0000` on, 32 TiB |
//! | largest compound page | 256 GiB | 1 TiB | 1 TiB |
//!
//! Packed heads have a slot of the root table of their own, below everything that the map has in the kernel's half.
//!
//! Sv39 has room for descriptors of all memory up to 256 GiB, whatever it is. Linux puts the descriptors of its first frame of RAM at
//! the start of the region instead. A kernel with more, or with RAM further up, has another model, at a place of its own: a
//! slot of the root table has room for 64 GiB of memory.

use crate::format::{Sv39, Sv48, Sv57};
use mm_core::addr::{Granule, Order, VirtAddr, VirtRange};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::EntryFormat;

/// 64-byte descriptors of the first 256 GiB of physical memory, for Sv39.
///
/// They are at `0xffff_ffc7_0000_0000` to `0xffff_ffc7_ffff_ffff`, 4 GiB: entries 284 to 287 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 2 MiB, and compound pages have up to 256 GiB.
///
/// Packed heads have `0xffff_ffc6_8000_0000` to `0xffff_ffc6_87ff_ffff`, in entry 282 of the root, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_SV39: MemoryModel = model(
    VirtAddr::new(0xffff_ffc7_0000_0000),
    26,
    26,
    VirtAddr::new(0xffff_ffc6_8000_0000),
);

/// 64-byte descriptors of the first 128 TiB of physical memory, for Sv48.
///
/// They are at `0xffff_8d80_0000_0000` to `0xffff_8f7f_ffff_ffff`, 2 TiB: entries 283 to 286 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 2 MiB, and compound pages have up to 1 TiB.
///
/// Packed heads have `0xffff_8c80_0000_0000` to `0xffff_8c8f_ffff_ffff`, in entry 281 of the root, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_SV48: MemoryModel = model(
    VirtAddr::new(0xffff_8d80_0000_0000),
    35,
    28,
    VirtAddr::new(0xffff_8c80_0000_0000),
);

/// 64-byte descriptors of 56-bit physical memory, for Sv57.
///
/// They are at `0xff1c_0000_0000_0000` to `0xff1f_ffff_ffff_ffff`, 1 PiB: entries 284 to 287 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. Sections, subsections and compound pages are those of [`MODEL_SV48`].
///
/// Packed heads have `0xff1a_0000_0000_0000` to `0xff1a_1fff_ffff_ffff`, in entry 282 of the root, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_SV57: MemoryModel = model(
    VirtAddr::new(0xff1c_0000_0000_0000),
    44,
    28,
    VirtAddr::new(0xff1a_0000_0000_0000),
);

const _: () = {
    assert!(
        lies_in::<Sv39>(
            MODEL_SV39.descriptors(MODEL_SV39.all_frames()),
            0xffff_ffc7_ffff_ffff
        ),
        "the vmemmap for Sv39 fits its region"
    );
    assert!(
        lies_in::<Sv48>(
            MODEL_SV48.descriptors(MODEL_SV48.all_frames()),
            0xffff_8f7f_ffff_ffff
        ),
        "the vmemmap for Sv48 fits its region"
    );
    assert!(
        lies_in::<Sv57>(
            MODEL_SV57.descriptors(MODEL_SV57.all_frames()),
            0xff1f_ffff_ffff_ffff
        ),
        "the vmemmap for Sv57 fits its region"
    );
    assert!(
        lies_in::<Sv39>(MODEL_SV39.heads(), 0xffff_ffc6_bfff_ffff),
        "packed heads for Sv39 fit one slot"
    );
    assert!(
        lies_in::<Sv48>(MODEL_SV48.heads(), 0xffff_8cff_ffff_ffff),
        "packed heads for Sv48 fit one slot"
    );
    assert!(
        lies_in::<Sv57>(MODEL_SV57.heads(), 0xff1a_ffff_ffff_ffff),
        "packed heads for Sv57 fit one slot"
    );
};

/// Room for 2^`frame_bits` frames, sections of 128 MiB, subsections of 2 MiB, compound pages up to `max_order`.
#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn model(
    vmemmap_base: VirtAddr,
    frame_bits: u32,
    max_order: u8,
    heads: VirtAddr,
) -> MemoryModel {
    let config = ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base,
        frames: 1 << frame_bits,
        section: order(15),
        subsection: order(9),
        max_order: order(max_order),
    };
    let model = match MemoryModel::new(config) {
        Ok(model) => model,
        Err(_) => panic!("a constant model is consistent"),
    };
    match model.with_heads(heads) {
        Ok(model) => model,
        Err(_) => panic!("packed heads have a place"),
    }
}

#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn order(order: u8) -> Order {
    match Order::new(order) {
        Some(order) => order,
        None => panic!("a constant order is in range"),
    }
}

/// Whether `range`, of the vmemmap or of packed heads, starts with a slot of the root table, in the upper half, and ends at or below `last`.
const fn lies_in<F: EntryFormat>(range: Option<VirtRange>, last: u64) -> bool {
    let slot = 1 << F::LEVELS[0].shift;
    match range {
        Some(range) => {
            range.start().is_aligned(slot)
                && range.start().get() >= u64::MAX << (F::VIRTUAL_BITS - 1)
                && range.last().get() <= last
        }
        None => false,
    }
}
