//! Pages that are frozen to become others.
//!
//! Those of a *unit* change together or not at all: a page of the larger one of two orders, that of the pages now and
//! that of the pages afterwards. Units with a page that somebody else has a reference to are left as they are.

use super::attempt::Snapshot;
use super::interpreter::Interpreter;
use super::model::Expected;
use super::op::{Change, Ending, Fault, Frozen};
use super::oracle::Oracle;
use super::{fold, reorder};
use crate::threads::ThreadKernel;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::DevPagemap;
use mm_core::readers::{CountReferences, Readers};
use mm_core::vmemmap::{self, Changed, Described, FoldError};
use std::ops::Range;

/// How many vmemmap pages are frozen at a time: no more units than one call freezes.
const MOST: u64 = 512;

/// What is to be frozen, and what should come of it.
struct Freeze {
    /// The vmemmap pages, and the frames.
    pages: Range<u64>,
    frames: PfnRange,
    /// How many of them a unit has.
    unit: u64,
    /// How many references each page has, and the first frames of those that have others.
    references: u32,
    busy: Vec<u64>,
    expected: Expected,
}

impl Freeze {
    /// The units that are busy, or that are not.
    fn units(&self, per_page: u64, is_busy: bool) -> impl Iterator<Item = Range<u64>> {
        let all = (self.pages.start..self.pages.end).step_by(self.unit as usize);
        let all = all.map(|start| start..start + self.unit);
        all.filter(move |unit| {
            let mut busy = self.busy.iter().map(|head| head / per_page);
            busy.any(|page| unit.contains(&page)) == is_busy
        })
    }

    /// The units that are not busy. Those that are next to each other change together.
    fn runs(&self, per_page: u64) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for unit in self.units(per_page, false) {
            match runs.last_mut() {
                Some(run) if run.end == unit.start => run.end = unit.end,
                _ => runs.push(unit),
            }
        }
        runs
    }

    /// Checks what was said about those that are busy.
    fn check(&self, per_page: u64, changed: &Changed) -> Result<u64, String> {
        let units = self.units(per_page, true).count() as u64;
        let first = self.busy.first().copied().and_then(Pfn::new);
        match (changed.busy, changed.first_busy) == (units, first) {
            true => Ok(units),
            false => Err(format!(
                "{changed:?}, expected {units} busy units, and {:x?}",
                self.busy
            )),
        }
    }
}

impl<'s, E: TailEncoding> Interpreter<'s, E, Readers<'s, ThreadKernel<'s>>> {
    /// Freezing `pages`, whole ones, to become pages of `pagemap`; if that is not too much for one call.
    fn freeze_of(&mut self, pages: Range<u64>, pagemap: &DevPagemap<'_>) -> Option<Freeze> {
        if pages.end - pages.start > MOST {
            return None;
        }
        let frames = self.scale().frames(&pages)?;
        self.model.refresh();
        let (references, busy) = self.frozen_references(&pages, None);
        let order = pagemap.geometry().order();
        let largest = self.model.orders().largest(&pages).max(order.get());
        let unit = self.scale().unit(largest);
        let all_found = pages.clone().all(|page| self.model.found(page).is_some());
        let is_whole = self.model.orders().are_whole(&pages);
        let of_units = is_whole && all_found && pages.start % unit + pages.end % unit == 0;
        let mut ranges = pagemap.ranges().iter();
        let in_range = ranges.any(|range| range.contains_range(frames));
        let refused = |is_right: bool, kind: ErrorKind| match is_right {
            true => Expected::Done,
            false => Expected::refused(kind),
        };
        let expected = refused(frames.is_aligned(order), ErrorKind::Misaligned)
            .and(|| refused(in_range, ErrorKind::OutOfRange))
            .and(|| self.model.depopulate(None, frames))
            .and(|| refused(of_units, ErrorKind::Misaligned));
        Some(Freeze {
            pages,
            frames,
            unit,
            references,
            busy,
            expected,
        })
    }

    /// Freezes the pages that `request` is about, and changes their order, or not.
    pub(super) fn freeze_and_reorder(
        &mut self,
        request: &reorder::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String> {
        let (used, pagemap) = (request.used, &request.pagemaps.ours);
        let part = self.scale().pages(request.frames);
        let whole = self.model.orders().whole(&part).unwrap_or(part.clone());
        let Some(freeze) = self.freeze_of(whole.clone(), pagemap) else {
            return Ok(());
        };
        self.speculate(&whole);
        let before = self.snapshot(&whole);
        let costs = self.model.costs();
        let (had, have) = (freeze.references, frozen.references);
        let done = self.without_allocator(|this| {
            let (vmemmap, table) = (&mut this.vmemmap, &mut this.table);
            if frozen.ending == Ending::AtOnce {
                // SAFETY: 1: they translate by the machine's one table, and each page has the references of its
                // owner.
                let changed = unsafe {
                    vmemmap.reorder_beside_readers(table, pagemap, request.frames, (had, have))
                };
                return changed.map(Some);
            }
            // SAFETY: 1: they translate by the machine's one table. 2: each page has the references of its
            // owner, and nothing else happens before it is committed or dropped.
            let units = unsafe { vmemmap.freeze_units(&*table, pagemap, freeze.frames, had) }?;
            if frozen.ending == Ending::Dropped {
                return Ok(None);
            }
            let quiescent = units.wait();
            let committed = vmemmap.commit_reorder(table, quiescent, pagemap, request.frames, have);
            if let Some(old) = committed.old_heads {
                vmemmap.release_heads(table, pagemap, old.wait())?;
            }
            Ok(Some(committed.changed))
        })?;
        let Some(changed) = self.frozen_outcome(done, &freeze, &before)? else {
            return Ok(());
        };
        let mut count = 0;
        for run in freeze.runs(self.scale().per_page) {
            let mut left = part.start.max(run.start)..part.end.min(run.end);
            let of_run = left.clone();
            while !left.is_empty() {
                let [_, unit] = self
                    .model
                    .units(&left, &used)
                    .map_err(|refused| format!("the rest of {part:?} at {left:?}: {refused:?}"))?;
                self.enter_unit(request, &unit, (&left, have), None)?;
                left.start = unit.end.min(left.end);
                count += 1;
            }
            self.model.set_references(&run, have);
            if let Some(frames) = self.scale().frames(&of_run) {
                self.oracle_reorders(request, frames)?;
                self.oracle_counts(&run)?;
            }
        }
        self.nothing_is_lost(&costs)?;
        self.model.touch_all(&whole);
        if (changed.folded.changed, changed.error) != (count, None) {
            return Err(format!("{changed:?}, expected {count} units"));
        }
        self.tally.reordered_frozen += count;
        Ok(())
    }

    /// Freezes the pages that `request` is about, and folds, unfolds or reshapes them, or not.
    pub(super) fn freeze_and_change(
        &mut self,
        request: &fold::Request<'_, 's>,
        frozen: Frozen,
    ) -> Result<(), String> {
        let pagemap = &request.pagemaps.ours;
        // Others are refused before anything is looked at.
        let pages = self.hull(&[request.frames]);
        let is_whole = self.scale().frames(&pages) == Some(request.frames);
        let Some(freeze) = self.freeze_of(pages.clone(), pagemap).filter(|_| is_whole) else {
            return Ok(());
        };
        self.arm(Fault::None);
        self.speculate(&pages);
        let before = self.snapshot(&pages);
        self.start_trace(None);
        let change = match request.change {
            Change::Fold => vmemmap::Change::Fold,
            Change::Unfold => vmemmap::Change::Unfold,
            Change::Reshape => vmemmap::Change::Reshape,
        };
        let (had, have) = (freeze.references, frozen.references);
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        let done = match frozen.ending {
            Ending::AtOnce => {
                // SAFETY: 1: they translate by the machine's one table, and each page has the references of its
                // owner.
                let changed = unsafe {
                    vmemmap.change_beside_readers(
                        table,
                        change,
                        pagemap,
                        request.frames,
                        (had, have),
                    )
                };
                changed.map(Some)
            }
            // SAFETY: 1: they translate by the machine's one table. 2: each page has the references of its
            // owner, and nothing else happens before it is committed or dropped.
            ending => unsafe { vmemmap.freeze_units(&*table, pagemap, request.frames, had) }.map(
                |units| {
                    (ending != Ending::Dropped)
                        .then(|| vmemmap.commit_change(table, units.wait(), change, pagemap, have))
                },
            ),
        };
        let trace = self.end_trace(None);
        let Some(changed) = self.frozen_outcome(done, &freeze, &before)? else {
            return Ok(());
        };
        // As far as they can be changed, one after the other.
        let (mut runs, mut possible, mut error) = (Vec::new(), Vec::new(), None);
        for run in freeze.runs(self.scale().per_page) {
            let frames = self.scale().frames(&run).ok_or("no such frames")?;
            match self.survey(request, frames) {
                Ok(survey) => {
                    possible.extend(self.possible_leaves(request, frames));
                    runs.push((frames, survey));
                }
                Err(refused) => {
                    error = Some(refused);
                    break;
                }
            }
        }
        let is_right = match (changed.error, error) {
            (None, None) => true,
            (Some(found), Some(Expected::Refused(kind, _))) => found.kind() == kind,
            _ => false,
        };
        if !is_right {
            return Err(format!("{changed:?}, expected {error:?}"));
        }
        self.changed(request, &runs, &changed.folded, &possible, &trace)?;
        for (frames, _) in &runs {
            let run = self.scale().pages(*frames);
            if request.change != Change::Unfold {
                self.model.empty_tails(&run);
            }
            self.model.set_references(&run, have);
            let theirs = self.oracle_changes(request, *frames);
            theirs
                .transpose()
                .map_err(|error| format!("the oracle: {error}"))?;
            self.oracle_counts(&run)?;
            self.tally.changed_frozen += 1;
        }
        self.model.touch_all(&pages);
        Ok(())
    }

    /// What was changed, if anything was to be: nothing if it was refused, or dropped.
    fn frozen_outcome(
        &mut self,
        done: Result<Option<Changed>, FoldError>,
        freeze: &Freeze,
        before: &Snapshot,
    ) -> Result<Option<Changed>, String> {
        match (done, freeze.expected) {
            (Ok(Some(changed)), Expected::Done) => {
                self.tally.busy += freeze.check(self.scale().per_page, &changed)?;
                Ok(Some(changed))
            }
            (Ok(None), Expected::Done) => {
                self.tally.thawed += 1;
                self.unchanged(before, &freeze.pages, "after it was thawed")?;
                Ok(None)
            }
            (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => {
                self.tally.reorder_refused += 1;
                self.unchanged(before, &freeze.pages, "after a freeze was refused")?;
                Ok(None)
            }
            (done, expected) => Err(format!("{done:?}, expected {expected:?}")),
        }
    }

    /// The oracle's descriptors in `pages` have the references that the model says.
    fn oracle_counts(&mut self, pages: &Range<u64>) -> Result<(), String> {
        let Some(Oracle { vmemmap, table, .. }) = &self.oracle else {
            return Ok(());
        };
        for (frame, right) in self.model.counts(pages) {
            let frame = Pfn::new(frame).ok_or("no such frame")?;
            let descriptor = vmemmap.descriptor(table, frame).and_then(Described::own);
            let descriptor = descriptor.ok_or("the oracle has no descriptor")?;
            if descriptor.references().get() != Some(right) {
                // SAFETY: 1 and 2: nobody counts the oracle's references but this.
                unsafe { descriptor.unfreeze(right) };
            }
        }
        Ok(())
    }
}
