//! Where descriptors lie on AArch64.
//!
//! Each model has room for all of 48-bit physical memory, in 64-byte descriptors, and starts with a
//! slot of its granule's root table. The region of TTBR1 is `ffff_0000_0000_0000` to
//! `ffff_ffff_ffff_ffff`.
//!
//! | | 4K | 16K | 64K |
//! |---|---|---|---|
//! | region | `ffff_f800_0000_0000` to `ffff_fbff_ffff_ffff` | `ffff_8000_0000_0000` to `ffff_80ff_ffff_ffff` | `ffff_f800_0000_0000` to `ffff_f83f_ffff_ffff` |
//! | frames | 2^36 | 2^34 | 2^32 |
//! | descriptors | 4 TiB | 1 TiB | 256 GiB |
//! | packed heads from | `ffff_f780_0000_0000` on | `ffff_8100_0000_0000` on | `ffff_f400_0000_0000` on |
//! | their size | 128 GiB | 8 GiB | 512 MiB |
//! | a slot of the root table | 512 GiB | 128 TiB | 4 TiB |
//! | a vmemmap page describes | 256 KiB | 4 MiB | 64 MiB |
//! | subsection | 2 MiB | 4 MiB | 64 MiB |
//! | section | 128 MiB | 128 MiB | 512 MiB |
//! | a leaf table describes | 128 MiB | 8 GiB | 512 GiB |
//! | largest compound page | 1 TiB | 1 TiB | 1 TiB |
//!
//! A root table with 16K pages has two entries, so there the vmemmap begins with the upper half of
//! the region, and the rest of that half is free for others. With 4K and 64K pages it leaves room
//! above itself, where kernels like to have their image and fixed mappings; packed heads have the slot below
//! it. With 16K pages they are in the vmemmap's slot, behind it.

use crate::format::{Format4K, Format16K, Format64K};
use crate::granule::ADDRESS_BITS;
use mm_core::addr::{Order, VirtAddr};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::EntryFormat;

/// 64-byte descriptors of 48-bit physical memory in pages of 4 KiB.
///
/// They are at `0xffff_f800_0000_0000` to `0xffff_fbff_ffff_ffff`, 4 TiB.
/// These addresses are the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 2 MiB, and
/// compound pages have up to 1 TiB.
///
/// Packed heads have `0xffff_f780_0000_0000` to `0xffff_f79f_ffff_ffff`, in the slot of the root below the vmemmap, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_4K: MemoryModel = model::<Format4K>(Config {
    heads: 0xffff_f780_0000_0000,
    vmemmap_base: 0xffff_f800_0000_0000,
    section_bytes: 128 << 20,
    subsection_bytes: 2 << 20,
});

/// 64-byte descriptors of 48-bit physical memory in pages of 16 KiB.
///
/// They are at `0xffff_8000_0000_0000` to `0xffff_80ff_ffff_ffff`, 1 TiB.
/// These addresses are the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 4 MiB, and
/// compound pages have up to 1 TiB.
///
/// Packed heads have `0xffff_8100_0000_0000` to `0xffff_8101_ffff_ffff`, in the vmemmap's slot of the root, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_16K: MemoryModel = model::<Format16K>(Config {
    heads: 0xffff_8100_0000_0000,
    vmemmap_base: 0xffff_8000_0000_0000,
    section_bytes: 128 << 20,
    subsection_bytes: 4 << 20,
});

/// 64-byte descriptors of 48-bit physical memory in pages of 64 KiB.
///
/// They are at `0xffff_f800_0000_0000` to `0xffff_f83f_ffff_ffff`, 256 GiB.
/// These addresses are the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 512 MiB, a subsection 64 MiB, and
/// compound pages have up to 1 TiB.
///
/// Packed heads have `0xffff_f400_0000_0000` to `0xffff_f400_1fff_ffff`, in the slot of the root below the vmemmap, where
/// they are used; [`MemoryModel::with_heads`] moves them.
pub const MODEL_64K: MemoryModel = model::<Format64K>(Config {
    heads: 0xffff_f400_0000_0000,
    vmemmap_base: 0xffff_f800_0000_0000,
    section_bytes: 512 << 20,
    subsection_bytes: 64 << 20,
});

const _: () = {
    assert!(
        lies_in::<Format4K>(&MODEL_4K, 0xffff_fbff_ffff_ffff),
        "the vmemmap for 4K pages fits its region"
    );
    assert!(
        lies_in::<Format16K>(&MODEL_16K, 0xffff_80ff_ffff_ffff),
        "the vmemmap for 16K pages fits its region"
    );
    assert!(
        lies_in::<Format64K>(&MODEL_64K, 0xffff_f83f_ffff_ffff),
        "the vmemmap for 64K pages fits its region"
    );
    assert!(
        heads_have_their_slot::<Format4K>(&MODEL_4K),
        "packed heads for 4K pages have a slot to themselves"
    );
    assert!(
        !heads_have_their_slot::<Format16K>(&MODEL_16K),
        "packed heads for 16K pages are in the vmemmap's slot: there are two in all"
    );
    assert!(
        heads_have_their_slot::<Format64K>(&MODEL_64K),
        "packed heads for 64K pages have a slot to themselves"
    );
};

/// What differs from model to model.
struct Config {
    vmemmap_base: u64,
    heads: u64,
    section_bytes: u64,
    subsection_bytes: u64,
}

/// The model of `config`, with the pages of `F` and compound pages up to 1 TiB.
#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn model<F: EntryFormat>(config: Config) -> MemoryModel {
    let heads = VirtAddr::new(config.heads);
    let config = ModelConfig {
        granule: F::GRANULE,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(config.vmemmap_base),
        frames: F::LAST_FRAME.get() + 1,
        section: order::<F>(config.section_bytes),
        subsection: order::<F>(config.subsection_bytes),
        max_order: order::<F>(1 << 40),
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

/// The order of `bytes` bytes in pages of `F`.
#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn order<F: EntryFormat>(bytes: u64) -> Order {
    match Order::from_bytes(bytes, F::GRANULE) {
        Some(order) => order,
        None => panic!("a constant size is a power of two of pages"),
    }
}

/// Whether the vmemmap starts with a slot of the root table, within the region of TTBR1, and ends
/// at or below `last`.
const fn lies_in<F: EntryFormat>(model: &MemoryModel, last: u64) -> bool {
    let slot = 1 << F::LEVELS[0].shift;
    let base = model.config().vmemmap_base;
    match model.descriptors(model.all_frames()) {
        Some(descriptors) => {
            base.is_aligned(slot)
                && base.get() >= u64::MAX << ADDRESS_BITS
                && descriptors.last().get() <= last
        }
        None => false,
    }
}

/// Whether packed heads start with a slot of the root table, within the region of TTBR1, and end before its
/// end. The vmemmap starts with another one.
const fn heads_have_their_slot<F: EntryFormat>(model: &MemoryModel) -> bool {
    let slot = 1 << F::LEVELS[0].shift;
    match model.heads() {
        Some(heads) => {
            heads.start().is_aligned(slot)
                && heads.start().get() >= u64::MAX << ADDRESS_BITS
                && heads.last().get() - heads.start().get() < slot
        }
        None => false,
    }
}
