//! Gives compound pages that come online their heads.

use super::{Places, PlacesFrom, pages_of, vacant};
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, Part};
use crate::frame::{Altmap, DirectMap, FrameAllocator, FrameReserve};
use crate::pagemap::{DevPagemap, Heads};
use crate::paging::{MapStopped, PageTable, Role, Run, RunSource, TableReserve};
use crate::readers::ReadersOf;
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::error::OnlineError;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::image::Image;
use crate::vmemmap::note::Notes;
use crate::vmemmap::reserve::FromReserve;
use crate::vmemmap::table_records::RecordsInUse;
use crate::vmemmap::{Vmemmap, memory_of};
use core::marker::PhantomData;

/// How many frames are allocated at once.
const FRAMES: u64 = 512;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Gives the compound pages of `pagemap` that begin in `piece` their heads, if it packs them. After an
    /// error nothing has changed.
    #[inline(never)]
    pub(in crate::vmemmap) fn map_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
        notes: &mut Notes,
    ) -> Result<(), OnlineError> {
        if pagemap.heads().0 == Heads::InPlace {
            return Ok(());
        }
        let Some(places) = self.places_in(pagemap, piece) else {
            return Ok(());
        };
        let missing = self.missing_pages(table, places, pagemap.altmap())?;
        if let Some(missing) = missing {
            let from = PlacesFrom::Allocator;
            self.map_places(table, pagemap, missing, Some(places), from, notes)?;
        }
        let writer = DescriptorWriter::of(pagemap, &self.model, &self.direct_map);
        let head = Image::<D>::new(writer.initial::<D>(Part::Head, piece.start()));
        for page in self.shared_pages(places, missing).into_iter().flatten() {
            if let Some(holder) = self.holder_of_places(table, page.start()) {
                let (from, to) = self.indices_in(page, places);
                let page = self.direct_map.frame_pointer(holder).cast();
                // SAFETY: 1: an entry of this library's maps it for places of heads. Those from `from` to `to` have
                // none, since the pages that begin there were offline. 2: `Vmemmap::new` has compared the sizes.
                // 3: they are in that page.
                unsafe { head.write(page, from, to) };
            }
        }
        Ok(())
    }

    /// The places of the compound pages that begin in `piece`: there are none in a piece from within a page, nor in the
    /// base pages beside an altmap.
    #[inline(never)]
    fn places_in(&self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Option<VirtRange> {
        let compound = pagemap.in_compound_pages(piece)?;
        self.model
            .packed_heads(compound, pagemap.geometry().order())
    }

    /// The pages of `places` that are to be mapped. At the ends there may be some that others have mapped; what
    /// lies between has no places of others.
    #[inline(never)]
    fn missing_pages<P: PageTable>(
        &self,
        table: &P,
        places: VirtRange,
        altmap: Option<&dyn Altmap>,
    ) -> Result<Option<VirtRange>, OnlineError> {
        let Some(pages) = pages_of(&self.model, places) else {
            return Ok(None);
        };
        let bytes = self.model.granule().bytes();
        let ends = [pages.start(), pages.last()];
        let [mut first, mut last] = ends.map(Some);
        let holders = ends.map(|at| self.holder_of_places(table, at));
        let mut held = holders.iter().flatten();
        if let Some(reserved) = held.find_map(|holder| self.other_altmap_with(*holder, altmap)) {
            return Err(OnlineError::HeadsInAltmap { reserved });
        }
        if holders[0].is_some() {
            first = pages.start().checked_add(bytes);
        }
        if holders[1].is_some() {
            last = pages.last().get().checked_sub(bytes).map(VirtAddr::new);
        }
        let missing = match (first, last) {
            (Some(first), Some(last)) => VirtRange::between(first, last),
            _ => None,
        };
        match missing.and_then(|missing| table.first_in_use(missing)) {
            Some(at) => Err(OnlineError::AlreadyMapped { at }),
            None => Ok(missing),
        }
    }

    /// The pages at the ends of `places` that others have mapped: those that are not `missing`.
    fn shared_pages(
        &self,
        places: VirtRange,
        missing: Option<VirtRange>,
    ) -> [Option<VirtRange>; 2] {
        let page = |at| pages_of(&self.model, VirtRange::single(at));
        let [first, last] = [places.start(), places.last()].map(page);
        let is_shared = |page: &VirtRange| missing.is_none_or(|all| !all.contains(page.start()));
        [
            first.filter(is_shared),
            last.filter(|page| first != Some(*page) && is_shared(page)),
        ]
    }

    /// Maps `pages` to frames with heads at `places`, and none at others. After an error nothing has changed.
    #[inline(never)]
    pub(super) fn map_places<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        pages: VirtRange,
        places: Option<VirtRange>,
        from: PlacesFrom,
        notes: &mut Notes,
    ) -> Result<(), OnlineError> {
        self.places = Places::MayBeMapped;
        let reserve;
        let frames: &dyn FrameReserve;
        let mut memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let mut tables: Option<&dyn TableReserve> = None;
        let mut altmap = pagemap.altmap();
        if from == PlacesFrom::Reserve {
            altmap = None;
            // SAFETY: 1: all that is in it is this vmemmap's, of this page table (duties 2 and 3 of `new`).
            reserve =
                unsafe { FromReserve::new(&self.frames, &self.direct_map, &mut self.reserve) };
            frames = &reserve;
            // SAFETY: 1: as above.
            memory = unsafe { memory.with_reserve(&frames) };
            tables = Some(&reserve);
        }
        let records = RecordsInUse::new(memory, &mut self.table_records).with_reserve(tables);
        // Made where it stays: each of its parts would be on the stack twice.
        let mut source = PlaceSource::<D, A, M> {
            pool: FramePool::new(memory, altmap, &mut self.pool_state).up_to(table.last_frame()),
            writer: DescriptorWriter::of(pagemap, &self.model, &self.direct_map),
            pagemap,
            places,
            notes,
            descriptor: PhantomData,
        };
        // SAFETY: 1: the source's frames are allocated for this, each with a reference. 2: the addresses are this
        // value's alone (duty 1 of `new`), and so are the records.
        let mapped = unsafe { table.map_runs(pages, pagemap.node(), &mut source, &records) };
        let Err(stopped) = mapped else {
            return Ok(());
        };
        let end = stopped.at().get().checked_sub(1).map(VirtAddr::new);
        if let Some(done) = end.and_then(|end| VirtRange::between(pages.start(), end)) {
            self.unmap_places(table, done, pagemap.altmap(), from);
        }
        Err(match stopped {
            MapStopped::Table { error, .. } => error.into(),
            MapStopped::Source { error, .. } => error,
        })
    }
}

/// Frames for pages of places.
struct PlaceSource<'v, D, A, M> {
    pool: FramePool<'v, A, M>,
    writer: DescriptorWriter<'v, M>,
    pagemap: &'v DevPagemap<'v>,
    /// The places that have heads.
    places: Option<VirtRange>,
    notes: &'v mut Notes,
    descriptor: PhantomData<fn() -> D>,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> PlaceSource<'_, D, A, M> {
    const fn page_bytes(&self) -> u64 {
        self.writer.model.granule().bytes()
    }

    /// How many of the `pages` from `at` on come from where the pool has its frames: of an altmap those that have no
    /// heads of others.
    #[inline(never)]
    fn like_the_first(&self, at: VirtAddr, pages: u64) -> u64 {
        if self.pool.altmap.is_none() {
            return pages;
        }
        let model = self.writer.model;
        let places = self.places.unwrap_or(VirtRange::single(at));
        let page = model.page_of_packed_head(places.start());
        let inside = page.and_then(|page| self.pagemap.heads_from_altmap(page));
        inside
            .filter(|inside| inside.contains(at))
            .map_or(0, |inside| {
                let left = (inside.last().get() - at.get()) / self.page_bytes() + 1;
                left.min(pages)
            })
    }

    /// Writes into `frames` the places of the pages from `at` on.
    // Not inlined: what it takes of the stack is not there while frames are taken.
    #[inline(never)]
    fn write(&self, frames: PfnRange, at: VirtAddr) {
        let bytes = self.page_bytes();
        let in_page = self.writer.model.descriptors_per_page();
        let head = Image::<D>::new(self.writer.initial::<D>(Part::Head, Pfn::ZERO));
        let vacant = vacant::<D>();
        let size = self.writer.model.descriptor_bytes();
        let mut start = at.get();
        for frame in frames {
            let page = self.writer.direct_map.frame_pointer(frame).cast();
            let (from, to) = self.places.map_or((0, 0), |places| {
                let from = places.start().get().saturating_sub(start) / size;
                let end = places.last().get() - start + 1;
                (from.min(in_page), (end / size).min(in_page))
            });
            // SAFETY: 1: the frames were allocated just now and are not mapped. 2: `Vmemmap::new` has compared
            // the sizes. 3: so many are in a page.
            unsafe {
                vacant.write(page, 0, from);
                head.write(page, from, to);
                vacant.write(page, to, in_page);
            }
            start = start.saturating_add(bytes);
        }
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> RunSource for PlaceSource<'_, D, A, M> {
    type Error = OnlineError;

    #[inline(never)]
    fn next_run(&mut self, at: VirtAddr, pages: u64, _largest: Order) -> Result<Run, OnlineError> {
        let node = self.writer.node;
        let frames = match self.like_the_first(at, pages.min(FRAMES)) {
            // At the two ends.
            0 => PfnRange::single(self.pool.allocate_ram(node)?),
            pages => self.pool.allocate_run(pages, node)?,
        };
        let actual = self.pool.node_of(frames.start());
        self.notes.frames_from(node, actual, frames.frames());
        self.write(frames, at);
        Ok(Run::each(frames, Role::Descriptors))
    }

    fn return_unused(&mut self, run: Run) {
        // SAFETY: 1: it came from `next_run`. 2: it was not mapped.
        unsafe { self.pool.release_run(run) };
    }
}
