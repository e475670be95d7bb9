//! Where descriptors lie on x86-64.
//!
//! The vmemmap stands where Linux's documented memory map has it ("Complete virtual memory map",
//! x86-64, of the kernel's documentation), in a region that this map gives to nothing else. Packed heads have
//! a slot of the root table of their own: with 4 levels in the hole that the map has above that region, with 5
//! levels in the region itself.
//!
//! | | 4 levels | 5 levels |
//! |---|---|---|
//! | region | `ffff_ea00_0000_0000` to `ffff_eaff_ffff_ffff`, 1 TiB | `ffd4_0000_0000_0000` to `ffd5_ffff_ffff_ffff`, 512 TiB |
//! | frames | 2^34, 46-bit physical addresses | 2^40, 52-bit physical addresses |
//! | descriptors | 1 TiB | 64 TiB |
//! | packed heads | from `ffff_eb00_0000_0000` on, 32 GiB | from `ffd5_0000_0000_0000` on, 2 TiB |

use crate::format::{FiveLevel, FourLevel};
use mm_core::addr::{Granule, Order, VirtAddr, VirtRange};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::EntryFormat;

/// 64-byte descriptors of 46-bit physical memory, for 4-level paging.
///
/// They are at `0xffff_ea00_0000_0000` to `0xffff_eaff_ffff_ffff`, 1 TiB: entries 468 and 469 of the root.
/// These addresses are the vmemmap's alone; [`MemoryModel::at`] moves it. There is room for 2^34 frames,
/// 64 TiB; a section has 128 MiB, a subsection 2 MiB, and compound pages up to 1 TiB.
///
/// Packed heads have `0xffff_eb00_0000_0000` to `0xffff_eb07_ffff_ffff`, in entry 470 of the root, where they
/// are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_4_LEVEL: MemoryModel = model(
    VirtAddr::new(0xffff_ea00_0000_0000),
    1 << 34,
    VirtAddr::new(0xffff_eb00_0000_0000),
);

/// 64-byte descriptors of 52-bit physical memory, for 5-level paging.
///
/// They are at `0xffd4_0000_0000_0000` to `0xffd4_3fff_ffff_ffff`, 64 TiB: part of entry 468 of the root.
/// These addresses are the vmemmap's alone; [`MemoryModel::at`] moves it. There is room for 2^40 frames,
/// 4 PiB; sections, subsections and compound pages are those of [`MODEL_4_LEVEL`].
///
/// Packed heads have `0xffd5_0000_0000_0000` to `0xffd5_01ff_ffff_ffff`, in entry 469 of the root, where they
/// are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_5_LEVEL: MemoryModel = model(
    VirtAddr::new(0xffd4_0000_0000_0000),
    1 << 40,
    VirtAddr::new(0xffd5_0000_0000_0000),
);

const _: () = {
    assert!(
        lies_in::<FourLevel>(
            MODEL_4_LEVEL.descriptors(MODEL_4_LEVEL.all_frames()),
            0xffff_eaff_ffff_ffff
        ),
        "the 4-level vmemmap fits its region"
    );
    assert!(
        lies_in::<FiveLevel>(
            MODEL_5_LEVEL.descriptors(MODEL_5_LEVEL.all_frames()),
            0xffd5_ffff_ffff_ffff
        ),
        "the 5-level vmemmap fits its region"
    );
    assert!(
        lies_in::<FourLevel>(MODEL_4_LEVEL.heads(), 0xffff_ebff_ffff_ffff),
        "4-level packed heads fit the hole"
    );
    assert!(
        lies_in::<FiveLevel>(MODEL_5_LEVEL.heads(), 0xffd5_ffff_ffff_ffff),
        "5-level packed heads fit the region"
    );
};

/// Sections of 128 MiB, subsections of 2 MiB, compound pages up to 1 TiB.
#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn model(vmemmap_base: VirtAddr, frames: u64, heads: VirtAddr) -> MemoryModel {
    let config = ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base,
        frames,
        section: order(15),
        subsection: order(9),
        max_order: order(28),
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

/// Whether `range`, of the vmemmap or of packed heads, starts with a slot of the root table and ends at or below `last`.
const fn lies_in<F: EntryFormat>(range: Option<VirtRange>, last: u64) -> bool {
    let slot = 1 << F::LEVELS[0].shift;
    match range {
        Some(range) => range.start().is_aligned(slot) && range.last().get() <= last,
        None => false,
    }
}
