//! The kernel's own tables.
//!
//! ```text
//!   lower half, TTBR0, always 4 KiB pages       upper half, TTBR1, pages of the granule that was asked for
//!     0000_0000_0800_0000   GIC, other devices    ffff_0000_0000_0000   direct map: all memory, by the largest blocks
//!     0000_0000_4020_0000   image, where it is    the model's base      vmemmap: mm-core's, empty here
//! ```
//!
//! The halves have their own page sizes (TCR_EL1.TG0 and TG1), so that one image serves all granules. Built while physical memory is still mapped
//! where it is.

use crate::cpus::{GicRegisters, stacks_of};
use crate::emulator;
use crate::registers::{DEVICE_MEMORY_INDEX, Tcr};
use crate::serial;
use aarch64_paging::descriptor::El1Attributes as Attributes;
use arch_aarch64::NORMAL_MEMORY_INDEX;
use core::arch::asm;
use core::ptr::addr_of;
use experiment::{
    AddressSpace, ArmDescriptors, EarlyFrames, MOST_CPUS, MemoryMap, NoTable, TableShape, Tables,
};
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr};
use mm_core::frame::LinearMap;

/// Pages of the lower half.
const LOWER_GRANULE: Granule = Granule::Size4K;

/// Where physical address 0 lies in the direct map: the start of the upper half.
const DIRECT_MAP: u64 = 0xffff_0000_0000_0000;

/// Addresses in each half.
const ADDRESS_BITS: u32 = 48;

/// The ASID of the kernel's tables. The boot code's are of ASID 0.
const ASID: u64 = 1;

const PAGE: Attributes = Attributes::VALID
    .union(Attributes::ACCESSED)
    .union(Attributes::UXN);

const MEMORY: Attributes = PAGE
    .union(memory_type(NORMAL_MEMORY_INDEX))
    .union(Attributes::INNER_SHAREABLE);

const CODE: Attributes = MEMORY.union(Attributes::READ_ONLY);
const CONSTANT: Attributes = CODE.union(Attributes::PXN);
const DATA: Attributes = MEMORY.union(Attributes::PXN);

const DEVICE: Attributes = PAGE
    .union(memory_type(DEVICE_MEMORY_INDEX))
    .union(Attributes::PXN);

/// AttrIndx.
const fn memory_type(index: u8) -> Attributes {
    Attributes::from_bits_retain((index as usize) << 2)
}

/// The tables that the CPU walks for the upper half, in pages of `granule`.
pub const fn upper_shape(granule: Granule) -> TableShape {
    TableShape {
        granule,
        address_bits: ADDRESS_BITS,
    }
}

/// The largest block, as a shift: 1 GiB, 32 MiB or 512 MiB (Arm ARM, "VMSAv8-64 translation table format descriptors", with 48 bits
/// of output address).
const fn largest_block(granule: Granule) -> u32 {
    match granule {
        Granule::Size4K => 30,
        Granule::Size16K => 25,
        Granule::Size64K => 29,
    }
}

unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __kernel_end: u8;
}

/// The first physical address behind the kernel's image.
pub fn image_end() -> u64 {
    addr_of!(__kernel_end) as u64
}

/// The tables, not yet in use.
#[derive(Debug)]
pub struct KernelSpace {
    granule: Granule,
    /// Of the lower half, in a frame of the same granule as all the others.
    lower: Tables<ArmDescriptors, LinearMap>,
    upper: Tables<ArmDescriptors, LinearMap>,
}

impl KernelSpace {
    /// Tables that map the kernel's image, the stacks of all CPUs, the serial port, the emulator's configuration, the interrupt `controller` and all memory of `map`, in
    /// frames of `early`, all in pages of `granule`.
    ///
    /// # Errors
    ///
    /// [`NoTable`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `early` are RAM that nobody uses, in pages of `granule`, mapped where it is.
    pub unsafe fn build(
        granule: Granule,
        map: &MemoryMap,
        controller: Option<GicRegisters>,
        early: &EarlyFrames,
    ) -> Result<Self, NoTable> {
        // Tables of the lower half have pages of their own size, at the start of a frame each.
        let per_frame = granule.shift() - LOWER_GRANULE.shift();
        let lower_frames = &mut || Pfn::new(early.take_one()?.get() << per_frame);
        let upper_frames = &mut || early.take_one();
        // SAFETY: 1 and 2: those frames are mapped where they are (duty 1), and behind the image.
        let (lower_identity, identity) = unsafe {
            (
                LinearMap::new(VirtAddr::new(0), LOWER_GRANULE),
                LinearMap::new(VirtAddr::new(0), granule),
            )
        };
        // SAFETY: 1: duty 1.
        let (lower, upper) = unsafe {
            (
                Tables::empty(upper_shape(LOWER_GRANULE), lower_identity, lower_frames),
                Tables::empty(upper_shape(granule), identity, upper_frames),
            )
        };
        let at = VirtAddr::new(DIRECT_MAP);
        let (lower, upper) = lower.zip(upper).ok_or(NoTable { at })?;

        let image = [
            (addr_of!(__text_start), addr_of!(__rodata_start), CODE),
            (addr_of!(__rodata_start), addr_of!(__data_start), CONSTANT),
            (addr_of!(__data_start), addr_of!(__data_end), DATA),
        ];
        let image = image.map(|(start, end, attributes)| {
            let (start, end) = (start as u64, end as u64);
            (start, end - start, attributes)
        });
        let stacks = (0..MOST_CPUS).flat_map(stacks_of);
        let stacks = stacks.map(|(start, end)| (start, end - start, DATA));
        let port = (serial::BASE, LOWER_GRANULE.bytes());
        let controller = controller.map(|gic| [gic.distributor, gic.redistributors]);
        let configuration = (emulator::BASE, LOWER_GRANULE.bytes());
        let devices = controller.into_iter().flatten();
        let devices = devices.chain([port, configuration]);
        let devices = devices.map(|(start, bytes)| (start, bytes, DEVICE));
        for (start, bytes, attributes) in image.into_iter().chain(stacks).chain(devices) {
            let place = (VirtAddr::new(start), PhysAddr::new(start), bytes);
            let largest = largest_block(LOWER_GRANULE);
            // SAFETY: 1: duty 1. 2: where it is, with the rights and the memory type that it needs.
            unsafe { lower.map(lower_frames, place, largest, attributes.bits() as u64) }?;
        }
        for range in map.ram.as_slice().iter().chain(map.device.as_slice()) {
            let first = range.start().base(granule);
            let at = VirtAddr::new(DIRECT_MAP + first.get());
            let place = (at, first, range.frames() << granule.shift());
            // SAFETY: 1: duty 1. 2: memory, in the direct map.
            unsafe {
                upper.map(
                    upper_frames,
                    place,
                    largest_block(granule),
                    DATA.bits() as u64,
                )
            }?;
        }
        Ok(Self {
            granule,
            lower,
            upper,
        })
    }
}

impl AddressSpace for KernelSpace {
    fn root(&self) -> Pfn {
        self.upper.root()
    }

    unsafe fn activate(&self) -> LinearMap {
        let boot: u64;
        // SAFETY: reads a register, at EL1.
        unsafe { asm!("mrs {}, tcr_el1", out(reg) boot, options(nomem, nostack, preserves_flags)) };
        // SAFETY: the upper half was not translated before. The lower half's tables map what is in use where it was (duty 1); their ASID is
        // another, so that no translation that the CPU has cached is one of theirs, and what it has cached is forgotten.
        unsafe {
            asm!(
                "dsb ishst",
                "msr ttbr1_el1, {upper}",
                "isb",
                "msr tcr_el1, {tcr}",
                "msr ttbr0_el1, {lower}",
                "isb",
                "tlbi vmalle1is",
                "dsb ish",
                "isb",
                upper = in(reg) self.upper.root().base(self.granule).get(),
                lower = in(reg) self.lower.root().base(LOWER_GRANULE).get() | ASID << 48,
                tcr = in(reg) Tcr::with_upper_half(boot, self.granule),
                options(nostack, preserves_flags)
            )
        };
        // SAFETY: 1 and 2: all memory is mapped there, for good (`build`), in the upper half.
        unsafe { LinearMap::new(VirtAddr::new(DIRECT_MAP), self.granule) }
    }
}
