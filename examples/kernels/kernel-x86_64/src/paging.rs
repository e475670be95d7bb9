//! The kernel's own tables: its image with the rights of each part, and all memory in the direct map.
//!
//! ```text
//!                  4 levels               5 levels
//!   direct map     ffff_8880_0000_0000    ff11_0000_0000_0000    2 MiB and 1 GiB pages, not executable
//!   vmemmap        ffff_ea00_0000_0000    ffd4_0000_0000_0000    mm-core's; empty here
//!   image          ffff_ffff_8000_0000    the same               4 KiB pages
//! ```
//!
//! Built while physical memory is still mapped where it is. Nothing is mapped in the lower half afterwards.

use crate::boot::{IDENTITY_END, KERNEL_BASE};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::ptr::{NonNull, addr_of};
use experiment::{EarlyFrames, MemoryMap};
use mm_core::addr::{Granule, Pfn};
use mm_core::frame::DirectMap;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::structures::paging::PageTableFlags as Flags;

const GRANULE: Granule = Granule::Size4K;
const INDEX_BITS: u32 = 9;

/// 2 MiB, as a shift.
const BLOCK_SHIFT: u32 = 21;
/// 1 GiB, as a shift.
const LARGE_BLOCK_SHIFT: u32 = 30;

/// CPUID leaf 8000_0001, EDX: 1 GiB pages.
const HAS_LARGE_BLOCKS: u32 = 1 << 26;

const LINK: Flags = Flags::PRESENT.union(Flags::WRITABLE);
const DATA: Flags = LINK.union(Flags::NO_EXECUTE);
const CONSTANT: Flags = Flags::PRESENT.union(Flags::NO_EXECUTE);
const CODE: Flags = Flags::PRESENT;

/// How many levels the CPU walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48-bit addresses.
    Four,
    /// 57-bit addresses.
    Five,
}

impl Levels {
    /// What was chosen before paging was enabled.
    pub fn current() -> Self {
        if Cr4::read().contains(Cr4Flags::L5_PAGING) {
            Self::Five
        } else {
            Self::Four
        }
    }

    /// How many.
    pub const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// Where the direct map starts.
    const fn direct_map(self) -> u64 {
        match self {
            Self::Four => 0xffff_8880_0000_0000,
            Self::Five => 0xff11_0000_0000_0000,
        }
    }
}

/// Physical memory at a constant distance.
#[derive(Clone, Copy, Debug)]
pub struct LinearMap {
    base: u64,
}

impl LinearMap {
    /// The first byte of `frame`.
    pub const fn address(&self, frame: Pfn) -> u64 {
        self.base + frame.base(GRANULE).get()
    }
}

// SAFETY: 1: all RAM and device memory is mapped there, writable, for good (`build`). 2 and 3: a constant is added.
unsafe impl DirectMap for LinearMap {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        let pointer = core::ptr::with_exposed_provenance_mut(self.address(frame) as usize);
        // The map lies in the upper half, so the address is not null.
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }
}

unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __kernel_end: u8;
}

/// The first physical address behind the kernel's image.
pub fn image_end() -> u64 {
    addr_of!(__kernel_end) as u64 - KERNEL_BASE
}

/// The tables, not yet in use.
#[derive(Debug)]
pub struct AddressSpace {
    root: Pfn,
    levels: Levels,
}

/// There was no frame for a table, or one that is mapped where it is.
#[derive(Clone, Copy, Debug)]
pub struct NoFrameForTable;

impl AddressSpace {
    /// Tables for `levels` levels that map the kernel's image and all memory of `map`, in frames of `early`.
    ///
    /// # Errors
    ///
    /// [`NoFrameForTable`].
    ///
    /// # Safety
    ///
    /// 1. Physical memory below [`IDENTITY_END`] is mapped where it is.
    /// 2. The frames of `early` are RAM that nobody uses.
    pub unsafe fn build(
        levels: Levels,
        map: &MemoryMap,
        early: &EarlyFrames,
    ) -> Result<Self, NoFrameForTable> {
        let space = Self {
            root: new_table(early)?,
            levels,
        };
        let image = [
            (addr_of!(__text_start), addr_of!(__rodata_start), CODE),
            (addr_of!(__rodata_start), addr_of!(__data_start), CONSTANT),
            (addr_of!(__data_start), addr_of!(__kernel_end), DATA),
        ];
        for (start, end, flags) in image {
            for at in (start as u64..end as u64).step_by(GRANULE.bytes() as usize) {
                space.map(early, at, at - KERNEL_BASE, GRANULE.shift(), flags)?;
            }
        }
        let has_large = __cpuid(0x8000_0000).eax >= 0x8000_0001
            && __cpuid(0x8000_0001).edx & HAS_LARGE_BLOCKS != 0;
        for range in map.ram.as_slice().iter().chain(map.device.as_slice()) {
            // Rounded out to blocks: what else lies in one is not touched through it. Ranges may share a block.
            let block = (1u64 << BLOCK_SHIFT) - 1;
            let mut at = range.start().base(GRANULE).get() & !block;
            let end = (range.last().base(GRANULE).get() | block) + 1;
            while at < end {
                let large = 1u64 << LARGE_BLOCK_SHIFT;
                let shift = if has_large && at.is_multiple_of(large) && end - at >= large {
                    LARGE_BLOCK_SHIFT
                } else {
                    BLOCK_SHIFT
                };
                space.map(early, levels.direct_map() + at, at, shift, DATA)?;
                at += 1 << shift;
            }
        }
        Ok(space)
    }

    /// The root table's frame.
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// Maps 2^`shift` bytes at `at` to `physical`, in place of what was there.
    fn map(
        &self,
        early: &EarlyFrames,
        at: u64,
        physical: u64,
        shift: u32,
        flags: Flags,
    ) -> Result<(), NoFrameForTable> {
        let mut table = self.root;
        let mut level = GRANULE.shift() + INDEX_BITS * (self.levels.count() - 1);
        loop {
            let index = (at >> level) as usize & ((1 << INDEX_BITS) - 1);
            // SAFETY: the table is one of these, mapped where it is, and nobody else knows it; the index is within it.
            let entry = unsafe { &mut *table_pointer(table)?.add(index).as_ptr() };
            if level == shift {
                let mut flags = flags | Flags::ACCESSED | Flags::DIRTY | Flags::GLOBAL;
                flags.set(Flags::HUGE_PAGE, shift != GRANULE.shift());
                *entry = physical | flags.bits();
                return Ok(());
            }
            if *entry == 0 {
                let frame = new_table(early)?;
                *entry = frame.base(GRANULE).get() | LINK.bits();
            } else if Flags::from_bits_retain(*entry).contains(Flags::HUGE_PAGE) {
                // Ranges share this block: it is there already.
                return Ok(());
            }
            table = Pfn::new((*entry & 0x000f_ffff_ffff_f000) >> GRANULE.shift())
                .ok_or(NoFrameForTable)?;
            level -= INDEX_BITS;
        }
    }

    /// Makes the CPU translate by these tables, and answers with the direct map.
    ///
    /// # Safety
    ///
    /// 1. Code, data and the stack that are in use are the image's, and nothing in the lower half is.
    /// 2. All of the map's memory is free of rules against being mapped write-back.
    pub unsafe fn activate(&self) -> LinearMap {
        let root = self.root.base(GRANULE).get();
        // SAFETY: the tables map the image where it was (duty 1), with the rights that its parts need.
        unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
        LinearMap {
            base: self.levels.direct_map(),
        }
    }
}

/// A table where it is mapped before the switch.
fn table_pointer(frame: Pfn) -> Result<NonNull<u64>, NoFrameForTable> {
    let address = frame.base(GRANULE).get();
    let pointer = core::ptr::with_exposed_provenance_mut(address as usize);
    NonNull::new(pointer)
        .filter(|_| address < IDENTITY_END)
        .ok_or(NoFrameForTable)
}

/// A zeroed table.
fn new_table(early: &EarlyFrames) -> Result<Pfn, NoFrameForTable> {
    let frame = early.take_one().ok_or(NoFrameForTable)?;
    // SAFETY: one frame that nobody uses (duty 2 of `build`), mapped where it is (duty 1).
    unsafe { table_pointer(frame)?.write_bytes(0, GRANULE.entries_per_table()) };
    Ok(frame)
}
