//! Finds packed heads by walking the page table.

use super::pages_of;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads};
use crate::paging::{PageTable, Role, Run, Visit};
use crate::readers::ReadersOf;
use crate::vmemmap::{FoldError, Vmemmap};
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The frame that this library has mapped for the place at `at`.
    pub(super) fn holder_of_places<P: PageTable>(&self, table: &P, at: VirtAddr) -> Option<Pfn> {
        let mapping = table.lookup(at).mapping()?;
        let is_own = mapping.leaf.role == Role::Descriptors;
        mapping
            .frame_of(at, self.model.granule())
            .filter(|_| is_own)
    }

    /// The packed head of the page of `order` that `frame` is part of, if there is one.
    pub(in crate::vmemmap) fn packed_head<P: PageTable>(
        &self,
        table: &P,
        frame: Pfn,
        order: Order,
    ) -> Option<&D> {
        let at = self.model.packed_head(frame, order)?;
        let holder = self.holder_of_places(table, at)?;
        let page = pages_of(&self.model, VirtRange::single(at))?;
        let (index, _) = self.indices_in(page, VirtRange::single(at));
        let head = self.nth_in(holder, index);
        (head.word() != D::Encoding::vacant_word()).then_some(head)
    }

    /// The first frame of a page with a packed head that is at least partly in `frames`, and whose head is
    /// `wanted`.
    pub(in crate::vmemmap) fn find_packed<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        wanted: &dyn Fn(&D) -> bool,
    ) -> Option<Pfn> {
        self.heads_in_use(table)?;
        let mut orders = self.model.packed_orders();
        orders.find_map(|order| self.find_packed_of(table, frames, order, wanted))
    }

    /// The same, of pages of `order`.
    fn find_packed_of<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        order: Order,
        wanted: &dyn Fn(&D) -> bool,
    ) -> Option<Pfn> {
        let ends = [frames.start(), frames.last()];
        let [first, last] = ends.map(|frame| self.model.packed_head(frame, order));
        let (first, last) = (first?, last?);
        let in_last = self.model.descriptor_bytes() - 1;
        let places = VirtRange::between(first, last.checked_add(in_last)?)?;
        let found = find_run(table, pages_of(&self.model, places)?, |at, run| {
            self.find_in_run(at, run, places, wanted)
        });
        self.model.page_of_packed_head(found?).map(PfnRange::start)
    }

    /// Where in those of `places` that `run` maps from `at` on a head is that is `wanted`.
    pub(super) fn find_in_run(
        &self,
        at: VirtAddr,
        run: &Run,
        places: VirtRange,
        wanted: &dyn Fn(&D) -> bool,
    ) -> Option<VirtAddr> {
        let page_bytes = self.model.granule().bytes();
        (0..run.count).find_map(|leaf| {
            let holder = run.block(leaf)?.first();
            let start = at.checked_add(leaf.checked_mul(page_bytes)?)?;
            let page = VirtRange::new(start, page_bytes).ok()?;
            if page.last() < places.start() || places.last() < page.start() {
                return None;
            }
            let (from, to) = self.indices_in(page, places);
            let index = (from..to).find(|index| {
                let head = self.nth_in(holder, *index);
                head.word() != D::Encoding::vacant_word() && wanted(head)
            })?;
            start.checked_add(index * self.model.descriptor_bytes())
        })
    }

    /// Checks that no page that is at least partly in `frames` has a packed head, and that `pagemap` asks for
    /// none: such pages keep their order.
    pub(in crate::vmemmap) fn check_in_place<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), FoldError> {
        let packed = match pagemap.heads().0 {
            Heads::Packed => Some(frames.start()),
            Heads::InPlace => self.find_packed(table, frames, &|_| true),
        };
        match packed {
            Some(first) => Err(FoldError::HeadsPacked { first }),
            None => Ok(()),
        }
    }
}

/// What `look` finds first in the runs that map `pages` of places, from an address each.
pub(super) fn find_run<P: PageTable, T>(
    table: &P,
    pages: VirtRange,
    mut look: impl FnMut(VirtAddr, &Run) -> Option<T>,
) -> Option<T> {
    let mut found = None;
    let _ = table.visit(pages, &mut |visit| {
        if let Visit::Leaves { at, run } = visit
            && run.leaf.role == Role::Descriptors
        {
            found = look(at, &run);
        }
        match found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    });
    found
}
