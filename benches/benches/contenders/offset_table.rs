//! The `x86_64` crate's way: a walk from the root for each entry.

use benches::{Arena, ENTRIES, Pattern, address};
use mm_core::addr::{Granule, Pfn};
use mm_core::frame::DirectMap;
use x86_64::structures::paging::mapper::CleanUp;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags,
    PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

/// The same leaf flags as this library's.
const FLAGS: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::NO_EXECUTE)
    .union(PageTableFlags::GLOBAL)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY);

/// The arena for the crate's traits.
struct Frames<'a>(&'a Arena);

// SAFETY: a frame of the arena is on its stack or out.
unsafe impl FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.0.take().map(frame)
    }
}

impl FrameDeallocator<Size4KiB> for Frames<'_> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        let number = frame.start_address().as_u64() / 4096;
        self.0.give(Pfn::new(number).unwrap());
    }
}

/// A 4-level table of the `x86_64` crate.
pub(crate) struct OffsetTable<'a> {
    table: OffsetPageTable<'a>,
    arena: &'a Arena,
    root: Pfn,
}

impl<'a> OffsetTable<'a> {
    /// An empty tree in `arena`.
    pub(crate) fn new(arena: &'a Arena) -> Self {
        let root = arena.take().expect("a frame for the root");
        let entries = arena.frame_pointer(root).cast::<PageTable>();
        // SAFETY: the frame was taken just now and is one page.
        unsafe { entries.write(PageTable::new()) };
        let offset = VirtAddr::new(arena.base() as u64);
        // SAFETY: an empty root, whose frame is this value's alone; the arena's frames lie at the
        // offset.
        let table = unsafe { OffsetPageTable::new(&mut *entries.as_ptr(), offset) };
        Self { table, arena, root }
    }

    /// Writes all entries.
    #[inline(never)]
    pub(crate) fn map(&mut self, pattern: Pattern) {
        let mut frames = Frames(self.arena);
        for index in 0..ENTRIES {
            let target = frame(pattern.frame(index));
            // SAFETY: the frames are numbers and nobody uses the addresses.
            let mapped = unsafe { self.table.map_to(page(index), target, FLAGS, &mut frames) };
            mapped.expect("the arena has enough frames").ignore();
        }
    }

    /// Clears all entries; answers how many.
    #[inline(never)]
    pub(crate) fn unmap(&mut self) -> u64 {
        let mut entries = 0;
        for index in 0..ENTRIES {
            let (frame, flush) = self.table.unmap(page(index)).expect("mapped before");
            flush.ignore();
            core::hint::black_box(frame);
            entries += 1;
        }
        entries
    }

    /// Frees the tables, which `unmap` has left: not a part of what is measured.
    pub(crate) fn free_tables(&mut self) {
        // SAFETY: the tables came from the arena and are used by nobody else.
        unsafe { self.table.clean_up(&mut Frames(self.arena)) };
    }
}

impl Drop for OffsetTable<'_> {
    fn drop(&mut self) {
        self.arena.give(self.root);
    }
}

#[inline]
fn page(index: u64) -> Page {
    Page::containing_address(VirtAddr::new(address(index).get()))
}

#[inline]
fn frame(frame: Pfn) -> PhysFrame {
    PhysFrame::containing_address(PhysAddr::new(frame.base(Granule::Size4K).get()))
}
