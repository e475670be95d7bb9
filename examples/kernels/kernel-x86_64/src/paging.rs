//! The kernel's own tables: its image with the rights of each part, and all memory in the direct map.
//!
//! ```text
//!                  4 levels               5 levels
//!   direct map     ffff_8880_0000_0000    ff11_0000_0000_0000    2 MiB and 1 GiB pages, not executable
//!   vmemmap        ffff_ea00_0000_0000    ffd4_0000_0000_0000    mm-core's; empty here
//!   image          ffff_ffff_8000_0000    the same               4 KiB pages
//!   local APIC     ffff_ffff_fee0_0000    the same               of each CPU its own
//! ```
//!
//! Built while physical memory is still mapped where it is. Nothing is mapped in the lower half afterwards.

use boot_x86_64::{KERNEL_BASE, LOCAL_APIC, stack_of};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::ptr::addr_of;
use experiment::{
    AddressSpace, EarlyFrames, MOST_CPUS, MemoryMap, NoTable, RangeList, TableShape, Tables,
    X86Entries,
};
use mm_core::addr::{Granule, Order, Pfn, PhysAddr, VirtAddr};
use mm_core::frame::LinearMap;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Pages in the memory map and in the tables.
pub const GRANULE: Granule = Granule::Size4K;

/// The largest blocks that every CPU has: 2 MiB, as a shift and as an order.
const BLOCK_SHIFT: u32 = 21;
const BLOCK_ORDER: u8 = 9;
/// 1 GiB, as a shift.
const LARGE_BLOCK_SHIFT: u32 = 30;

/// CPUID leaf 8000_0001, EDX: 1 GiB pages.
const HAS_LARGE_BLOCKS: u32 = 1 << 26;

const LEAF: Flags = Flags::PRESENT.union(Flags::ACCESSED).union(Flags::GLOBAL);
const CODE: Flags = LEAF;
const CONSTANT: Flags = LEAF.union(Flags::NO_EXECUTE);
const DATA: Flags = CONSTANT.union(Flags::WRITABLE).union(Flags::DIRTY);
const DEVICE: Flags = DATA.union(Flags::NO_CACHE).union(Flags::WRITE_THROUGH);

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

    /// The tables that the CPU walks.
    pub const fn shape(self) -> TableShape {
        TableShape {
            granule: GRANULE,
            address_bits: 12 + 9 * self.count(),
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

unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_end: u8;
}

/// The tables, not yet in use.
#[derive(Debug)]
pub struct KernelSpace {
    tables: Tables<X86Entries, LinearMap>,
    levels: Levels,
}

impl KernelSpace {
    /// Tables for `levels` levels that map the kernel's image, all memory of `map` and the registers at `local_apic`, in
    /// frames of `early`.
    ///
    /// # Errors
    ///
    /// [`NoTable`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `early` are RAM that nobody uses, mapped where it is.
    pub unsafe fn build(
        levels: Levels,
        map: &MemoryMap,
        local_apic: Option<PhysAddr>,
        early: &EarlyFrames,
    ) -> Result<Self, NoTable> {
        // SAFETY: 1 and 2: those frames are mapped where they are (duty 1), and behind the image.
        let identity = unsafe { LinearMap::new(VirtAddr::new(0), GRANULE) };
        let frames = &mut || early.take_one();
        // SAFETY: 1: duty 1.
        let tables = unsafe { Tables::empty(levels.shape(), identity, frames) };
        let tables = tables.ok_or(NoTable {
            at: VirtAddr::new(KERNEL_BASE),
        })?;
        let image = [
            (addr_of!(__text_start), addr_of!(__rodata_start), CODE),
            (addr_of!(__rodata_start), addr_of!(__data_start), CONSTANT),
            (addr_of!(__data_start), addr_of!(__data_end), DATA),
        ];
        let image = image.map(|(start, end, flags)| (start as u64, end as u64, flags));
        let stacks = (0..MOST_CPUS).map(stack_of);
        let stacks = stacks.map(|(start, end)| (start, end, DATA));
        for (start, end, flags) in image.into_iter().chain(stacks) {
            let place = (
                VirtAddr::new(start),
                PhysAddr::new(start - KERNEL_BASE),
                end - start,
            );
            // SAFETY: 1: duty 1. 2: the part where it is linked, with the rights that it needs.
            unsafe { tables.map(frames, place, GRANULE.shift(), flags.bits()) }?;
        }
        if let Some(registers) = local_apic {
            let place = (VirtAddr::new(LOCAL_APIC), registers, GRANULE.bytes());
            // SAFETY: 1: duty 1. 2: registers of a device, uncached; the address is nobody else's.
            unsafe { tables.map(frames, place, GRANULE.shift(), DEVICE.bits()) }?;
        }
        let has_large = __cpuid(0x8000_0000).eax >= 0x8000_0001
            && __cpuid(0x8000_0001).edx & HAS_LARGE_BLOCKS != 0;
        let largest = if has_large {
            LARGE_BLOCK_SHIFT
        } else {
            BLOCK_SHIFT
        };
        for range in whole_blocks(map).as_slice() {
            let first = range.start().base(GRANULE);
            let at = VirtAddr::new(levels.direct_map() + first.get());
            let bytes = range.frames() << GRANULE.shift();
            // SAFETY: 1: duty 1. 2: memory, in the direct map; what else lies in a block is not touched through it.
            unsafe { tables.map(frames, (at, first, bytes), largest, DATA.bits()) }?;
        }
        Ok(Self { tables, levels })
    }
}

/// All memory, rounded out to blocks.
fn whole_blocks(map: &MemoryMap) -> RangeList {
    let mut all = *map;
    for range in map.device.as_slice() {
        // A range too many is not mapped, nor used.
        let _ = all.ram.add(*range);
    }
    all.described(Order::new(BLOCK_ORDER).unwrap_or(Order::BASE))
}

impl AddressSpace for KernelSpace {
    fn root(&self) -> Pfn {
        self.tables.root()
    }

    unsafe fn activate(&self) -> LinearMap {
        let root = self.root().base(GRANULE).get();
        // SAFETY: the tables map the image where it was (duty 1), with the rights that its parts need.
        unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
        // SAFETY: 1 and 2: all memory is mapped there, for good (`build`), in the upper half.
        unsafe { LinearMap::new(VirtAddr::new(self.levels.direct_map()), GRANULE) }
    }
}
