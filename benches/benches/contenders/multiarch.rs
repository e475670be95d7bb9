//! The way of `page_table_multiarch`: a region, its frames by a closure, no huge pages.

use super::shared_arena::{self, Shared};
use benches::{ENTRIES, Pattern, address};
use core::hint::black_box;
use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::x86_64::X64PageTable;
use page_table_multiarch::{MappingFlags, PagingHandler};

/// Memory of the shared arena.
struct Handler;

impl PagingHandler for Handler {
    fn alloc_frame() -> Option<PhysAddr> {
        shared_arena::take().map(PhysAddr::from)
    }

    fn alloc_frames(_: usize, _: usize) -> Option<PhysAddr> {
        None
    }

    fn dealloc_frame(paddr: PhysAddr) {
        shared_arena::give(paddr.as_usize());
    }

    fn dealloc_frames(_: PhysAddr, _: usize) {}

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_mut_ptr_of(shared_arena::pointer(paddr.as_usize()))
    }
}

/// A table, whose memory is freed when it is dropped.
pub(crate) struct Multiarch<'s> {
    table: X64PageTable<Handler>,
    _shared: &'s Shared<'s>,
}

impl<'s> Multiarch<'s> {
    pub(crate) fn new(shared: &'s Shared<'s>) -> Self {
        Self {
            table: X64PageTable::try_new().expect("a frame for the root"),
            _shared: shared,
        }
    }

    #[inline(never)]
    pub(crate) fn map(&mut self, pattern: Pattern) {
        let start = address(0).get() as usize;
        let frame = |at: VirtAddr| {
            let index = (at.as_usize() - start) as u64 / 4096;
            PhysAddr::from(pattern.frame(index).get() as usize * 4096)
        };
        let flags = MappingFlags::READ | MappingFlags::WRITE;
        let bytes = ENTRIES as usize * 4096;
        let mut cursor = self.table.cursor();
        let mapped = cursor.map_region(VirtAddr::from(start), frame, bytes, flags, false);
        mapped.expect("the arena has enough frames");
    }

    #[inline(never)]
    pub(crate) fn unmap(&mut self) -> u64 {
        let mut cursor = self.table.cursor();
        for index in 0..ENTRIES {
            let at = VirtAddr::from(address(index).get() as usize);
            black_box(cursor.unmap(at).expect("mapped before").0);
        }
        ENTRIES
    }
}
