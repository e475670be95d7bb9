//! The kernel's own tables.
//!
//! ```text
//!   lower half, TTBR0, always 4 KiB pages       upper half, TTBR1, pages of the granule that was asked for
//!     0000_0000_0900_0000   serial port           ffff_0000_0000_0000   direct map: all memory, by the largest blocks
//!     0000_0000_4020_0000   image, where it is    the model's base      vmemmap: mm-core's, empty here
//! ```
//!
//! The halves have their own page sizes (TCR_EL1.TG0 and TG1), so that one image serves all granules. Built while physical memory is still mapped
//! where it is.

use crate::boot::{IDENTITY_END, IDENTITY_START};
use crate::registers::{DEVICE_MEMORY_INDEX, Tcr};
use crate::serial;
use aarch64_paging::descriptor::El1Attributes as Attributes;
use arch_aarch64::NORMAL_MEMORY_INDEX;
use core::arch::asm;
use core::ptr::{NonNull, addr_of};
use experiment::{EarlyFrames, MemoryMap};
use mm_core::addr::{Granule, Pfn};
use mm_core::frame::DirectMap;

/// Pages of the lower half.
const LOWER_GRANULE: Granule = Granule::Size4K;

/// Where physical address 0 lies in the direct map: the start of the upper half.
const DIRECT_MAP: u64 = 0xffff_0000_0000_0000;

/// Addresses in each half.
const ADDRESS_BITS: u32 = 48;

/// The ASID of the kernel's tables. The boot code's are of ASID 0.
const ASID: u64 = 1;

const LINK: Attributes = Attributes::VALID.union(Attributes::TABLE_OR_PAGE);

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

/// Physical memory at a constant distance.
#[derive(Clone, Copy, Debug)]
pub struct LinearMap {
    granule: Granule,
}

// SAFETY: 1: all RAM and device memory is mapped there, writable, for good (`build`). 2 and 3: a constant is added.
unsafe impl DirectMap for LinearMap {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let address = DIRECT_MAP + frame.base(self.granule).get();
        let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
        // The map lies in the upper half, so the address is not null.
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }
}

unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __stack_start: u8;
    static __stack_end: u8;
    static __exception_stack_start: u8;
    static __exception_stack_end: u8;
    static __kernel_end: u8;
}

/// The first physical address behind the kernel's image.
pub fn image_end() -> u64 {
    addr_of!(__kernel_end) as u64
}

/// The tables, not yet in use.
#[derive(Debug)]
pub struct AddressSpace {
    lower: Tables,
    upper: Tables,
}

/// There was no frame for a table, or one that is not mapped where it is.
#[derive(Clone, Copy, Debug)]
pub struct NoFrameForTable;

impl AddressSpace {
    /// Tables that map the kernel's image, the serial port and all memory of `map`, in frames of `early`, all in pages of `granule`.
    ///
    /// # Errors
    ///
    /// [`NoFrameForTable`].
    ///
    /// # Safety
    ///
    /// 1. Physical memory from [`IDENTITY_START`] to [`IDENTITY_END`] is mapped where it is.
    /// 2. The frames of `early` are RAM that nobody uses.
    pub unsafe fn build(
        granule: Granule,
        map: &MemoryMap,
        early: &EarlyFrames,
    ) -> Result<Self, NoFrameForTable> {
        // Tables of both halves are in frames of the one granule.
        let frames = TableFrames { granule, early };
        let lower = Tables::new(LOWER_GRANULE, &frames)?;
        let image = [
            (addr_of!(__text_start), addr_of!(__rodata_start), CODE),
            (addr_of!(__rodata_start), addr_of!(__data_start), CONSTANT),
            (addr_of!(__data_start), addr_of!(__data_end), DATA),
            (addr_of!(__stack_start), addr_of!(__stack_end), DATA),
            (
                addr_of!(__exception_stack_start),
                addr_of!(__exception_stack_end),
                DATA,
            ),
        ];
        for (start, end, attributes) in image {
            let (start, end) = (start as u64, end as u64);
            lower.map(&frames, start, start, end - start, attributes)?;
        }
        let page = LOWER_GRANULE.bytes();
        lower.map(&frames, serial::BASE, serial::BASE, page, DEVICE)?;

        let upper = Tables::new(granule, &frames)?;
        for range in map.ram.as_slice().iter().chain(map.device.as_slice()) {
            let start = range.start().base(granule).get();
            let size = range.frames() << granule.shift();
            upper.map(&frames, DIRECT_MAP + start, start, size, DATA)?;
        }
        Ok(Self { lower, upper })
    }

    /// The frame of the upper half's root table.
    pub fn root(&self) -> Option<Pfn> {
        Pfn::new(self.upper.root >> self.upper.granule.shift())
    }

    /// Makes the CPU translate by these tables, and answers with the direct map.
    ///
    /// # Safety
    ///
    /// 1. The boot code's tables are in use, and of the lower half nothing but what these map there.
    pub unsafe fn activate(&self) -> LinearMap {
        let granule = self.upper.granule;
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
                upper = in(reg) self.upper.root,
                lower = in(reg) self.lower.root | ASID << 48,
                tcr = in(reg) Tcr::with_upper_half(boot, granule),
                options(nostack, preserves_flags)
            )
        };
        LinearMap { granule }
    }
}

/// Where tables come from.
struct TableFrames<'e> {
    granule: Granule,
    early: &'e EarlyFrames,
}

impl TableFrames<'_> {
    /// The address of a zeroed frame.
    fn take(&self) -> Result<u64, NoFrameForTable> {
        let frame = self.early.take_one().ok_or(NoFrameForTable)?;
        let address = frame.base(self.granule).get();
        let bytes = self.granule.bytes() as usize;
        // SAFETY: one frame that nobody uses (duty 2 of `build`), mapped where it is (duty 1).
        unsafe { entries_of(address)?.cast::<u8>().write_bytes(0, bytes) };
        Ok(address)
    }
}

/// The tables of one half.
#[derive(Debug)]
struct Tables {
    granule: Granule,
    root: u64,
}

impl Tables {
    fn new(granule: Granule, frames: &TableFrames<'_>) -> Result<Self, NoFrameForTable> {
        let root = frames.take()?;
        Ok(Self { granule, root })
    }

    /// How many bits of an address each table takes.
    const fn index_bits(&self) -> u32 {
        self.granule.shift() - 3
    }

    /// What an entry of the root table translates, as a shift.
    const fn top_shift(&self) -> u32 {
        let mut shift = self.granule.shift();
        while shift + self.index_bits() < ADDRESS_BITS {
            shift += self.index_bits();
        }
        shift
    }

    /// The largest block, as a shift: 1 GiB, 32 MiB or 512 MiB (Arm ARM, "VMSAv8-64 translation table format descriptors", with 48 bits
    /// of output address).
    const fn largest_block(&self) -> u32 {
        match self.granule {
            Granule::Size4K => 30,
            Granule::Size16K => 25,
            Granule::Size64K => 29,
        }
    }

    /// Maps `size` bytes at `at` to those at `physical`, all multiples of the page, by the largest blocks that fit.
    fn map(
        &self,
        frames: &TableFrames<'_>,
        at: u64,
        physical: u64,
        size: u64,
        attributes: Attributes,
    ) -> Result<(), NoFrameForTable> {
        let mut done = 0;
        while done < size {
            let (at, physical) = (at + done, physical + done);
            let mut shift = self.largest_block();
            while (at | physical) & ((1 << shift) - 1) != 0 || size - done < 1 << shift {
                shift -= self.index_bits();
            }
            self.enter(frames, at, physical, shift, attributes)?;
            done += 1 << shift;
        }
        Ok(())
    }

    /// Enters the page or block of 2^`shift` bytes at `at`, where nothing is mapped.
    fn enter(
        &self,
        frames: &TableFrames<'_>,
        at: u64,
        physical: u64,
        shift: u32,
        mut attributes: Attributes,
    ) -> Result<(), NoFrameForTable> {
        let mut table = self.root;
        let mut level = self.top_shift();
        loop {
            let bits = self.index_bits().min(ADDRESS_BITS - level);
            let index = (at >> level) as usize & ((1 << bits) - 1);
            // SAFETY: the table is one of these, mapped where it is, and nobody else knows it; the index is within it.
            let entry = unsafe { &mut *entries_of(table)?.add(index).as_ptr() };
            if level == shift {
                attributes.set(Attributes::TABLE_OR_PAGE, shift == self.granule.shift());
                *entry = physical | attributes.bits() as u64;
                return Ok(());
            }
            if *entry == 0 {
                *entry = frames.take()? | LINK.bits() as u64;
            }
            table = *entry & !(LINK.bits() as u64);
            level -= self.index_bits();
        }
    }
}

/// The entries of the table at `address`, where it is mapped before the switch.
fn entries_of(address: u64) -> Result<NonNull<u64>, NoFrameForTable> {
    let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
    NonNull::new(pointer)
        .filter(|_| (IDENTITY_START..IDENTITY_END).contains(&address))
        .ok_or(NoFrameForTable)
}
