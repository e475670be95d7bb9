//! A vmemmap with readers who look while something is done with it.

use super::kernel::HarnessKernel;
use super::table::WatchedTable;
use super::{PARTS, Part, Watch};
use crate::outcome::{Cause, Stop, Verdict, ensure, equal, fail, skip};
use core::cell::Cell;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::PageTable;
use mm_core::readers::{OnlineEntry, PageReference, Readers};
use mm_core::vmemmap::Vmemmap;

/// How many pages there are.
pub(crate) const PAGES: u64 = 4;

/// A vmemmap that readers ask about.
pub(crate) type Array<'w> =
    Vmemmap<Page<Mask>, &'w dyn FrameAllocator, &'w dyn DirectMap, Readers<'w, HarnessKernel<'w>>>;

/// What a harness has for readers.
pub(crate) struct Parts<'w, T> {
    pub(crate) model: MemoryModel,
    pub(crate) table: &'w mut T,
    pub(crate) frames: &'w dyn FrameAllocator,
    pub(crate) direct_map: &'w dyn DirectMap,
    pub(crate) node: NodeId,
    pub(crate) root: &'w [OnlineEntry],
    /// In which frame a CPU finds an address.
    pub(crate) read: &'w dyn Fn(mm_core::addr::VirtAddr) -> Option<Pfn>,
    pub(crate) cause: &'w Cell<Option<Cause>>,
    /// Memory for `PAGES` pages.
    pub(crate) range: PfnRange,
    /// The order of these pages, and that of those that they become.
    pub(crate) orders: [Order; 2],
}

/// What checks beside readers work with.
pub(crate) struct Session<'s, 'w> {
    pub(crate) vmemmap: &'s mut Array<'w>,
    pub(crate) table: WatchedTable<'w>,
    pub(crate) range: PfnRange,
    pub(crate) large: Order,
    pub(crate) small: Order,
    model: MemoryModel,
    node: NodeId,
    watch: &'w Watch<'w>,
    kernel: &'w HarnessKernel<'w>,
    cause: &'w Cell<Option<Cause>>,
}

/// Runs `check` on a vmemmap with readers.
///
/// # Safety
///
/// 1. Duties 1 to 4 of [`Vmemmap::new`] for the parts: nothing is online, and no other value is used
///    until this returns, when nothing is online.
/// 2. The entries of the root are new, and nobody else uses them.
pub(crate) unsafe fn run<T: PageTable>(
    parts: Parts<'_, T>,
    check: fn(&mut Session<'_, '_>) -> Verdict,
) -> Verdict {
    let Parts {
        model,
        table,
        frames,
        direct_map,
        node,
        root,
        read,
        cause,
        range,
        orders: [large, small],
    } = parts;
    let kernel = HarnessKernel::new(read, direct_map, model.granule());
    let Ok(readers) = Readers::new(model, root, &kernel) else {
        return fail("the root of the online map has an entry for each span");
    };
    // SAFETY: 1 and 2: the caller's.
    let vmemmap = unsafe { Array::with_readers(readers, frames, direct_map) };
    let Ok(mut vmemmap) = vmemmap else {
        return fail("the model's descriptors have the size of `Page`");
    };
    // SAFETY: 1: all that reads is what the harness says that its CPUs find. 2: a watch asks for no
    // reference to what changes, unless that is frozen. 3: it keeps none. 4: it stores to what nothing is
    // done to.
    let reader = unsafe { vmemmap.reader() };
    let watch = Watch::new(model, reader, &kernel);
    let Some(table) = WatchedTable::new(table, &watch) else {
        return skip("page tables of this kind are not watched");
    };
    let mut session = Session {
        vmemmap: &mut vmemmap,
        table,
        range,
        large,
        small,
        model,
        node,
        watch: &watch,
        kernel: &kernel,
        cause,
    };
    check(&mut session)?;
    equal(
        0,
        kernel.lost(),
        "pages that have lost their last reference",
    )
}

impl<'w> Session<'_, 'w> {
    /// The page number `index`.
    pub(crate) fn page(&self, index: u64) -> PfnRange {
        crate::bench::part(self.range, index * self.large.frames(), self.large.frames())
    }

    /// The subsections of `frames`.
    pub(crate) fn subsections(&self, frames: PfnRange) -> impl Iterator<Item = PfnRange> + use<> {
        let unit = self.model.subsection().frames();
        let count = frames.frames() / unit;
        (0..count).map(move |index| crate::bench::part(frames, index * unit, unit))
    }

    /// How many frames one vmemmap page describes.
    pub(crate) fn per_page(&self) -> u64 {
        self.model.descriptors_per_page()
    }

    /// Memory in pages of `order`, by base pages of vmemmap.
    pub(crate) fn pagemap<'r>(
        &self,
        ranges: &'r [PfnRange],
        order: Order,
        tails: Tails,
    ) -> Result<DevPagemap<'r>, Stop> {
        let pagemap = DevPagemap::new(&self.model, ranges, Geometry::compound(order));
        let pagemap = self.expect(pagemap, "the pagemap is accepted")?;
        Ok(pagemap
            .with_node(self.node)
            .with_tails(tails)
            .with_piece(Piece::Range)
            .with_huge_leaves(false))
    }

    /// Fails with the error, if `result` is one.
    pub(crate) fn expect<T, R: Into<Cause>>(
        &self,
        result: Result<T, R>,
        what: &'static str,
    ) -> Result<T, Stop> {
        result.or_else(|error| {
            self.cause.set(Some(error.into()));
            fail(what)
        })
    }

    /// Has the reserve ready for that.
    pub(crate) fn fill_reserve(&mut self, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Verdict {
        let Self { vmemmap, table, .. } = self;
        let needed = vmemmap.reserve_needed(table, pagemap, frames, self.large);
        let filled = vmemmap.fill_reserve(table, self.node, needed);
        self.expect(filled, "the reserve is filled").map(|_| ())
    }

    /// Does `work`, during which readers have to find `parts`, and after which they are as they are to be.
    /// `frozen`: whether the pages of what changes are frozen before any entry changes.
    pub(crate) fn doing(
        &mut self,
        parts: &[Part],
        frozen: bool,
        work: &mut dyn FnMut(&mut Self) -> Verdict,
    ) -> Verdict {
        let before = self.watch.looks.get();
        self.doing_quietly(parts, frozen, work)?;
        let looks = self.watch.looks.get() - before;
        // One of them is when all is done.
        ensure(looks > 1, "readers look while something is done")
    }

    /// The same for what may change no entry, so that nobody looks meanwhile.
    pub(crate) fn doing_quietly(
        &mut self,
        parts: &[Part],
        frozen: bool,
        work: &mut dyn FnMut(&mut Self) -> Verdict,
    ) -> Verdict {
        ensure(parts.len() <= PARTS, "there is room to tell memory apart")?;
        let watch = self.watch;
        watch.expect(parts.iter().copied(), frozen);
        let done = work(self);
        watch.verdict()?;
        done?;
        let settled = parts.iter().map(|part| part.settled());
        watch.stamp(settled.clone());
        watch.expect(settled, false);
        watch.look();
        watch.verdict()
    }

    /// Looks now.
    pub(crate) fn look(&self) {
        self.watch.look();
    }

    /// The page that a reader finds `frame` in.
    pub(crate) fn found(&self, frame: Pfn) -> Option<(Pfn, Order)> {
        let reading = self.watch.reader.enter();
        let page = reading.page_of(frame)?;
        Some((page.first(), page.order()))
    }

    /// A reference to the page of `frame`.
    pub(crate) fn reference(
        &self,
        frame: Pfn,
    ) -> Result<PageReference<'w, Page<Mask>, HarnessKernel<'w>>, Stop> {
        let reference = self.watch.reader.enter().reference(frame);
        reference.or_else(|_| fail("a page that is online can be referred to"))
    }

    /// How often somebody has waited for readers.
    pub(crate) fn waits(&self) -> u64 {
        self.kernel.waits()
    }
}
