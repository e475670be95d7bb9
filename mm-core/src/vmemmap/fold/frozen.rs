//! Folds, unfolds and reshapes memory that others may have references to: unit by unit, frozen first.
//!
//! ```text
//!   freeze_units       the pages of each unit are frozen, or the unit is busy   under the vmemmap's lock
//!     ▼
//!   FrozenUnits        wait for a grace period                                  without any lock
//!     ▼                                             dropped: thawed, on any CPU, without a lock
//!   QuiescentUnits
//!     ▼
//!   commit_change      fold, unfold or reshape; thawed with new counts          under the vmemmap's lock
//! ```
//!
//! A *unit* is a page of the larger one of two orders: that of the pages now, and that of the pages
//! afterwards. It changes as a whole or not at all. Which units of a call are frozen is a bit for each,
//! so a call is about at most 512 units.

use super::{FoldError, Folded};
use crate::addr::{Order, Pfn, PfnRange};
use crate::descriptor::Reshape;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{PageTable, Role, Visit};
use crate::readers::{CountReferences, GracePeriod, Kernel, Reader, Readers};
use crate::vmemmap::OldHeads;
use crate::vmemmap::frozen_pages::{begin_freeze, end_freeze, freeze_pages, thaw_pages};
use crate::vmemmap::queries::holders;
use crate::vmemmap::{OfflineError, Vmemmap};
use core::fmt;
use core::mem;
use core::ops::ControlFlow;

/// How many units a call is about at most.
const UNITS: u64 = 512;

/// What becomes of frozen pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// See [`Vmemmap::fold`].
    Fold,
    /// See [`Vmemmap::unfold`].
    Unfold,
    /// See [`Vmemmap::reshape`].
    Reshape,
}

/// What was changed beside readers.
#[must_use = "not everything may have been done as asked"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// What was done, all calls together.
    pub folded: Folded,
    /// How many units have other references than they were said to have, and stay as they are.
    pub busy: u64,
    /// The first frame of the first such page.
    pub first_busy: Option<Pfn>,
    /// Why not all that could be frozen was changed. What was not stays as it is.
    pub error: Option<FoldError>,
}

impl Changed {
    /// Adds what the next call has done.
    pub(in crate::vmemmap) fn add(&mut self, next: &Self) {
        self.folded.add(&next.folded);
        self.busy += next.busy;
        self.first_busy = self.first_busy.or(next.first_busy);
        self.error = self.error.or(next.error);
    }
}

/// Which units of some are meant.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vmemmap) struct Units([u64; (UNITS / 64) as usize]);

impl Units {
    pub(in crate::vmemmap) fn add(&mut self, unit: u64) {
        if let Some(word) = self.0.get_mut((unit / 64) as usize) {
            *word |= 1 << (unit % 64);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn contains(&self, unit: u64) -> bool {
        let word = self.0.get((unit / 64) as usize);
        word.is_some_and(|word| word >> (unit % 64) & 1 != 0)
    }

    /// The next of these units of `frames` from the unit `from` on: how many come before their end, and their
    /// frames.
    pub(in crate::vmemmap) fn next_run(
        &self,
        from: u64,
        frames: PfnRange,
        unit: Order,
    ) -> Option<(u64, PfnRange)> {
        let count = frames.frames() >> unit.get();
        let first = (from..count).find(|unit| self.contains(*unit))?;
        let end = (first..count).find(|unit| !self.contains(*unit));
        let end = end.unwrap_or(count);
        let start = frames.start().checked_add(first << unit.get())?;
        let run = PfnRange::new(start, (end - first) << unit.get());
        Some((end, run.ok()?))
    }
}

/// Units of memory whose pages are frozen, so that they can become other pages.
///
/// Dropping it thaws them: they are as they were before. That needs no lock and no memory.
#[must_use = "dropping it thaws the memory; wait, and give it to `Vmemmap::commit_change`"]
pub struct FrozenUnits<'r, D: CountReferences, K: Kernel> {
    reader: Reader<'r, D, K>,
    frames: PfnRange,
    rest: Option<PfnRange>,
    unit: Order,
    frozen: Units,
    references: u32,
    busy: u64,
    first_busy: Option<Pfn>,
}

impl<D: CountReferences, K: Kernel> fmt::Debug for FrozenUnits<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenUnits")
            .field("frames", &self.frames)
            .field("unit", &self.unit)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl<'r, D: CountReferences, K: Kernel> FrozenUnits<'r, D, K> {
    /// The frames that this is about, frozen or busy.
    pub const fn frames(&self) -> PfnRange {
        self.frames
    }

    /// What was asked for beyond these: for the next call.
    pub const fn rest(&self) -> Option<PfnRange> {
        self.rest
    }

    /// How many units are busy.
    pub const fn busy(&self) -> u64 {
        self.busy
    }

    /// Waits until all who were reading are done, by the kernel's [`GracePeriod`]. Call it without the
    /// lock of the vmemmap.
    pub fn wait(self) -> QuiescentUnits<'r, D, K> {
        self.reader.readers().kernel().grace().wait();
        QuiescentUnits(self)
    }

    /// The same, where the caller has waited: by a call-back, say.
    ///
    /// # Safety
    ///
    /// 1. A grace period has passed since the units were frozen.
    pub unsafe fn after_grace_period(self) -> QuiescentUnits<'r, D, K> {
        QuiescentUnits(self)
    }

    pub(in crate::vmemmap) const fn reader(&self) -> &Reader<'r, D, K> {
        &self.reader
    }

    /// How many references each page had.
    pub(in crate::vmemmap) const fn references(&self) -> u32 {
        self.references
    }

    /// What is not changed, since it could not be frozen.
    pub(in crate::vmemmap) fn not_frozen(&self) -> Changed {
        Changed {
            busy: self.busy,
            first_busy: self.first_busy,
            ..Changed::default()
        }
    }

    /// The next frozen units from the unit `from` on: how many come before their end, and their frames.
    pub(in crate::vmemmap) fn next_run(&self, from: u64) -> Option<(u64, PfnRange)> {
        self.frozen.next_run(from, self.frames, self.unit)
    }

    /// Those of the first `count` units that were frozen, each with its number.
    pub(in crate::vmemmap) fn frozen_units(
        &self,
        count: u64,
    ) -> impl Iterator<Item = (u64, PfnRange)> {
        let numbers = (0..count).filter(|unit| self.frozen.contains(*unit));
        numbers.filter_map(|unit| {
            let start = self.frames.start().checked_add(unit << self.unit.get())?;
            Some((unit, PfnRange::new(start, self.unit.frames()).ok()?))
        })
    }

    /// Gives the pages of the units from `from` on their references back.
    pub(in crate::vmemmap) fn thaw(&self, from: u64) {
        let mut next = from;
        while let Some((end, frames)) = self.next_run(next) {
            thaw_pages(&self.reader, frames, None, self.references);
            next = end;
        }
    }
}

impl<D: CountReferences, K: Kernel> Drop for FrozenUnits<'_, D, K> {
    fn drop(&mut self) {
        self.thaw(0);
        end_freeze(self.reader.readers().online_map(), self.frames);
    }
}

/// Frozen units that no reader is about to store to any more.
#[must_use = "dropping it thaws the memory; give it to `Vmemmap::commit_change`"]
#[derive(Debug)]
pub struct QuiescentUnits<'r, D: CountReferences, K: Kernel>(FrozenUnits<'r, D, K>);

impl<'r, D: CountReferences, K: Kernel> QuiescentUnits<'r, D, K> {
    pub(in crate::vmemmap) const fn units(&self) -> &FrozenUnits<'r, D, K> {
        &self.0
    }

    /// The frames that this is about, frozen or busy.
    pub const fn frames(&self) -> PfnRange {
        self.0.frames
    }

    /// Ends the freeze. What is still frozen are the units from `from` on.
    pub(in crate::vmemmap) fn end(self, from: u64) {
        let units = &self.0;
        units.thaw(from);
        end_freeze(units.reader.readers().online_map(), units.frames);
        mem::forget(self);
    }

    /// Ends the freeze of pages. What is still frozen are the units from `from` on, and the old heads of the
    /// units `old`: none is of a page of the order `keep`.
    pub(in crate::vmemmap) fn leave_old_heads(
        self,
        from: u64,
        old: Units,
        keep: Option<Order>,
    ) -> Option<OldHeads<'r, D, K>> {
        if old.is_empty() {
            self.end(from);
            return None;
        }
        let units = &self.0;
        units.thaw(from);
        let heads = OldHeads {
            reader: units.reader,
            frames: units.frames,
            unit: units.unit,
            units: old,
            keep,
        };
        // The freeze is counted on.
        mem::forget(self);
        Some(heads)
    }
}

impl<'r, D: CountReferences + Reshape, A: FrameAllocator, M: DirectMap, K: Kernel>
    Vmemmap<D, A, M, Readers<'r, K>>
{
    /// Freezes the pages of `frames`, so that they can become pages of the pagemap's order, or be mapped
    /// otherwise. `frames` are as for [`fold`](Self::fold), and whole pages as they are now. Each page
    /// has `references` references, all of them the caller's. A unit with a page that has others is
    /// left out, and counted as busy.
    ///
    /// It takes units from the start of `frames`, 512 at most: [`FrozenUnits::rest`] is what is left. It
    /// neither waits nor changes an entry. The frozen memory can be found by readers, but they get no
    /// reference. To other operations it is refused; to another call of this one it is busy.
    ///
    /// # Errors
    ///
    /// [`FoldError`], and nothing has changed.
    ///
    /// # Safety
    ///
    /// 1. The duties of [`reader`](Self::reader), for what is returned.
    /// 2. The `references` of each page are the caller's. It neither uses them nor gives them back, as
    ///    [`PageReference`](crate::readers::PageReference) or otherwise, until the memory is thawed. When
    ///    it was changed, it has those that [`commit_change`](Self::commit_change) or
    ///    [`commit_reorder`](Self::commit_reorder) was told.
    pub unsafe fn freeze_units<P: PageTable>(
        &mut self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: u32,
    ) -> Result<FrozenUnits<'r, D, K>, FoldError> {
        self.check_whole(table, pagemap, frames)?;
        let reserved = pagemap.altmap().map(Altmap::reserved);
        if let Err(pages) = self.check_found(table, frames, reserved) {
            self.check_unfrozen(table, frames)?;
            return Err(FoldError::SplitsPage { pages });
        }
        // SAFETY: 1 to 4: the caller's duty 1.
        let reader = unsafe { self.reader() };
        let unit = self.unit_of(&reader, pagemap, frames)?;
        let (first, rest) = frames.take_first(UNITS << unit.get());
        let mut parts = self.readers.online_map().parts(first);
        let may_wait = parts.any(|part| part.has_freezes());
        begin_freeze(self.readers.online_map(), first)
            .map_err(|frames| FoldError::TooManyFrozen { frames })?;
        let mut units = FrozenUnits {
            reader,
            frames: first,
            rest,
            unit,
            frozen: Units::default(),
            references,
            busy: 0,
            first_busy: None,
        };
        for index in 0..first.frames() >> unit.get() {
            let start = first.start().saturating_add(index << unit.get());
            let Ok(one) = PfnRange::new(start, unit.frames()) else {
                break;
            };
            // Old heads of a change before, which somebody may have found.
            let waits = match may_wait {
                true => self.find_packed(table, one, &D::is_frozen),
                false => None,
            };
            let frozen = match waits {
                None => freeze_pages(&units.reader, one, None, references),
                Some(busy) => Err(busy),
            };
            match frozen {
                Ok(()) => units.frozen.add(index),
                Err(busy) => {
                    units.busy += 1;
                    units.first_busy.get_or_insert(busy);
                }
            }
        }
        Ok(units)
    }

    /// The order of units of `frames`, whole pages that are online.
    fn unit_of(
        &self,
        reader: &Reader<'r, D, K>,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Order, FoldError> {
        let order = pagemap.geometry().order();
        let mut unit = order.max(self.model.vmemmap_page_order());
        let mut rest = Some(frames);
        while let Some(pages) = rest {
            // SAFETY: 1: it is online, and nothing goes offline meanwhile.
            let order = unsafe { reader.head_of_page(pages.start()) }.order();
            unit = unit.max(order);
            // All that can be in the call's units.
            let is_enough = pages.start().get() - frames.start().get() >= UNITS << unit.get();
            // Within a unit there is no larger page than those at its start.
            rest = pages.split_at(unit.frames()).1.filter(|_| !is_enough);
        }
        match frames.is_aligned(unit) {
            true => Ok(unit),
            false => Err(FoldError::Misaligned {
                frames,
                order: unit,
            }),
        }
    }

    /// Changes frozen memory, in the way that `pagemap` says, and thaws it. Each page has `references`
    /// references then, which are the caller's. Units that were busy stay as they are.
    pub fn commit_change<P: PageTable>(
        &mut self,
        table: &mut P,
        quiescent: QuiescentUnits<'r, D, K>,
        change: Change,
        pagemap: &DevPagemap<'_>,
        references: u32,
    ) -> Changed {
        let units = &quiescent.0;
        let mut changed = units.not_frozen();
        if !self.readers.has_root_of(units.reader.readers()) {
            changed.error = Some(FoldError::OtherVmemmap);
            return changed;
        }
        let mut done = 0;
        while let Some((end, frames)) = units.next_run(done) {
            let result = match change {
                // Pages that are frozen are whole, and found.
                Change::Fold => self.fold_online(table, pagemap, frames),
                Change::Unfold => self.unfold_online(table, pagemap, frames),
                Change::Reshape => self
                    .reshape_online(table, pagemap, frames)
                    .map(|()| Folded::default()),
            };
            match result {
                Ok(folded) => changed.folded.add(&folded),
                Err(error) => {
                    changed.error = Some(error);
                    break;
                }
            }
            if change != Change::Unfold {
                self.empty_tails(&*table, pagemap, frames);
            }
            thaw_pages(&units.reader, frames, None, references);
            done = end;
        }
        quiescent.end(done);
        changed
    }

    /// Makes the counts of tails of `frames` that have memory of their own those of tails: they may have
    /// been pages, and frozen.
    fn empty_tails<P: PageTable>(&self, table: &P, pagemap: &DevPagemap<'_>, frames: PfnRange) {
        let order = pagemap.geometry().order();
        let Some(range) = self.model.descriptors(frames) else {
            return;
        };
        let empty = |(holder, first): (Pfn, Pfn)| {
            let descriptors = self.direct_map.frame_pointer(holder).cast::<D>();
            for index in 0..self.model.descriptors_per_page() {
                let frame = first.saturating_add(index);
                if !frames.contains(frame) || frame.is_aligned(order) {
                    continue;
                }
                // SAFETY: the frame is mapped by this library, so the direct map reaches it (duty 2 of
                // `new`), and it holds a page of descriptors of `D`'s size; they are only shared.
                let descriptor = unsafe { descriptors.add(index as usize).as_ref() };
                // SAFETY: 1: it was frozen with its page, or is a tail that was never counted. 2: a tail
                // has no owner.
                unsafe { descriptor.unfreeze(0) };
            }
        };
        let _ = table.visit(range, &mut |visit| {
            if let Visit::Leaves { at, run } = visit
                && run.leaf.role == Role::Descriptors
            {
                holders(&self.model, at, &run).for_each(empty);
            }
            ControlFlow::Continue(())
        });
    }

    /// Freezes `frames`, waits, and changes them, call by call until all is done that can be. It waits
    /// with the lock of the vmemmap held; see [`freeze_units`](Self::freeze_units) for the steps.
    /// `references`: what each page has before, and what each has afterwards.
    ///
    /// # Errors
    ///
    /// Those of [`freeze_units`](Self::freeze_units), where nothing was changed. After that,
    /// [`Changed::error`].
    ///
    /// # Safety
    ///
    /// 1. Duties 1 and 2 of [`freeze_units`](Self::freeze_units).
    pub unsafe fn change_beside_readers<P: PageTable>(
        &mut self,
        table: &mut P,
        change: Change,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: (u32, u32),
    ) -> Result<Changed, FoldError> {
        let commit = |vmemmap: &mut Self, table: &mut P, quiescent| {
            vmemmap.commit_change(table, quiescent, change, pagemap, references.1)
        };
        // SAFETY: 1: the caller's.
        unsafe { self.call_by_call(table, pagemap, frames, references.0, commit) }
    }

    /// Freezes `frames`, whose pages have `references` references, waits, and does `commit`, call by call
    /// until all is done that can be.
    ///
    /// # Errors
    ///
    /// Those of [`freeze_units`](Self::freeze_units), where nothing was changed. After that,
    /// [`Changed::error`].
    ///
    /// # Safety
    ///
    /// 1. Duties 1 and 2 of [`freeze_units`](Self::freeze_units).
    pub(in crate::vmemmap) unsafe fn call_by_call<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: u32,
        mut commit: impl FnMut(&mut Self, &mut P, QuiescentUnits<'r, D, K>) -> Changed,
    ) -> Result<Changed, FoldError> {
        let mut all = Changed::default();
        let mut rest = Some(frames);
        while let Some(frames) = rest {
            // SAFETY: 1 and 2: the caller's.
            let frozen = unsafe { self.freeze_units(&*table, pagemap, frames, references) };
            let frozen = match frozen {
                Ok(frozen) => frozen,
                Err(error) if all == Changed::default() => return Err(error),
                Err(error) => {
                    all.error = Some(error);
                    break;
                }
            };
            rest = frozen.rest();
            all.add(&commit(self, table, frozen.wait()));
            if all.error.is_some() {
                break;
            }
        }
        Ok(all)
    }
}

/// Why descriptors cannot be read.
pub(in crate::vmemmap) fn not_online(error: OfflineError) -> FoldError {
    match error {
        OfflineError::OtherAltmap { reserved } => FoldError::OtherAltmap { reserved },
        OfflineError::NotOnline { at } => FoldError::NotOnline { at },
        _ => FoldError::Refused,
    }
}
