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
//! | largest compound page | 256 GiB | 1 TiB | 1 TiB |
//!
//! Sv39 has room for descriptors of all memory up to 256 GiB, whatever it is. Linux puts the descriptors of its first frame of RAM at
//! the start of the region instead. A kernel with more, or with RAM further up, has another model, at a place of its own: a
//! slot of the root table has room for 64 GiB of memory.

use crate::format::{Sv39, Sv48, Sv57};
use mm_core::addr::{Granule, Order, VirtAddr};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::EntryFormat;

/// 64-byte descriptors of the first 256 GiB of physical memory, for Sv39.
///
/// They are at `0xffff_ffc7_0000_0000` to `0xffff_ffc7_ffff_ffff`, 4 GiB: entries 284 to 287 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 2 MiB, and compound pages have up to 256 GiB.
pub const MODEL_SV39: MemoryModel = model(VirtAddr::new(0xffff_ffc7_0000_0000), 26, 26);

/// 64-byte descriptors of the first 128 TiB of physical memory, for Sv48.
///
/// They are at `0xffff_8d80_0000_0000` to `0xffff_8f7f_ffff_ffff`, 2 TiB: entries 283 to 286 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. A section has 128 MiB, a subsection 2 MiB, and compound pages have up to 1 TiB.
pub const MODEL_SV48: MemoryModel = model(VirtAddr::new(0xffff_8d80_0000_0000), 35, 28);

/// 64-byte descriptors of 56-bit physical memory, for Sv57.
///
/// They are at `0xff1c_0000_0000_0000` to `0xff1f_ffff_ffff_ffff`, 1 PiB: entries 284 to 287 of the root. These addresses are
/// the vmemmap's alone; [`MemoryModel::at`] moves it. Sections, subsections and compound pages are those of [`MODEL_SV48`].
pub const MODEL_SV57: MemoryModel = model(VirtAddr::new(0xff1c_0000_0000_0000), 44, 28);

const _: () = {
    assert!(
        lies_in::<Sv39>(&MODEL_SV39, 0xffff_ffc7_ffff_ffff),
        "the vmemmap for Sv39 fits its region"
    );
    assert!(
        lies_in::<Sv48>(&MODEL_SV48, 0xffff_8f7f_ffff_ffff),
        "the vmemmap for Sv48 fits its region"
    );
    assert!(
        lies_in::<Sv57>(&MODEL_SV57, 0xff1f_ffff_ffff_ffff),
        "the vmemmap for Sv57 fits its region"
    );
};

/// Room for 2^`frame_bits` frames, sections of 128 MiB, subsections of 2 MiB, compound pages up to `max_order`.
#[expect(
    clippy::panic,
    reason = "evaluated at compile time only, where it is a compile error"
)]
const fn model(vmemmap_base: VirtAddr, frame_bits: u32, max_order: u8) -> MemoryModel {
    let config = ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base,
        frames: 1 << frame_bits,
        section: order(15),
        subsection: order(9),
        max_order: order(max_order),
    };
    match MemoryModel::new(config) {
        Ok(model) => model,
        Err(_) => panic!("a constant model is consistent"),
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

/// Whether the vmemmap starts with a slot of the root table, in the upper half, and ends at or below `last`.
const fn lies_in<F: EntryFormat>(model: &MemoryModel, last: u64) -> bool {
    let slot = 1 << F::LEVELS[0].shift;
    let base = model.config().vmemmap_base;
    match model.descriptors(model.all_frames()) {
        Some(descriptors) => {
            base.is_aligned(slot)
                && base.get() >= u64::MAX << (F::VIRTUAL_BITS - 1)
                && descriptors.last().get() <= last
        }
        None => false,
    }
}
