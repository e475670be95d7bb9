//! Translation tables of AArch64, stage 1, as the Arm ARM (DDI 0487) describes them ("The AArch64
//! Virtual Memory System Architecture").
//!
//! ```text
//!  bit  63     62..61    60   59    58..50   49..48  47..     11   10   9..8  7    6    5..2  1   0
//!  table      | NS    | APTable | XN | PXN | ignored | zero | frame | ignored                    | 1 | valid
//!  block,page | -               | -        | UXN PXN | zero | frame | nG | AF | SH  | RO | EL0 | - | P | valid
//!                                            54  53
//! ```
//!
//! The region of TTBR1 with 48-bit addresses (T1SZ = 16) and 48-bit output addresses, in the EL1&0
//! regime. P tells a page of level 3 from a block of level 1 or 2, and a table from both. The Arm
//! ARM counts levels from the root's 0 or 1 to 3; here they are counted as for all architectures,
//! from 1 for the last. Bit 16 of a block is nT.
//!
//! The access flag is not managed by hardware: a leaf without it faults. What is zero in the manual
//! has to be zero here.

use super::{Hole, HoleKind, Step, Table, Translation, Walker};
use crate::memory::ReadMemory;
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr, VirtRange};

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const EL0: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const ACCESS_FLAG: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const NOT_CACHED: u64 = 1 << 16;
const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
const PRIVILEGED_EXECUTE_NEVER_TABLE: u64 = 1 << 59;
const NO_WRITE_TABLE: u64 = 1 << 62;
const ABOVE_ADDRESS: u64 = 0x0003_0000_0000_0000;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The lowest address that TTBR1 translates.
const LOWEST: u64 = 0xffff_0000_0000_0000;

/// Every address there is; checked at compile time.
const ALL: VirtRange = match VirtRange::between(VirtAddr::new(0), VirtAddr::new(u64::MAX)) {
    Some(all) => all,
    None => panic!("the first address is not above the last"),
};

/// Reads the tables below TTBR1 on AArch64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AArch64Walker {
    granule: Granule,
}

impl AArch64Walker {
    /// Tables of `granule`.
    pub const fn new(granule: Granule) -> Self {
        Self { granule }
    }

    /// The page size.
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// How many levels the tables have.
    pub const fn levels(&self) -> u8 {
        match self.granule {
            Granule::Size4K | Granule::Size16K => 4,
            Granule::Size64K => 3,
        }
    }

    /// Whether the tables of `level` can have blocks.
    const fn has_blocks(&self, level: u8) -> bool {
        match self.granule {
            Granule::Size4K => level == 2 || level == 3,
            Granule::Size16K | Granule::Size64K => level == 2,
        }
    }

    /// The lowest bit of an address that indexes a table of `level`.
    const fn entry_shift(&self, level: u8) -> u32 {
        let (page, index) = match self.granule {
            Granule::Size4K => (12, 9),
            Granule::Size16K => (14, 11),
            Granule::Size64K => (16, 13),
        };
        page + index * (level as u32 - 1)
    }

    /// The highest bit of an address that indexes a table of `level`.
    const fn highest_bit(&self, level: u8) -> u32 {
        if level == self.levels() {
            47
        } else {
            self.entry_shift(level + 1) - 1
        }
    }
}

impl<M: ReadMemory + ?Sized> Walker<M> for AArch64Walker {
    fn granule(&self) -> Granule {
        self.granule
    }

    fn start(&self, root: Pfn, at: VirtAddr) -> Result<Table, Hole> {
        let range = |first, last| {
            VirtRange::between(VirtAddr::new(first), VirtAddr::new(last)).unwrap_or(ALL)
        };
        if at.get() < LOWEST {
            return Err(Hole {
                span: range(0, LOWEST - 1),
                kind: HoleKind::NotCanonical,
            });
        }
        Ok(Table {
            frame: root,
            level: self.levels(),
            span: range(LOWEST, u64::MAX),
            writable: true,
            executable: true,
        })
    }

    #[inline]
    fn step(&self, memory: &M, table: Table, at: VirtAddr) -> Step {
        let page_shift = self.granule.shift();
        let shift = self.entry_shift(table.level);
        let span = VirtRange::new(at.align_down(shift), 1 << shift).unwrap_or(table.span);
        let index_bits = self.highest_bit(table.level) - shift + 1;
        let index = (at.get() >> shift) & ((1 << index_bits) - 1);
        let entry_at = PhysAddr::new((table.frame.get() << page_shift) + index * 8);
        let hole = |kind| Step::Hole(Hole { span, kind });

        let Some(entry) = memory.read_u64(entry_at) else {
            return hole(HoleKind::NoMemory { entry: entry_at });
        };
        if entry & VALID == 0 {
            return hole(HoleKind::NotPresent);
        }
        let reserved = hole(HoleKind::ReservedBits { entry: entry_at });
        let last = table.level == 1;
        let is_table = match (last, entry & TABLE_OR_PAGE != 0) {
            (false, true) => true,
            (true, true) => false,
            (false, false) if self.has_blocks(table.level) => false,
            (_, false) => return reserved,
        };

        // The frame's lowest bit is that of the page, or of the block; what lies below it down to
        // bit 12 is zero.
        let (frame_shift, ignored) = if is_table || last {
            (page_shift, 0)
        } else {
            (shift, NOT_CACHED)
        };
        let address = entry & ADDRESS & !ignored;
        if entry & ABOVE_ADDRESS != 0 || address & ((1 << frame_shift) - 1) != 0 {
            return reserved;
        }
        let Some(frame) = Pfn::new(address >> page_shift) else {
            return reserved;
        };
        if is_table {
            return Step::Table(Table {
                frame,
                level: table.level - 1,
                span,
                writable: table.writable && entry & NO_WRITE_TABLE == 0,
                executable: table.executable && entry & PRIVILEGED_EXECUTE_NEVER_TABLE == 0,
            });
        }
        if entry & ACCESS_FLAG == 0 {
            return hole(HoleKind::AccessFlag { entry: entry_at });
        }
        // What EL0 can write, EL1 never executes.
        let el0_writes = entry & (EL0 | READ_ONLY) == EL0;
        Step::Leaf(Translation {
            span,
            frame,
            entry: entry_at,
            global: entry & NOT_GLOBAL == 0,
            writable: table.writable && entry & READ_ONLY == 0,
            executable: table.executable && entry & PRIVILEGED_EXECUTE_NEVER == 0 && !el0_writes,
        })
    }
}

#[cfg(test)]
mod tests;
