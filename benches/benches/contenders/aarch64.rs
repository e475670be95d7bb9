//! The way of `aarch64-paging`: ranges of frames that follow each other by `map_range`, groups by
//! `modify_range`; no block mappings.

use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};
use benches::{Arena, ENTRIES, Pattern, address};
use core::hint::black_box;
use core::ptr::NonNull;
use mm_core::addr::Pfn;
use mm_core::frame::DirectMap;

const FLAGS: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::INNER_SHAREABLE)
    .union(El1Attributes::ATTRIBUTE_INDEX_1)
    .union(El1Attributes::UXN)
    .union(El1Attributes::PXN);

/// Memory of the arena.
struct Frames<'a>(&'a Arena);

impl Translation<El1Attributes> for Frames<'_> {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let frame = self.0.take().expect("the arena has enough frames");
        let table = self.0.frame_pointer(frame);
        // SAFETY: taken just now, a page.
        unsafe { table.write_bytes(0, 4096) };
        (table.cast(), PhysicalAddress(frame.get() as usize * 4096))
    }

    unsafe fn deallocate_table(&mut self, page_table: NonNull<PageTable<El1Attributes>>) {
        let offset = page_table.as_ptr() as usize - self.0.base() as usize;
        self.0
            .give(Pfn::new(offset as u64 / 4096).expect("a frame of the arena"));
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        let frame = Pfn::new(pa.0 as u64 / 4096).expect("a frame of the arena");
        self.0.frame_pointer(frame).cast()
    }
}

/// A table, whose memory is freed when it is dropped.
pub(crate) struct Aarch64<'a>(Mapping<Frames<'a>, El1And0>);

fn region(first: u64, entries: u64) -> MemoryRegion {
    let start = address(first).get() as usize;
    MemoryRegion::new(start, start + entries as usize * 4096)
}

fn physical(pattern: Pattern, index: u64) -> PhysicalAddress {
    PhysicalAddress(pattern.frame(index).get() as usize * 4096)
}

impl<'a> Aarch64<'a> {
    pub(crate) fn new(arena: &'a Arena) -> Self {
        let mapping = Mapping::with_asid_and_va_range(Frames(arena), 0, 0, El1And0, VaRange::Upper);
        Self(mapping)
    }

    #[inline(never)]
    pub(crate) fn map(&mut self, pattern: Pattern) {
        let without_blocks = Constraints::NO_BLOCK_MAPPINGS;
        let all = region(0, ENTRIES);
        if pattern == Pattern::Distinct {
            let mapped = self
                .0
                .map_range(&all, physical(pattern, 0), FLAGS, without_blocks);
            return mapped.expect("the range is the upper half's");
        }
        // `modify_range` makes no tables where whole tables are missing.
        for first in (0..ENTRIES).step_by(512) {
            let mapped = self.0.map_range(
                &region(first, 1),
                physical(pattern, first),
                FLAGS,
                without_blocks,
            );
            mapped.expect("the range is the upper half's");
        }
        let start = address(0).get() as usize;
        let modified = self.0.modify_range(&all, &|range: &MemoryRegion, entry| {
            let index = (range.start().0 - start) as u64 / 4096;
            entry.set(
                physical(pattern, index),
                FLAGS | El1Attributes::TABLE_OR_PAGE,
            )
        });
        modified.expect("no table is missing");
    }

    /// Reads all entries, then drops the tables: what was mapped has to be known.
    #[inline(never)]
    pub(crate) fn unmap(&mut self) -> u64 {
        let all = region(0, ENTRIES);
        let (mut entries, mut frames) = (0, 0);
        let walked = self.0.walk_range(&all, &mut |_, entry, level| {
            if level == 3 && entry.is_valid() {
                entries += 1;
                frames ^= entry.output_address().0;
            }
            Ok(())
        });
        walked.expect("the range is the upper half's");
        black_box(frames);
        let unmapped = self.0.map_range(
            &all,
            PhysicalAddress(0),
            El1Attributes::empty(),
            Constraints::empty(),
        );
        unmapped.expect("the range is the upper half's");
        entries
    }
}
