//! The kernel's own tables.
//!
//! ```text
//!   lower half                                  upper half
//!     0000_0000_1010_0000   the emulator's configuration
//!     0000_0000_8020_0000   image, where it is    its start           direct map: all memory, by leaves of up to 1 GiB
//!                                                 the model's base    vmemmap: mm-core's, empty here
//! ```
//!
//! Built while there is no translation.

use crate::cpus::stacks_of;
use crate::emulator;
use crate::exit::exit;
use crate::println;
use arch_riscv64::{
    Hart, MODEL_SV39, MODEL_SV48, MODEL_SV57, PteFlags, Registers, Sv39, Sv48, Sv57, satp_mode,
};
use core::arch::asm;
use core::fmt;
use core::ptr::addr_of;
use experiment::{
    AddressSpace, EarlyFrames, MOST_CPUS, MemoryMap, NoTable, RiscVEntries, TableShape, Tables,
    Verdict,
};
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr};
use mm_core::frame::LinearMap;
use mm_core::model::MemoryModel;

/// The pages.
pub const GRANULE: Granule = Granule::Size4K;

/// The largest leaf that is made, as a shift: 1 GiB.
const LARGEST_LEAF: u32 = 30;

const MEMORY: PteFlags = PteFlags::VALID
    .union(PteFlags::READ)
    .union(PteFlags::ACCESSED);

const CODE: PteFlags = MEMORY.union(PteFlags::EXECUTE);
const CONSTANT: PteFlags = MEMORY;
const DATA: PteFlags = MEMORY.union(PteFlags::WRITE).union(PteFlags::DIRTY);

/// How the harts translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 39-bit addresses.
    Sv39,
    /// 48-bit addresses.
    Sv48,
    /// 57-bit addresses.
    Sv57,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Mode {
    /// satp.MODE.
    pub const fn number(self) -> u8 {
        match self {
            Self::Sv39 => satp_mode::<Sv39>(),
            Self::Sv48 => satp_mode::<Sv48>(),
            Self::Sv57 => satp_mode::<Sv57>(),
        }
    }

    /// Where descriptors lie.
    pub const fn model(self) -> MemoryModel {
        match self {
            Self::Sv39 => MODEL_SV39,
            Self::Sv48 => MODEL_SV48,
            Self::Sv57 => MODEL_SV57,
        }
    }

    /// The tables that the harts walk.
    pub const fn shape(self) -> TableShape {
        TableShape {
            granule: GRANULE,
            address_bits: match self {
                Self::Sv39 => 39,
                Self::Sv48 => 48,
                Self::Sv57 => 57,
            },
        }
    }

    /// Where physical address 0 lies in the direct map: the start of the upper half.
    const fn direct_map(self) -> u64 {
        u64::MAX << (self.shape().address_bits - 1)
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
    mode: Mode,
    tables: Tables<RiscVEntries, LinearMap>,
}

impl KernelSpace {
    /// Tables for `mode` that map the kernel's image, the stacks of all harts, the emulator's configuration and all memory of `map`, in frames of `early`.
    ///
    /// # Errors
    ///
    /// [`NoTable`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `early` are RAM that nobody uses, and there is no translation.
    pub unsafe fn build(mode: Mode, map: &MemoryMap, early: &EarlyFrames) -> Result<Self, NoTable> {
        let frames = &mut || early.take_one();
        // SAFETY: 1 and 2: physical memory is where it is (duty 1), and frames lie behind the image.
        let identity = unsafe { LinearMap::new(VirtAddr::new(0), GRANULE) };
        // SAFETY: 1: duty 1.
        let tables = unsafe { Tables::empty(mode.shape(), identity, frames) };
        let start = VirtAddr::new(mode.direct_map());
        let tables = tables.ok_or(NoTable { at: start })?;
        let image = [
            (addr_of!(__text_start), addr_of!(__rodata_start), CODE),
            (addr_of!(__rodata_start), addr_of!(__data_start), CONSTANT),
            (addr_of!(__data_start), addr_of!(__data_end), DATA),
        ];
        let image = image.map(|(start, end, rights)| (start as u64, end as u64, rights));
        let stacks = (0..MOST_CPUS).flat_map(stacks_of);
        let stacks = stacks.map(|(start, end)| (start, end, DATA));
        let configuration = (emulator::BASE, emulator::BASE + GRANULE.bytes(), DATA);
        let all = image.into_iter().chain(stacks).chain([configuration]);
        for (start, end, rights) in all {
            let place = (VirtAddr::new(start), PhysAddr::new(start), end - start);
            // SAFETY: 1: duty 1. 2: where it is, with the rights that it needs.
            unsafe { tables.map(frames, place, LARGEST_LEAF, rights.bits()) }?;
        }
        for range in map.ram.as_slice().iter().chain(map.device.as_slice()) {
            let first = range.start().base(GRANULE);
            let at = VirtAddr::new(mode.direct_map() + first.get());
            let place = (at, first, range.frames() << GRANULE.shift());
            // It ends before the vmemmap.
            let last = at.checked_add(place.2 - 1);
            if last.is_none_or(|last| last >= mode.model().config().vmemmap_base) {
                return Err(NoTable { at });
            }
            // SAFETY: 1: duty 1. 2: memory, in the direct map.
            unsafe { tables.map(frames, place, LARGEST_LEAF, DATA.bits()) }?;
        }
        Ok(Self { mode, tables })
    }
}

impl AddressSpace for KernelSpace {
    fn root(&self) -> Pfn {
        self.tables.root()
    }

    unsafe fn activate(&self) -> LinearMap {
        let satp = u64::from(self.mode.number()) << 60 | self.root().get();
        // SAFETY: there was no translation before. The tables map what is in use where it is (duty 1).
        unsafe {
            asm!(
                "sfence.vma",
                "csrw satp, {}",
                "sfence.vma",
                in(reg) satp,
                options(nostack, preserves_flags)
            )
        };
        // SAFETY: 1: this is supervisor mode.
        if unsafe { Hart::new() }.satp() != satp {
            // A mode that a hart does not have is no write at all (privileged manual, 4.1.11).
            println!("skipped: the hart has no {}", self.mode);
            exit(Verdict::Skipped);
        }
        // SAFETY: 1 and 2: all memory is mapped there, for good (`build`), in the upper half.
        unsafe { LinearMap::new(VirtAddr::new(self.mode.direct_map()), GRANULE) }
    }
}
