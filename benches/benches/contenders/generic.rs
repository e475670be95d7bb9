//! The way of `page-table-generic`: a region, its frames by a closure, base pages.

use super::shared_arena::{self, Shared};
use benches::{ENTRIES, Pattern, address};
use core::hint::black_box;
use page_table_generic::{
    FrameAllocator, PageTable, PageTableEntry, PhysAddr, TableMeta, VirtAddr,
};

const PRESENT: u64 = 1;
const HUGE: u64 = 1 << 7;
/// Present, writable, accessed, dirty, global and not executable.
const LEAF: u64 = PRESENT | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 63;
const ADDRESS: u64 = ((1 << 40) - 1) << 12;

/// An entry of x86-64, of which the crate has none.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Entry(u64);

impl PageTableEntry for Entry {
    type PteConfig = u64;

    #[inline]
    fn new_page(paddr: PhysAddr, config: u64, is_huge: bool) -> Self {
        Self(paddr.as_usize() as u64 | config | if is_huge { HUGE } else { 0 })
    }

    #[inline]
    fn new_table(paddr: PhysAddr) -> Self {
        Self(paddr.as_usize() as u64 | PRESENT | 1 << 1 | 1 << 5)
    }

    #[inline]
    fn paddr(&self, _is_dir: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & ADDRESS) as usize)
    }

    #[inline]
    fn config(&self, _is_dir: bool) -> u64 {
        self.0 & !ADDRESS
    }

    #[inline]
    fn present(&self) -> bool {
        self.0 & PRESENT != 0
    }

    #[inline]
    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & HUGE != 0
    }

    #[inline]
    fn unused(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// Tables of four levels.
#[derive(Clone, Copy)]
struct FourLevels;

impl TableMeta for FourLevels {
    type P = Entry;

    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    fn flush(_vaddr: Option<VirtAddr>) {}
}

/// Memory of the shared arena.
#[derive(Clone, Copy)]
struct Frames;

impl FrameAllocator for Frames {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        shared_arena::take().map(PhysAddr::from_usize)
    }

    fn dealloc_frame(&self, frame: PhysAddr) {
        shared_arena::give(frame.as_usize());
    }

    #[inline]
    fn phys_to_virt(&self, paddr: PhysAddr) -> *mut u8 {
        shared_arena::pointer(paddr.as_usize())
    }
}

/// A table, whose memory is freed when it is dropped.
pub(crate) struct Generic<'s> {
    table: PageTable<FourLevels, Frames>,
    _shared: &'s Shared<'s>,
}

impl<'s> Generic<'s> {
    pub(crate) fn new(shared: &'s Shared<'s>) -> Self {
        Self {
            table: PageTable::new(Frames).expect("a frame for the root"),
            _shared: shared,
        }
    }

    #[inline(never)]
    pub(crate) fn map(&mut self, pattern: Pattern) {
        let start = address(0).get() as usize;
        let frame = |at: VirtAddr| {
            let index = (at.as_usize() - start) as u64 / 4096;
            PhysAddr::from_usize(pattern.frame(index).get() as usize * 4096)
        };
        let bytes = ENTRIES as usize * 4096;
        let mapped = self
            .table
            .map_region(VirtAddr::from_usize(start), frame, bytes, LEAF);
        mapped.expect("the arena has enough frames");
    }

    #[inline(never)]
    pub(crate) fn unmap(&mut self) -> u64 {
        for index in 0..ENTRIES {
            let at = VirtAddr::from_usize(address(index).get() as usize);
            black_box(self.table.unmap_page(at).expect("mapped before").0);
        }
        ENTRIES
    }
}
