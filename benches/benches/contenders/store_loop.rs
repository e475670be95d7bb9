//! By hand: no walks, no checks, no errors, for these addresses alone.

use benches::{Arena, ENTRIES, LEAF_TABLES, Pattern, address};
use core::hint::black_box;
use mm_core::addr::Pfn;
use mm_core::frame::DirectMap;

/// Present, writable, accessed, dirty, global and not executable.
const LEAF: u64 = 1 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 63;
/// Present, writable, accessed.
const TABLE: u64 = 1 | 1 << 1 | 1 << 5;

/// Bits 12 to 51.
const ADDRESS: u64 = ((1 << 40) - 1) << 12;

/// The levels above the leaf tables, and as many leaf tables as were linked.
pub(crate) struct Tables<'a> {
    arena: &'a Arena,
    upper: [Pfn; 3],
}

impl<'a> Tables<'a> {
    /// Of three tables; one of the lowest of them links all leaf tables.
    pub(crate) fn new(arena: &'a Arena) -> Self {
        let upper = [0; 3].map(|_| {
            let frame = arena.take().expect("a frame");
            // SAFETY: taken just now, a page.
            unsafe { arena.frame_pointer(frame).write_bytes(0, 4096) };
            frame
        });
        let tables = Self { arena, upper };
        for level in 0..2 {
            let index = (address(0).get() >> (39 - 9 * level)) & 511;
            let below = upper[level as usize + 1];
            // SAFETY: an entry of a table of this value.
            unsafe {
                tables
                    .entries(upper[level as usize])
                    .add(index as usize)
                    .write(below.get() << 12 | TABLE)
            };
        }
        tables
    }

    fn entries(&self, table: Pfn) -> *mut u64 {
        self.arena.frame_pointer(table).as_ptr().cast()
    }

    #[inline(never)]
    pub(crate) fn map(&mut self, pattern: Pattern) {
        let links = self.entries(self.upper[2]);
        for table in 0..LEAF_TABLES {
            let frame = self.arena.take().expect("a frame");
            let entries = self.entries(frame);
            let first = table as u64 * 512;
            match pattern {
                Pattern::Distinct => {
                    let start = pattern.frame(first).get() << 12 | LEAF;
                    for index in 0..512 {
                        // SAFETY: an entry of a table that was taken just now.
                        unsafe { entries.add(index).write(start + ((index as u64) << 12)) };
                    }
                }
                Pattern::Compound { shift } => {
                    let pages = 1 << shift.min(9);
                    for group in (0..512).step_by(pages) {
                        let head = pattern.frame(first + group as u64).get() << 12 | LEAF;
                        let tail = pattern.frame(first + group as u64 + 1).get() << 12 | LEAF;
                        // SAFETY: as above.
                        unsafe {
                            entries.add(group).write(head);
                            for index in group + 1..group + pages {
                                entries.add(index).write(tail);
                            }
                        }
                    }
                }
            }
            // SAFETY: an entry of the table above.
            unsafe { links.add(table).write(frame.get() << 12 | TABLE) };
        }
        black_box(links);
    }

    #[inline(never)]
    pub(crate) fn unmap(&mut self) -> u64 {
        let links = self.entries(self.upper[2]);
        let mut frames = 0;
        for table in 0..LEAF_TABLES {
            // SAFETY: an entry of the table above.
            let link = unsafe { links.add(table).replace(0) };
            let frame = Pfn::new((link & ADDRESS) >> 12).expect("a frame");
            let entries = self.entries(frame);
            for index in 0..512 {
                // SAFETY: an entry of a table that was linked.
                frames ^= unsafe { entries.add(index).replace(0) } & ADDRESS;
            }
            self.arena.give(frame);
        }
        black_box(frames);
        ENTRIES
    }
}

impl Drop for Tables<'_> {
    fn drop(&mut self) {
        for frame in self.upper {
            self.arena.give(frame);
        }
    }
}
