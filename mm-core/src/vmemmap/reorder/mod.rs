//! Changes the order of pages that are online: from any orders to any other, directly.
//!
//! ```text
//!   1 GiB, shared per order   | H T18 T18 ... T18 |     6 frames, with tables
//!   512 × 2 MiB               | H T9 ... T9  H T9 ... T9  ... |     523 frames
//! ```
//!
//! - `target` says what each vmemmap page is to be mapped to.
//! - `survey` compares that with what is mapped.
//! - `reordering` takes frames and references for the difference, and `exchange` makes it
//!   ([`Exchange`](crate::paging::Exchange)).
//! - `describe` writes descriptors.
//! - `needed` says ahead how much that can take.
//!
//! All of it works on a [unit](Vmemmap::reorder_step) at a time, and with the
//! [reserve](Vmemmap::reserve) in place of the allocator.

mod complete;
mod describe;
mod exchange;
mod found;
mod frozen;
mod gone;
mod needed;
mod reordering;
mod survey;
mod target;

use super::Vmemmap;
use super::descriptor_writer::DescriptorWriter;
use super::fold::{FoldError, not_online};
use super::frame_pool::FramePool;
use super::memory_of;
use super::note::Notes;
use super::reserve::FromReserve;
use super::table_records::RecordsInUse;
use crate::addr::{Order, Pfn, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Reshape, TailEncoding};
use crate::error::ErrorKind;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Tails};
use crate::paging::{InUse, PageTable, Replacement, Role, Visit};
use crate::readers::ReadersOf;
use core::fmt;
use core::ops::ControlFlow;
pub(super) use describe::Describe;
use reordering::Reordering;
use target::{Target, aligned};

/// What a change of orders has done.
#[must_use = "not everything may have been done as asked; see the notes"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reordered {
    /// How many units have the pages that were asked for.
    pub units: u64,
    /// How many flushes that took.
    pub flushes: u64,
    /// What was done otherwise than asked.
    pub notes: Notes,
    /// What was asked for beyond these units: for the next call.
    pub rest: Option<PfnRange>,
}

impl Reordered {
    /// Adds what the next call has done.
    fn add(&mut self, next: &Self) {
        self.units += next.units;
        self.flushes += next.flushes;
        self.notes.add(&next.notes);
        self.rest = next.rest;
    }
}

/// Why a change of orders stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReorderStopped {
    /// What was done before.
    pub done: Reordered,
    /// Why the next unit was not changed. It and those behind it, [`Reordered::rest`], are as they were.
    pub error: FoldError,
}

impl ReorderStopped {
    /// The kind of the error.
    pub const fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

impl fmt::Display for ReorderStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for ReorderStopped {}

/// What a request is about: the pages that its ends are in now, and the pages to come.
struct Request<'p> {
    target: Target<'p>,
    /// The order of the page that it starts with, and of those to come.
    first: Order,
    order: Order,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Makes `frames` pages of the pagemap's order, mapped as the pagemap says: from any orders and
    /// policies that there are now, base pages included. All frames that it takes come from the
    /// [reserve](Self::reserve) of the pagemap's node, and what it frees goes there. It calls no allocator
    /// (apart from counting references), and nothing can fail once a unit has begun.
    ///
    /// `frames` are whole pages of the pagemap's order, within one of its ranges, and online. They may be a
    /// part of a larger page. The rest of that becomes the largest pages that fit, as a buddy allocator
    /// splits; the pagemap's policies say how these are mapped, too. What an altmap reserves is not
    /// changed. With the pagemap's altmap, frames for descriptors come from it, and not from the reserve.
    ///
    /// Where other pages have come online in the place of a part of a page, these are not changed with the
    /// rest of it: `frames` have to be all of its memory, or none.
    ///
    /// What is in the first descriptor of a page stays if a page began there before. So does what is in
    /// that of a tail which was a tail, if it has memory of its own. All other descriptors are as new.
    ///
    /// It goes unit by unit, as [`reorder_step`](Self::reorder_step) does.
    ///
    /// # Errors
    ///
    /// [`ReorderStopped`], with what was done before.
    pub fn reorder<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, ReorderStopped>
    where
        D: Reshape,
    {
        let mut done = Reordered {
            rest: Some(frames),
            ..Reordered::default()
        };
        while let Some(frames) = done.rest {
            match self.reorder_step(table, pagemap, frames) {
                Ok(next) => done.add(&next),
                Err(error) => return Err(ReorderStopped { done, error }),
            }
        }
        Ok(done)
    }

    /// Does the first unit of [`reorder`](Self::reorder), wholly or not at all. [`Reordered::rest`] is what
    /// is left to do.
    ///
    /// A unit is a page of the larger one of the orders before and after, or several that are described
    /// by one vmemmap page or leaf table.
    ///
    /// # Errors
    ///
    /// [`FoldError`], and nothing has changed.
    pub fn reorder_step<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Reordered, FoldError>
    where
        D: Reshape,
    {
        self.step(table, pagemap, frames, Describe::Owned)
    }

    /// See [`reorder_step`](Self::reorder_step). `describe` says what new pages are.
    fn step<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        describe: Describe,
    ) -> Result<Reordered, FoldError>
    where
        D: Reshape,
    {
        let request = self.request(&*table, pagemap, frames)?;
        let [small, large] = self.units(&request);
        let mut step = |unit| {
            let bits = self.take_bits_for(unit, pagemap.node())?;
            let done = self.reorder_unit(table, pagemap, &request, unit, describe);
            match done {
                Ok(_) => self.publish_unit(unit, bits),
                Err(_) => self.give_bits_back(bits),
            }
            done
        };
        let (unit, done) = match step(large) {
            Err(FoldError::ReserveTooSmall { .. } | FoldError::AltmapExhausted { .. })
                if small != large =>
            {
                (small, step(small)?)
            }
            done => (large, done?),
        };
        let last = unit.last().get();
        let rest = match last.checked_sub(frames.start().get()) {
            Some(before_last) => frames.split_at(before_last + 1).1,
            None => Some(frames),
        };
        Ok(Reordered { rest, ..done })
    }

    /// The request, if it is valid.
    fn request<'p, P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'p>,
        frames: PfnRange,
    ) -> Result<Request<'p>, FoldError> {
        if *pagemap.model() != self.model {
            return Err(FoldError::OtherModel);
        }
        let order = pagemap.geometry().order();
        if !frames.is_aligned(order) {
            return Err(FoldError::Misaligned { frames, order });
        }
        let outside = FoldError::Outside { frames };
        pagemap.range_of(frames).ok_or(outside)?;
        if pagemap.tails_of(self.model.max_order()).0 == Tails::PerOrder
            && !D::Encoding::SAME_FOR_ALL
        {
            return Err(FoldError::TailsDiffer);
        }
        if table.replacement() == Replacement::Refused {
            return Err(FoldError::Refused);
        }
        let page_of = |frame| {
            let descriptor = self.mapped_descriptor(table, frame);
            let descriptor = descriptor.ok_or_else(|| self.first_offline(table, pagemap, frames));
            let order = descriptor?.order();
            Ok::<_, FoldError>((aligned(frame, order), order))
        };
        let (first, first_order) = page_of(frames.start())?;
        let (last, _) = page_of(frames.last())?;
        self.check_complete(table, frames, [first, last])?;
        Ok(Request {
            target: Target::new(pagemap, frames, [first, last], table.can_share_tables()),
            first: first_order,
            order,
        })
    }

    /// The first frame of the page that `frame`, which is online, is part of.
    fn first_of_page<P: PageTable>(&self, table: &P, frame: Pfn) -> Pfn {
        let order = self.mapped_descriptor(table, frame);
        frame.align_down(order.map_or(Order::BASE, |descriptor| descriptor.order()))
    }

    /// Where the first of `frames`, which are not all online, is missing.
    #[cold]
    fn first_offline<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> FoldError {
        let outside = FoldError::Outside { frames };
        let Some(range) = self.model.descriptors(frames) else {
            return outside;
        };
        let checked = self.check_online(table, range, pagemap.altmap());
        checked.err().map_or(outside, not_online)
    }

    /// The first unit of a request: one page, or as many small ones as a vmemmap page describes; and all
    /// that one leaf table describes, if that is more.
    fn units(&self, request: &Request<'_>) -> [PfnRange; 2] {
        let whole = request.target.whole();
        let page = aligned(whole.start(), request.first.max(request.order));
        let vmemmap_page = self.model.vmemmap_page_order();
        let entries = self.model.granule().entries_per_table().trailing_zeros() as u8;
        let table = entries.checked_add(vmemmap_page.get()).and_then(Order::new);
        let group_of = |order, unit| {
            let group = aligned(whole.start(), order);
            let is_group = group.start() == whole.start()
                && group.contains_range(unit)
                && whole.contains_range(group);
            if is_group { group } else { unit }
        };
        let unit = group_of(vmemmap_page, page);
        [unit, table.map_or(unit, |table| group_of(table, unit))]
    }

    /// Makes `unit` what the request says. Wholly, or not at all.
    fn reorder_unit<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        request: &Request<'_>,
        unit: PfnRange,
        describe: Describe,
    ) -> Result<Reordered, FoldError>
    where
        D: Reshape,
    {
        let range = self.vmemmap_of(pagemap, unit)?;
        self.check_altmap(&*table, pagemap.altmap())?;
        let leaf = self.huge_leaf_of(&*table, pagemap);
        let leaf = leaf.filter(|_| pagemap.huge_leaves() && table.resizes_leaves());
        let node = pagemap.node();
        // SAFETY: 1: `fill_reserve` has allocated what is in it, and everything else there came from the
        // operations of this vmemmap on this page table (duty 3 of `new`). Duty 2 of `new`.
        let reserve =
            unsafe { FromReserve::new(&self.frames, &self.direct_map, &mut self.reserve) };
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        // SAFETY: 1: what is in it came from there.
        let memory = unsafe { memory.with_reserve(&reserve) };
        let records = RecordsInUse::new(memory, &mut self.table_records).with_reserve(&reserve);
        let pool = FramePool::new(memory, pagemap.altmap(), &mut self.pool_state)
            .up_to(table.last_frame());
        let writer = DescriptorWriter::of(pagemap, &self.model, &self.direct_map);
        let mut reordering =
            Reordering::<D, A, M>::new(pool, writer, request.target, describe, unit);
        let mut done = Reordered {
            units: 1,
            ..Reordered::default()
        };
        let prepared = reordering.prepare(&*table, range, leaf, &mut done.notes);
        let replaced = prepared.and_then(|()| {
            // SAFETY: 1: frames and references were taken for this. 2: the survey has seen that all of the range
            // is this library's; the records are its own. 3: descriptors of the same memory, by either entry;
            // what they lose is what a change of orders is for.
            unsafe { table.replace(range, node, &mut reordering, &records) }
                .map_err(FoldError::from)
        });
        if replaced.is_ok() && reordering.has_huge_leaves {
            rewrite_huge_leaves(&*table, range, &reordering);
        }
        reordering.release_unused();
        match replaced {
            Ok(replaced) => done.flushes = replaced.flushes,
            Err(FoldError::OutOfFrames(_)) => return Err(FoldError::ReserveTooSmall { node }),
            Err(error) => return Err(error),
        }
        Ok(done)
    }

    /// The vmemmap pages of `unit`, if no altmap reserves some of it.
    fn vmemmap_of(&self, pagemap: &DevPagemap<'_>, unit: PfnRange) -> Result<VirtRange, FoldError> {
        let altmaps = &self.pool_state.altmaps;
        let own = pagemap.altmap().map(Altmap::reserved);
        let own = own.filter(|reserved| reserved.overlaps(unit));
        if let Some(reserved) = own.or_else(|| altmaps.other_reserving(unit, None)) {
            return Err(FoldError::Reserved { reserved });
        }
        let order = self.model.vmemmap_page_order();
        let pages = [unit.start(), unit.last()].map(|frame| aligned(frame, order));
        let outside = FoldError::Outside { frames: unit };
        let [first, last] = pages.map(|page| self.model.descriptors(page));
        let (first, last) = (first.ok_or(outside)?, last.ok_or(outside)?);
        VirtRange::between(first.start(), last.last()).ok_or(outside)
    }
}

/// Makes the descriptors in the huge leaves of `range` parts of the new pages. The page table keeps such a
/// leaf, and does not ask about it.
fn rewrite_huge_leaves<D: Reshape, A: FrameAllocator, M: DirectMap, P: PageTable>(
    table: &P,
    range: VirtRange,
    reordering: &Reordering<'_, '_, D, A, M>,
) {
    let _ = table.visit(range, &mut |visit| {
        if let Visit::Leaves { at, run } = visit
            && run.leaf.role == Role::Descriptors
            && run.leaf.block.order() != Order::BASE
        {
            reordering.rewrite(at, &run);
        }
        ControlFlow::Continue(())
    });
}
