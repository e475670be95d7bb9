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

mod change;
mod complete;
mod describe;
mod exchange;
mod found;
mod frozen;
mod held_tails;
mod keep;
mod needed;
mod reordering;
mod survey;
mod target;
mod to_release;

use super::Vmemmap;
use super::fold::{FoldError, not_online};
use super::note::Notes;
use crate::addr::{Order, Pfn, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Reshape, TailEncoding};
use crate::error::ErrorKind;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads, Tails};
use crate::paging::{InUse, PageTable, Replacement};
use crate::readers::ReadersOf;
pub(super) use change::{Change, Leaves, rewrite_descriptors};
use core::fmt;
pub(super) use describe::{Describe, UnitWriter};
pub use frozen::Committed;
pub(super) use held_tails::HeldTails;
pub(super) use target::{Target, aligned};

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
    /// Where heads are [packed](crate::pagemap::Heads::Packed), before or after, their pages of places come from the
    /// reserve too, never from an altmap. Old heads go in the end, those of an altmap to that, and where there are readers it waits for a
    /// [grace period](crate::readers::GracePeriod) before that, with the lock of the vmemmap held.
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
        match self.all_steps(table, pagemap, Describe::Owned, usize::MAX, &mut done) {
            Ok(()) => Ok(done),
            Err(error) => Err(ReorderStopped { done, error }),
        }
    }

    /// Takes the packed heads that the pages from the frame `start` on had before they changed, up to what of
    /// `frames` is the `rest`. Readers that have found one before are waited for.
    #[inline(never)]
    fn remove_replaced_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        start: Pfn,
        frames: PfnRange,
        rest: Option<PfnRange>,
    ) {
        let end = rest.map_or(frames.last().get() + 1, |rest| rest.start().get());
        let Some(Ok(changed)) = (end.checked_sub(start.get()))
            .filter(|changed| *changed > 0)
            .map(|changed| PfnRange::new(start, changed))
        else {
            return;
        };
        let keep = packed_order(pagemap);
        if self.has_old_heads(&*table, changed, keep) {
            self.readers.wait();
            self.remove_old_heads(table, pagemap.altmap(), changed, keep);
        }
    }

    /// Does up to `steps` of what `done` says is left. Where that is for the caller's own pages, it takes the packed
    /// heads that they had before.
    #[inline(never)]
    fn all_steps<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        describe: Describe,
        steps: usize,
        done: &mut Reordered,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        let Some(all) = done.rest else {
            return Ok(());
        };
        // Where pages have packed heads now, some may be left behind.
        let packed = match describe {
            Describe::Owned => self.look_for_heads(&*table),
            _ => None,
        };
        let start = packed.map(|_| self.first_of_page(&*table, all.start()));
        let mut stepped = Ok(());
        for _ in 0..steps {
            let Some(frames) = done.rest else {
                break;
            };
            stepped = self.step(table, pagemap, frames, describe, done);
            if stepped.is_err() {
                break;
            }
        }
        if let Some(start) = start {
            self.remove_replaced_heads(table, pagemap, start, all, done.rest);
        }
        stepped
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
        let mut done = Reordered {
            rest: Some(frames),
            ..Reordered::default()
        };
        self.all_steps(table, pagemap, Describe::Owned, 1, &mut done)?;
        Ok(done)
    }

    /// See [`reorder_step`](Self::reorder_step). `describe` says what new pages are. What it has done is added
    /// to `done`.
    fn step<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        describe: Describe,
        done: &mut Reordered,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        // Not copied out of it: it is large for a stack.
        let request = self.request(&*table, pagemap, frames);
        let request = match &request {
            Ok(request) => request,
            Err(error) => return Err(*error),
        };
        let mut unit = self.unit(request, true);
        let changed = self.reorder_unit(table, pagemap, request, unit, describe, done);
        if let Err(
            FoldError::ReserveTooSmall { .. }
            | FoldError::AltmapExhausted { .. }
            | FoldError::Frozen { .. },
        ) = changed
            && self.unit(request, false) != unit
        {
            unit = self.unit(request, false);
            self.reorder_unit(table, pagemap, request, unit, describe, done)?;
        } else {
            changed?;
        }
        done.rest = rest_behind(frames, unit);
        Ok(())
    }

    /// The request, if it is valid.
    #[inline(never)]
    fn request<'p, P: PageTable>(
        &self,
        table: &P,
        pagemap: &'p DevPagemap<'p>,
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
        self.check_new_heads(pagemap)?;
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
            target: Target::new(pagemap, frames, [first, last], table.can_share_tables())
                .with_packed_heads(),
            first: first_order,
            order,
        })
    }

    /// The first frame of the page that `frame`, which is online, is part of.
    #[inline(never)]
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
    /// that one leaf table describes, if that is more and `largest` is asked for.
    #[inline(never)]
    fn unit(&self, request: &Request<'_>, largest: bool) -> PfnRange {
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
        let table = table.filter(|_| largest);
        table.map_or(unit, |table| group_of(table, unit))
    }

    /// Makes `unit` what the request says, wholly or not at all.
    // Not inlined: what comes before it needs no stack meanwhile.
    #[inline(never)]
    fn reorder_unit<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        request: &Request<'_>,
        unit: PfnRange,
        describe: Describe,
        done: &mut Reordered,
    ) -> Result<(), FoldError>
    where
        D: Reshape,
    {
        let node = pagemap.node();
        let change = Change {
            target: &request.target,
            unit,
            range: self.vmemmap_of(pagemap, unit)?,
            leaf: self.leaf_to_come_back(&*table, pagemap),
            describe,
        };
        if describe == Describe::Owned {
            self.check_unfrozen(&*table, unit)?;
        }
        self.check_altmap(&*table, pagemap.altmap())?;
        let bits = self.take_bits_for(unit, node)?;
        let mut notes = Notes::default();
        let changed = match self.make_heads(table, pagemap, &change, &mut notes) {
            Ok(()) => self.change::<P, false>(table, pagemap, &change, &mut notes),
            Err(error) => Err(error),
        };
        match changed {
            Ok(changed) => {
                self.publish_unit(unit, bits);
                done.units += 1;
                done.flushes += changed.flushes;
                done.notes.add(&notes);
                Ok(())
            }
            Err(error) => {
                self.unmake_heads(table, pagemap, &request.target, unit);
                self.give_bits_back(bits);
                Err(match error {
                    FoldError::OutOfFrames(_) => FoldError::ReserveTooSmall { node },
                    error => error,
                })
            }
        }
    }

    /// The order of huge leaves that come back when what they map has frames of its own.
    pub(super) fn leaf_to_come_back<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
    ) -> Option<Order> {
        let leaf = self.huge_leaf_of(table, pagemap);
        leaf.filter(|_| pagemap.huge_leaves() && table.resizes_leaves())
    }

    /// The vmemmap pages of `unit`, if no altmap reserves some of it.
    #[inline(never)]
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

/// The order of the pagemap's pages, if they have packed heads.
fn packed_order(pagemap: &DevPagemap<'_>) -> Option<Order> {
    let is_packed = pagemap.heads().0 == Heads::Packed;
    is_packed.then(|| pagemap.geometry().order())
}

/// What of `frames` is behind `unit`.
#[inline(never)]
fn rest_behind(frames: PfnRange, unit: PfnRange) -> Option<PfnRange> {
    let last = unit.last().get();
    match last.checked_sub(frames.start().get()) {
        Some(before_last) => frames.split_at(before_last + 1).1,
        None => Some(frames),
    }
}
