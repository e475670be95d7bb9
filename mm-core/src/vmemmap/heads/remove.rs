//! Takes the heads of compound pages that go offline, and pages of places that have none any more.

use super::{PlacesFrom, pages_of, vacant};
use crate::addr::{PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{Altmap, DirectMap, FrameAllocator, FrameReserve};
use crate::paging::{PageTable, TableReserve};
use crate::readers::ReadersOf;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::reserve::FromReserve;
use crate::vmemmap::table_records::RecordsInUse;
use crate::vmemmap::{Vmemmap, memory_of};
use core::iter;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Takes the heads of all compound pages that begin in one of `pieces`, of whatever order, if they are
    /// packed. The descriptors of `pieces` are unmapped.
    // What a page is stands in the array, not in a pagemap: each order has places of its own for the pages
    // that begin in a range.
    pub(in crate::vmemmap) fn remove_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        pieces: impl Iterator<Item = PfnRange>,
    ) {
        if self.look_for_heads(&*table).is_none() {
            return;
        }
        for piece in pieces {
            self.remove_heads_of(table, altmap, piece);
        }
    }

    #[inline(never)]
    fn remove_heads_of<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        piece: PfnRange,
    ) {
        for order in self.model.packed_orders() {
            if let Some(places) = self.model.packed_heads(piece, order) {
                self.vacate(table, altmap, places);
            }
        }
    }

    /// Takes the heads at `places`.
    fn vacate<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        places: VirtRange,
    ) {
        let Some(pages) = pages_of(&self.model, places) else {
            return;
        };
        if table.first_in_use(pages).is_none() {
            return;
        }
        let bytes = self.model.granule().bytes();
        let [mut first, mut last] = [Some(pages.start()), Some(pages.last())];
        if !self.vacate_in(&*table, pages.start(), places) {
            first = pages.start().checked_add(bytes);
        }
        if pages.pages(self.model.granule()) > 1 && !self.vacate_in(&*table, pages.last(), places) {
            last = pages.last().get().checked_sub(bytes).map(VirtAddr::new);
        }
        let gone = match (first, last) {
            (Some(first), Some(last)) => VirtRange::between(first, last),
            _ => None,
        };
        if let Some(gone) = gone {
            self.unmap_places(table, gone, altmap, PlacesFrom::Allocator);
        }
    }

    /// Takes the heads at those `places` that are in the page of `at`. Says whether that has no other.
    fn vacate_in<P: PageTable>(&self, table: &P, at: VirtAddr, places: VirtRange) -> bool {
        let Some(page) = pages_of(&self.model, VirtRange::single(at)) else {
            return false;
        };
        if places.contains(page.start()) && places.contains(page.last()) {
            return true;
        }
        let Some(holder) = self.holder_of_places(table, at) else {
            return true;
        };
        let (from, to) = self.indices_in(page, places);
        let page = self.direct_map.frame_pointer(holder).cast();
        // SAFETY: 1: an entry of this library's maps it for places of heads. The pages of those from `from` to
        // `to` are offline. 2: `Vmemmap::new` has compared the sizes. 3: they are in that page.
        unsafe { vacant::<D>().write(page, from, to) };
        let mut all = 0..self.model.descriptors_per_page();
        all.all(|index| self.nth_in(holder, index).word() == D::Encoding::vacant_word())
    }

    /// Unmaps `pages` of places that have no head any more, or have not been seen by anybody.
    /// Their frames and tables go to where others came `from`; those of `altmap` go there.
    #[inline(never)]
    pub(super) fn unmap_places<P: PageTable>(
        &mut self,
        table: &mut P,
        pages: VirtRange,
        altmap: Option<&dyn Altmap>,
        from: PlacesFrom,
    ) {
        let reserve;
        let frames: &dyn FrameReserve;
        let mut memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let mut tables: Option<&dyn TableReserve> = None;
        if from == PlacesFrom::Reserve {
            // SAFETY: 1: all that is in it is this vmemmap's, of this page table (duties 2 and 3 of `new`).
            reserve =
                unsafe { FromReserve::new(&self.frames, &self.direct_map, &mut self.reserve) };
            frames = &reserve;
            // SAFETY: 1: as above.
            memory = unsafe { memory.with_reserve(&frames) };
            tables = Some(&reserve);
        }
        let records = RecordsInUse::new(memory, &mut self.table_records).with_reserve(tables);
        let mut pool = FramePool::new(memory, altmap, &mut self.pool_state);
        // SAFETY: 1: no stub leads there, and nobody has a head that was there: its memory is offline. 2: they are
        // whole pages, this value's alone (duty 1 of `new`), and the records are its own.
        unsafe {
            table.unmap(
                iter::once(pages),
                &mut |run| {
                    // SAFETY: 1: the frames of pages of places came from this pool. 2: the page table reports them
                    // after the flush (duty 4 of `PageTable`).
                    pool.release_run(run)
                },
                &records,
            );
        }
    }
}
