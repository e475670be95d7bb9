//! Page tables of x86-64, as the Intel SDM describes them (volume 3A, chapter 4, "Paging").
//!
//! ```text
//!  bit  63   62..52   51..12            8        7              2..1       0
//!      | XD | -      | frame           | G      | PS: leaf     | U/S R/W  | P |
//!                                        leaves   levels 2, 3
//! ```
//!
//! In a leaf above level 1, bit 12 is the PAT bit and the bits from there to the frame have to be
//! zero. At level 1 bit 7 is the PAT bit. Rights are those that the entries of all levels give.
//! Physical addresses have 52 bits, XD and global pages are enabled.

use super::{Hole, HoleKind, Step, Table, Translation, Walker};
use crate::memory::ReadMemory;
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr, VirtRange};

const PRESENT: u64 = 1;
const READ_WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const LARGE_PAT: u64 = 1 << 12;
const EXECUTE_DISABLE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Every address there is; checked at compile time.
const ALL: VirtRange = match VirtRange::between(VirtAddr::new(0), VirtAddr::new(u64::MAX)) {
    Some(all) => all,
    None => panic!("the first address is not above the last"),
};

/// Reads 4-level and 5-level tables of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X86_64Walker {
    levels: u8,
}

impl X86_64Walker {
    /// 4-level paging: 48 bits of address.
    pub const fn four_level() -> Self {
        Self { levels: 4 }
    }

    /// 5-level paging (LA57): 57 bits of address.
    pub const fn five_level() -> Self {
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

impl<M: ReadMemory + ?Sized> Walker<M> for X86_64Walker {
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
        if entry & PRESENT == 0 {
            return hole(HoleKind::NotPresent);
        }
        let writable = table.writable && entry & READ_WRITE != 0;
        let executable = table.executable && entry & EXECUTE_DISABLE == 0;
        let reserved = hole(HoleKind::ReservedBits { entry: entry_at });

        let leaf = match (table.level, entry & PAGE_SIZE != 0) {
            (1, _) | (2 | 3, true) => true,
            (_, false) => false,
            (_, true) => return reserved,
        };
        let mut address = entry & ADDRESS;
        if leaf && table.level > 1 {
            address &= !LARGE_PAT;
            if address & ((1 << shift) - 1) != 0 {
                return reserved;
            }
        }
        let Some(frame) = Pfn::new(address >> 12) else {
            return reserved;
        };
        if leaf {
            Step::Leaf(Translation {
                span,
                frame,
                entry: entry_at,
                global: entry & GLOBAL != 0,
                writable,
                executable,
            })
        } else {
            Step::Table(Table {
                frame,
                level: table.level - 1,
                span,
                writable,
                executable,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scanned;
    use super::*;
    use crate::memory::SimMemory;
    use mm_core::addr::PfnRange;

    const FOUR: X86_64Walker = X86_64Walker::four_level();
    const FIVE: X86_64Walker = X86_64Walker::five_level();
    /// Supervisor, writable, present, accessed: what boot code writes into upper entries.
    const LINK: u64 = 0x23;

    /// Memory of 64 frames, in which the given words stand.
    fn memory(words: &[(u64, u64)]) -> SimMemory {
        let frames = PfnRange::new(Pfn::ZERO, 64).unwrap();
        let memory = SimMemory::new(Granule::Size4K, &[frames]).unwrap();
        for (at, word) in words {
            memory.write_u64(PhysAddr::new(*at), *word).unwrap();
        }
        memory
    }

    fn pfn(number: u64) -> Pfn {
        Pfn::new(number).unwrap()
    }

    fn translate(walker: X86_64Walker, memory: &SimMemory, at: u64) -> Result<Translation, Hole> {
        walker.translate(memory, pfn(1), VirtAddr::new(at))
    }

    fn address(walker: X86_64Walker, memory: &SimMemory, at: u64) -> Option<u64> {
        let leaf = translate(walker, memory, at).ok()?;
        Some(leaf.address(VirtAddr::new(at), Granule::Size4K).get())
    }

    #[test]
    fn a_page_is_found_through_four_tables() {
        // 0xffff_ea00_1234_5678: indices 468, 0, 145, 325.
        let memory = memory(&[
            (0x1000 + 468 * 8, 0x2000 | LINK),
            (0x2000, 0x3000 | LINK),
            (0x3000 + 145 * 8, 0x4000 | LINK),
            (0x4000 + 325 * 8, 0x8000_0123_4567_8163),
        ]);
        let walk = FOUR.walk(&memory, pfn(1), VirtAddr::new(0xffff_ea00_1234_5678));
        let tables: Vec<_> = walk
            .tables
            .iter()
            .map(|t| (t.level, t.frame.get()))
            .collect();
        assert_eq!(tables, [(4, 1), (3, 2), (2, 3), (1, 4)]);
        let spans: Vec<_> = walk
            .tables
            .iter()
            .skip(1)
            .map(|t| t.span.start().get())
            .collect();
        assert_eq!(
            spans,
            [
                0xffff_ea00_0000_0000,
                0xffff_ea00_0000_0000,
                0xffff_ea00_1220_0000
            ]
        );
        let leaf = walk.end.unwrap();
        assert_eq!(leaf.frame.get(), 0x1234_5678);
        assert_eq!(leaf.entry.get(), 0x4000 + 325 * 8);
        assert!(leaf.global && leaf.writable && !leaf.executable);
        assert_eq!(
            address(FOUR, &memory, 0xffff_ea00_1234_5678),
            Some(0x123_4567_8678)
        );
    }

    #[test]
    fn huge_leaves_end_the_walk_early() {
        let memory = memory(&[
            (0x1000, 0x2000 | LINK),
            // 1 GiB at 0x4000_0000, with the PAT bit.
            (0x2000 + 8, 0x0000_0008_c000_1083),
            (0x2000 + 16, 0x3000 | LINK),
            // 2 MiB at 0x8060_0000, read-only and not executable.
            (0x3000 + 3 * 8, 0x8000_0000_0ea0_0081),
        ]);
        let gib = translate(FOUR, &memory, 0x7fff_ffff).unwrap();
        assert_eq!(gib.order(Granule::Size4K).get(), 18);
        assert_eq!(gib.frames(Granule::Size4K).frames(), 1 << 18);
        assert_eq!(address(FOUR, &memory, 0x7fff_ffff), Some(0x8_ffff_ffff));
        let mib = translate(FOUR, &memory, 0x8060_0000).unwrap();
        assert_eq!(mib.order(Granule::Size4K).get(), 9);
        assert!(!mib.writable && !mib.executable && !mib.global);
        assert_eq!(address(FOUR, &memory, 0x807f_fff0), Some(0xebf_fff0));
        assert!(translate(FOUR, &memory, 0x8080_0000).is_err());
    }

    #[test]
    fn bit_seven_of_a_base_page_is_not_a_size() {
        let memory = memory(&[
            (0x1000, 0x2000 | LINK),
            (0x2000, 0x3000 | LINK),
            (0x3000, 0x4000 | LINK),
            (0x4000, 0x5000 | 0x81),
        ]);
        assert_eq!(address(FOUR, &memory, 0xfff), Some(0x5fff));
    }

    #[test]
    fn an_entry_that_is_not_present_ends_the_walk_whatever_else_it_says() {
        let memory = memory(&[(0x1000, 0x2000 | LINK), (0x2000, !1)]);
        let hole = translate(FOUR, &memory, 0x1234).unwrap_err();
        assert_eq!(hole.kind, HoleKind::NotPresent);
        assert_eq!(
            (hole.span.start().get(), hole.span.last().get()),
            (0, 0x3fff_ffff)
        );
    }

    #[test]
    fn rights_are_those_of_all_levels() {
        for level in 0..4 {
            let mut words = [
                (0x1000, 0x2000 | LINK),
                (0x2000, 0x3000 | LINK),
                (0x3000, 0x4000 | LINK),
                (0x4000, 0x5000 | LINK),
            ];
            words[level].1 &= !READ_WRITE;
            let leaf = translate(FOUR, &memory(&words), 0).unwrap();
            assert!(!leaf.writable && leaf.executable);
            words[level].1 |= READ_WRITE | EXECUTE_DISABLE;
            let leaf = translate(FOUR, &memory(&words), 0).unwrap();
            assert!(leaf.writable && !leaf.executable);
        }
    }

    #[test]
    fn reserved_bits_are_a_hole_of_their_own() {
        let entry = |at| HoleKind::ReservedBits {
            entry: PhysAddr::new(at),
        };
        let bad_size = memory(&[(0x1000, 0x2000 | LINK | PAGE_SIZE)]);
        assert_eq!(
            translate(FOUR, &bad_size, 0).unwrap_err().kind,
            entry(0x1000)
        );
        let bad_frame = memory(&[
            (0x1000, 0x2000 | LINK),
            (0x2000, 0x20_0000 | LINK | PAGE_SIZE),
        ]);
        assert_eq!(
            translate(FOUR, &bad_frame, 0).unwrap_err().kind,
            entry(0x2000)
        );
    }

    #[test]
    fn a_table_where_there_is_no_memory_is_a_hole_of_its_own() {
        let memory = memory(&[(0x1000, 0x7fff_f000 | LINK)]);
        let hole = translate(FOUR, &memory, 8 << 30).unwrap_err();
        let entry = PhysAddr::new(0x7fff_f040);
        assert_eq!(hole.kind, HoleKind::NoMemory { entry });
        assert!(memory.violations().is_empty());
    }

    #[test]
    fn five_levels_translate_57_bits() {
        // 0xffd4_0000_0000_0000: index 340 of the root, then 0.
        let memory = memory(&[
            (0x1000 + 340 * 8, 0x2000 | LINK),
            (0x2000, 0x3000 | LINK),
            (0x3000, 0x4000 | LINK),
            (0x4000, 0x5000 | LINK),
            (0x5000 + 8, 0x6000 | 0x3),
            (0x1000 + 468 * 8, 0x2000 | LINK),
        ]);
        let at = 0xffd4_0000_0000_1010;
        assert_eq!(address(FIVE, &memory, at), Some(0x6010));
        assert_eq!(
            FIVE.walk(&memory, pfn(1), VirtAddr::new(at)).tables.len(),
            5
        );
        assert_eq!(
            translate(FOUR, &memory, at).unwrap_err().kind,
            HoleKind::NotCanonical
        );
    }

    #[test]
    fn addresses_between_the_halves_are_not_translated() {
        for (walker, bits) in [(FOUR, 47), (FIVE, 56)] {
            let memory = memory(&[]);
            let first = 1_u64 << bits;
            let last = 0_u64.wrapping_sub(first) - 1;
            let kind = |at| translate(walker, &memory, at).unwrap_err().kind;
            assert_eq!(kind(first - 1), HoleKind::NotPresent);
            assert_eq!(kind(first), HoleKind::NotCanonical);
            assert_eq!(kind(last), HoleKind::NotCanonical);
            assert_eq!(kind(last + 1), HoleKind::NotPresent);
            let hole = translate(walker, &memory, first).unwrap_err();
            assert_eq!(
                (hole.span.start().get(), hole.span.last().get()),
                (first, last)
            );
        }
    }

    #[test]
    fn the_last_page_of_the_address_space_is_translated() {
        let memory = memory(&[
            (0x1ff8, 0x2000 | LINK),
            (0x2ff8, 0x3000 | LINK),
            (0x3ff8, 0x4000 | LINK),
            (0x4ff8, 0x5000 | LINK),
        ]);
        assert_eq!(address(FOUR, &memory, u64::MAX), Some(0x5fff));
        let mut leaves = Vec::new();
        FOUR.scan(&memory, pfn(1), ALL, &mut |scanned| {
            if let Scanned::Leaf(leaf) = scanned {
                leaves.push(leaf.span.start().get());
            }
        });
        assert_eq!(leaves, [0xffff_ffff_ffff_f000]);
    }

    #[test]
    fn a_scan_shows_tables_before_leaves_and_passes_over_holes() {
        let memory = memory(&[
            (0x1000, 0x2000 | LINK),
            (0x1000 + 256 * 8, 0x2000 | LINK),
            (0x2000, 0x3000 | LINK),
            (0x2000 + 511 * 8, 0x4000_0000 | LINK | PAGE_SIZE),
            (0x3000 + 8, 0x4000 | LINK),
            (0x4000, 0x5000 | LINK),
            (0x4ff8, 0x6000 | LINK),
        ]);
        let mut seen = Vec::new();
        FOUR.scan(&memory, pfn(1), ALL, &mut |scanned| {
            seen.push(match scanned {
                Scanned::Hole(_) => return,
                Scanned::Table(table) => ("table", table.span.start().get(), table.frame.get()),
                Scanned::Leaf(leaf) => ("leaf", leaf.span.start().get(), leaf.frame.get()),
            });
        });
        let half = [
            ("table", 0, 2),
            ("table", 0, 3),
            ("table", 0x20_0000, 4),
            ("leaf", 0x20_0000, 5),
            ("leaf", 0x3f_f000, 6),
            ("leaf", 511 << 30, 0x4_0000),
        ];
        let upper = half.map(|(what, at, frame)| (what, at | 0xffff_8000_0000_0000, frame));
        assert_eq!(seen, [half, upper].concat());
    }
}
