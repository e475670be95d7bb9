//! Heads of pages that change their order: new ones before the exchange, and what is left of old ones after it.
//!
//! ```text
//!   a page of 1 GiB      | head |                                    its place, of its order
//!   512 of 2 MiB                     | head | head | ... | head |    theirs
//! ```

use super::{PlacesFrom, pages_of, vacant};
use crate::addr::{Order, Pfn, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Initial, Part, Reshape, TailEncoding};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads};
use crate::paging::{PageTable, Role};
use crate::readers::ReadersOf;
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::error::OnlineError;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::image::Image;
use crate::vmemmap::note::Notes;
use crate::vmemmap::reorder::{Change, Describe, Target, aligned};
use crate::vmemmap::{Described, Vmemmap};

/// The heads that a unit of memory is to have.
struct NewHeads<'p> {
    pagemap: &'p DevPagemap<'p>,
    target: &'p Target<'p>,
    unit: PfnRange,
    describe: Describe,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Checks that heads of the pages that `pagemap` asks for can be where it says, when orders change.
    pub(in crate::vmemmap) fn check_new_heads(
        &self,
        pagemap: &DevPagemap<'_>,
    ) -> Result<(), FoldError> {
        if pagemap.packs_heads() && !D::Encoding::HAS_STUBS {
            return Err(FoldError::NoStubs);
        }
        let order = pagemap.geometry().order();
        match pagemap.heads().0 == Heads::Packed && !self.model.can_pack_heads(order) {
            true => Err(FoldError::NoPlaceForHeads { order }),
            false => Ok(()),
        }
    }

    /// Gives the pages that are to have packed heads theirs, with frames of the reserve, and notes where old heads
    /// are. Nothing leads to the new ones yet. After an error nothing has changed.
    // Not inlined, as what it calls: what one of them takes of the stack is not there while the next one works.
    #[inline(never)]
    pub(in crate::vmemmap) fn make_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        change: &Change<'_>,
        notes: &mut Notes,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        let new = &NewHeads {
            pagemap,
            target: change.target,
            unit: change.unit,
            describe: change.describe,
        };
        // What they leave has to go to where it came from.
        if let Some((_, reserved)) = self.head_in_other_altmap(&*table, new.unit, pagemap.altmap())
        {
            return Err(FoldError::OtherAltmap { reserved });
        }
        let mut rest = Some(new.unit);
        while let Some((frames, order)) = new.target.next_packed(&mut rest) {
            self.vacate_places(table, new, frames, order);
            if let Err(error) = self.map_missing(table, new.pagemap, (frames, order), notes) {
                self.unmake_heads(table, pagemap, new.target, new.unit);
                return Err(error);
            }
            self.write_new_heads(&*table, new, frames, order);
        }
        let gathered = self.gather_old_heads(&*table, new);
        if gathered.is_err() {
            self.unmake_heads(table, pagemap, new.target, new.unit);
        }
        gathered
    }

    /// Takes them away again: the unit has not changed.
    #[inline(never)]
    pub(in crate::vmemmap) fn unmake_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        target: &Target<'_>,
        unit: PfnRange,
    ) {
        let mut rest = Some(unit);
        while let Some((frames, order)) = target.next_packed(&mut rest) {
            self.remove_unused(table, pagemap.altmap(), frames, order);
        }
    }

    /// Notes where the packed heads of `unit` are, for pages of it that are to have theirs in place.
    ///
    /// # Errors
    ///
    /// [`FoldError::ReserveTooSmall`] where there are too many: a smaller unit has few.
    #[inline(never)]
    fn gather_old_heads<P: PageTable>(
        &mut self,
        table: &P,
        new: &NewHeads<'_>,
    ) -> Result<(), FoldError> {
        self.per_order.old_places().clear();
        let unit = new.unit;
        let (mut packed, mut rest) = (0, Some(unit));
        while let Some((frames, _)) = new.target.next_packed(&mut rest) {
            packed += frames.frames();
        }
        if packed == unit.frames() || self.look_for_heads(table).is_none() {
            return Ok(());
        }
        // A page of a whole unit has the head of the page that began where it does.
        let frames = match new.target.page_of(unit.start()).0 == unit {
            true => PfnRange::single(unit.start()),
            false => unit,
        };
        let mut fits = true;
        let shift = self.model.granule().shift();
        for order in self.model.packed_orders() {
            let mut walk = self.places_of(frames, order);
            while let Some(seen) = self.next_seen(table, &mut walk) {
                if (seen.from..seen.to).any(|index| !self.is_vacant(seen.holder, index)) {
                    let page = seen.page.start().get() >> shift;
                    fits &= self.per_order.old_places().add(page, seen.holder);
                }
            }
        }
        let node = new.pagemap.node();
        match fits {
            true => Ok(()),
            false => Err(FoldError::ReserveTooSmall { node }),
        }
    }

    /// Takes old heads away from where the pages of `order` that begin in `frames` are to have theirs: of a change
    /// before, after which nobody has released them.
    #[inline(never)]
    fn vacate_places<P: PageTable>(
        &mut self,
        table: &mut P,
        new: &NewHeads<'_>,
        frames: PfnRange,
        order: Order,
    ) {
        if self.has_unused(&*table, frames, order) {
            if new.describe == Describe::Owned {
                self.readers.wait();
            }
            self.remove_unused(table, new.pagemap.altmap(), frames, order);
        }
    }

    /// Writes the heads of the pages of `order` that begin in `frames`, into places that are mapped and have none.
    #[inline(never)]
    fn write_new_heads<P: PageTable>(
        &self,
        table: &P,
        new: &NewHeads<'_>,
        frames: PfnRange,
        order: Order,
    ) where
        D: Reshape,
    {
        let writer = DescriptorWriter {
            order,
            ..DescriptorWriter::of(new.pagemap, &self.model, &self.direct_map)
        };
        let head = writer.initial::<D>(Part::Head, frames.start());
        let mut rest = Some(frames);
        while let Some(left) = rest {
            let first = left.start();
            let old = self.mapped_descriptor(table, first);
            let old_order = old.as_ref().map_or(Order::BASE, Described::order);
            let old_page = aligned(first, old_order);
            let alike = match old_order > order && self.is_complete(table, old_page) {
                // No page begins in the rest of it.
                true => old_page,
                false => aligned(first, order),
            };
            let alike = alike.intersection(left).unwrap_or(left);
            rest = left.split_at(alike.frames()).1;
            if old_order == order && self.is_packed(table, first, order) {
                continue;
            }
            self.write_heads(table, alike, order, head, new.describe);
            let began = aligned(first, old_order).start() == first;
            if let Some(old) = old.and_then(Described::own).filter(|_| began) {
                self.carry_over(table, old, first, head);
            }
        }
    }

    /// Maps the pages of the places of `of`, pages of an order that begin in a range, that are not mapped, without
    /// heads.
    #[inline(never)]
    fn map_missing<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        of: (PfnRange, Order),
        notes: &mut Notes,
    ) -> Result<(), FoldError> {
        let places = self.model.packed_heads(of.0, of.1);
        let mut rest = places.and_then(|places| pages_of(&self.model, places));
        while let Some(left) = rest {
            let at = left.start();
            let found = table.lookup(at);
            let last = found.last(at, self.model.granule()).min(left.last());
            rest = left.after(last);
            let Some(hole) = VirtRange::between(at, last).filter(|_| found.mapping().is_none())
            else {
                let Some(holder) = self.holder_of_places(table, at) else {
                    return Err(FoldError::AlreadyMapped { at });
                };
                match self.other_altmap_with(holder, pagemap.altmap()) {
                    Some(reserved) => return Err(FoldError::OtherAltmap { reserved }),
                    None => continue,
                }
            };
            let from = PlacesFrom::Reserve;
            let mapped = self.map_places(table, pagemap, hole, None, from, notes);
            mapped.map_err(|error| match error {
                OnlineError::AlreadyMapped { at } => FoldError::AlreadyMapped { at },
                error => error.into(),
            })?;
        }
        Ok(())
    }

    /// Whether the page of `order` that begins at `first` is online, with a packed head.
    pub(in crate::vmemmap) fn is_packed<P: PageTable>(
        &self,
        table: &P,
        first: Pfn,
        order: Order,
    ) -> bool {
        let Some(at) = self.descriptor_address(first) else {
            return false;
        };
        let Some(mapping) = table.lookup(at).mapping() else {
            return false;
        };
        let Some(holder) = mapping.frame_of(at, self.model.granule()) else {
            return false;
        };
        mapping.leaf.role == Role::Tail && {
            let stub = self.descriptor_in(holder, first);
            D::Encoding::is_stub(stub.word()) && stub.order() == order
        }
    }

    /// Writes new heads of the pages of `order` that begin in `frames`. Their places have none, and are mapped.
    #[inline(never)]
    fn write_heads<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        order: Order,
        head: Initial,
        describe: Describe,
    ) where
        D: Reshape,
    {
        // It has no references until it is thawed.
        let part = Part::Tail;
        let as_tail = (describe == Describe::Frozen).then_some(Initial { part, ..head });
        let image = Image::<D>::new(as_tail.unwrap_or(head));
        let mut walk = self.places_of(frames, order);
        while let Some(seen) = self.next_seen(table, &mut walk) {
            let page = self.direct_map.frame_pointer(seen.holder).cast();
            // SAFETY: 1: an entry of this library's maps it for places of heads, and those from `from` to `to` have
            // none. 2: `Vmemmap::new` has compared the sizes. 3: they are in that page.
            unsafe { image.write(page, seen.from, seen.to) };
            if as_tail.is_some() {
                for index in seen.from..seen.to {
                    // SAFETY: 1: the page that begins there is to have its head there.
                    unsafe { self.nth_in(seen.holder, index).reshape(head) };
                }
            }
        }
    }

    /// Makes the head of the page at `first` what `old` is: a page began there before, and nobody stores to it.
    fn carry_over<P: PageTable>(&self, table: &P, old: &D, first: Pfn, head: Initial)
    where
        D: Reshape,
    {
        let page = aligned(first, head.order);
        let mut walk = self.places_of(page, head.order);
        while let Some(seen) = self.next_seen(table, &mut walk) {
            let page = self.direct_map.frame_pointer(seen.holder).cast::<D>();
            // SAFETY: 1: as in `write_heads`: nothing leads to that place, and `old` is elsewhere. 2: the page that
            // begins there is to have its head there.
            unsafe {
                let new = page.add(seen.from as usize);
                new.copy_from_nonoverlapping(core::ptr::NonNull::from(old), 1);
                new.as_ref().reshape(head);
            }
        }
    }

    /// A walk through the pages of places of the pages of `order` that begin in `frames`.
    fn places_of(&self, frames: PfnRange, order: Order) -> PlacesWalk {
        let first = frames.start().saturating_add(order.frames() - 1);
        let places = self.model.packed_heads(frames, order);
        PlacesWalk {
            places,
            rest: places.and_then(|places| pages_of(&self.model, places)),
            first: first.align_down(order),
            order,
        }
    }

    /// The next page of `walk` that is mapped.
    fn next_seen<P: PageTable>(&self, table: &P, walk: &mut PlacesWalk) -> Option<PlacesSeen> {
        loop {
            let (places, left) = (walk.places?, walk.rest?);
            let at = left.start();
            let page = pages_of(&self.model, VirtRange::single(at))?;
            let Some(holder) = self.holder_of_places(table, at) else {
                let last = table.lookup(at).last(at, self.model.granule());
                walk.rest = left.after(last.min(left.last()));
                continue;
            };
            walk.rest = left.after(page.last());
            let (from, to) = self.indices_in(page, places);
            let before = at.get().saturating_sub(places.start().get());
            let before = before / self.model.descriptor_bytes();
            return Some(PlacesSeen {
                page,
                holder,
                from,
                to,
                first: walk.first.saturating_add(before * walk.order.frames()),
                order: walk.order,
            });
        }
    }

    /// Whether one of the pages of `order` that begin in `frames` has a packed head to which no stub leads: what it
    /// was the head of has changed.
    #[inline(never)]
    pub(super) fn has_unused<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        order: Order,
    ) -> bool {
        let mut walk = self.places_of(frames, order);
        while let Some(seen) = self.next_seen(table, &mut walk) {
            if self.unused_in(table, seen).next().is_some() {
                return true;
            }
        }
        false
    }

    /// Whether the place number `index` in `holder` has no head.
    fn is_vacant(&self, holder: Pfn, index: u64) -> bool {
        self.nth_in(holder, index).word() == D::Encoding::vacant_word()
    }

    /// The indices of heads in `seen` to which no stub leads.
    fn unused_in<P: PageTable>(&self, table: &P, seen: PlacesSeen) -> impl Iterator<Item = u64> {
        (seen.from..seen.to).filter(move |index| {
            let before = (index - seen.from) * seen.order.frames();
            let first = seen.first.saturating_add(before);
            !self.is_vacant(seen.holder, *index) && !self.is_packed(table, first, seen.order)
        })
    }

    /// Takes the heads of pages of `order` that begin in `frames` to which no stub leads, and pages of places that
    /// have no others. Nobody uses these heads any more.
    #[inline(never)]
    pub(super) fn remove_unused<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        frames: PfnRange,
        order: Order,
    ) {
        // Pages of places that follow each other and have no head any more.
        let mut gone: Option<VirtRange> = None;
        let mut walk = self.places_of(frames, order);
        while let Some(seen) = self.next_seen(&*table, &mut walk) {
            if !self.vacate_unused(&*table, seen) {
                continue;
            }
            let before = gone.filter(|gone| gone.last().checked_add(1) == Some(seen.page.start()));
            match before {
                Some(before) => gone = VirtRange::between(before.start(), seen.page.last()),
                None => {
                    if let Some(other) = gone.replace(seen.page) {
                        self.unmap_places(table, other, altmap, PlacesFrom::Reserve);
                    }
                }
            }
        }
        if let Some(gone) = gone {
            self.unmap_places(table, gone, altmap, PlacesFrom::Reserve);
        }
    }

    /// Takes the heads in `seen` to which no stub leads. Says whether the page had some, and has no other.
    fn vacate_unused<P: PageTable>(&self, table: &P, seen: PlacesSeen) -> bool {
        let page = self.direct_map.frame_pointer(seen.holder).cast();
        let mut any = false;
        for index in self.unused_in(table, seen) {
            any = true;
            // SAFETY: 1: an entry of this library's maps it for places of heads, and nobody uses that one any more.
            // 2: `Vmemmap::new` has compared the sizes. 3: it is in that page.
            unsafe { vacant::<D>().write(page, index, index + 1) };
        }
        let mut all = 0..self.model.descriptors_per_page();
        any && all.all(|index| self.is_vacant(seen.holder, index))
    }
}

/// Pages of places that are still to be looked at.
struct PlacesWalk {
    places: Option<VirtRange>,
    rest: Option<VirtRange>,
    /// The first frame of the page with the first of the places.
    first: Pfn,
    order: Order,
}

/// A page of places that is mapped.
#[derive(Clone, Copy)]
struct PlacesSeen {
    page: VirtRange,
    holder: Pfn,
    /// The indices of the places that were asked about: the first, and the one behind the last.
    from: u64,
    to: u64,
    /// The first frame of the page whose head has, or would have, the first of them.
    first: Pfn,
    order: Order,
}
