//! Page tables of 64-bit RISC-V, as the privileged manual describes them (version 20211203: 4.3.2, "Virtual Address Translation
//! Process", and 4.4 to 4.6, "Sv39", "Sv48", "Sv57").
//!
//! ```text
//!  bit  63   62..61   60..54   53..10   9..8      7   6   5   4   3   2   1   0
//!      | N  | PBMT   | zero   | frame  | ignored | D | A | G | U | X | W | R | V |
//! ```
//!
//! A valid entry with R = W = X = 0 links a table, all others are leaves, at any level. Bits that are reserved fault: 54 to 60, W
//! without R, A, D, U, N and PBMT of a link, and any link at the last level. A superpage's frame is a multiple of its size.
//!
//! A and D are not managed by hardware (Svade): a leaf without A faults, and one without D allows no store. Supervisor mode, with sstatus.SUM
//! and MXR = 0: what is for user mode is not for it, and what is only executable is not read. There is Svnapot: with N, a base page is one of 16 whose
//! frames follow each other, and the lower bits of its frame number say so. There is no Svpbmt, so PBMT is reserved.

use super::{Hole, HoleKind, Step, Table, Translation, Walker};
use crate::memory::ReadMemory;
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr, VirtRange};

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const GLOBAL: u64 = 1 << 5;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
const ABOVE_FRAME: u64 = 0x1fc0_0000_0000_0000;
const MEMORY_TYPE: u64 = 0x6000_0000_0000_0000;
const NAPOT: u64 = 1 << 63;
const FRAME: u64 = 0x003f_ffff_ffff_fc00;

/// The only size of a range with N: its 16 pages, and what the lower four bits of the frame number say then.
const NAPOT_PAGES: u64 = 16;
const NAPOT_SAYS: u64 = 8;

/// Every address there is; checked at compile time.
const ALL: VirtRange = match VirtRange::between(VirtAddr::new(0), VirtAddr::new(u64::MAX)) {
    Some(all) => all,
    None => panic!("the first address is not above the last"),
};

/// Reads tables of Sv39, Sv48 and Sv57.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiscV64Walker {
    levels: u8,
}

impl RiscV64Walker {
    /// 39-bit addresses.
    pub const fn sv39() -> Self {
        Self { levels: 3 }
    }

    /// 48-bit addresses.
    pub const fn sv48() -> Self {
        Self { levels: 4 }
    }

    /// 57-bit addresses.
    pub const fn sv57() -> Self {
        Self { levels: 5 }
    }

    /// How many levels the tables have.
    pub const fn levels(&self) -> u8 {
        self.levels
    }
}

/// The base-2 logarithm of the bytes that an entry of a table of `level` translates.
const fn entry_shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

impl<M: ReadMemory + ?Sized> Walker<M> for RiscV64Walker {
    fn granule(&self) -> Granule {
        Granule::Size4K
    }

    fn start(&self, root: Pfn, at: VirtAddr) -> Result<Table, Hole> {
        // Bits above the translated ones repeat the highest of these.
        let half = 1_u64 << (entry_shift(self.levels) + 8);
        let upper = 0_u64.wrapping_sub(half);
        let range = |first, last| {
            VirtRange::between(VirtAddr::new(first), VirtAddr::new(last)).unwrap_or(ALL)
        };
        let span = if at.get() < half {
            range(0, half - 1)
        } else if at.get() >= upper {
            range(upper, u64::MAX)
        } else {
            return Err(Hole {
                span: range(half, upper - 1),
                kind: HoleKind::NotCanonical,
            });
        };
        Ok(Table {
            frame: root,
            level: self.levels,
            span,
            writable: true,
            executable: true,
        })
    }

    #[inline]
    fn step(&self, memory: &M, table: Table, at: VirtAddr) -> Step {
        let shift = entry_shift(table.level);
        let span = VirtRange::new(at.align_down(shift), 1 << shift).unwrap_or(table.span);
        let index = (at.get() >> shift) & 0x1ff;
        let entry_at = PhysAddr::new((table.frame.get() << 12) + index * 8);
        let hole = |kind| Step::Hole(Hole { span, kind });

        let Some(entry) = memory.read_u64(entry_at) else {
            return hole(HoleKind::NoMemory { entry: entry_at });
        };
        if entry & VALID == 0 {
            return hole(HoleKind::NotPresent);
        }
        let reserved = hole(HoleKind::ReservedBits { entry: entry_at });
        if entry & (ABOVE_FRAME | MEMORY_TYPE) != 0 || entry & (READ | WRITE) == WRITE {
            return reserved;
        }
        let number = (entry & FRAME) >> 10;
        let Some(frame) = Pfn::new(number) else {
            return reserved;
        };
        if entry & (READ | WRITE | EXECUTE) == 0 {
            if table.level == 1 || entry & (USER | ACCESSED | DIRTY | NAPOT) != 0 {
                return reserved;
            }
            return Step::Table(Table {
                frame,
                level: table.level - 1,
                span,
                writable: table.writable,
                executable: table.executable,
            });
        }
        let (span, frame) = if entry & NAPOT == 0 {
            if number & ((1 << (shift - 12)) - 1) != 0 {
                return reserved;
            }
            (span, frame)
        } else {
            if table.level != 1 || number % NAPOT_PAGES != NAPOT_SAYS {
                return reserved;
            }
            let Some(first) = Pfn::new(number - NAPOT_SAYS) else {
                return reserved;
            };
            let bytes = NAPOT_PAGES << 12;
            let whole = VirtAddr::new(at.get() & !(bytes - 1));
            (VirtRange::new(whole, bytes).unwrap_or(span), first)
        };
        if entry & ACCESSED == 0 {
            return hole(HoleKind::AccessFlag { entry: entry_at });
        }
        if entry & USER != 0 || entry & READ == 0 {
            return hole(HoleKind::NotAllowed { entry: entry_at });
        }
        Step::Leaf(Translation {
            span,
            frame,
            entry: entry_at,
            global: entry & GLOBAL != 0,
            writable: entry & (WRITE | DIRTY) == WRITE | DIRTY,
            executable: entry & EXECUTE != 0,
        })
    }
}

#[cfg(test)]
mod tests;
