//! What readers find, beside what they should.

use super::Churn;
use super::reorder::{Expected, Request};
use crate::threads::ThreadKernel;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::error::ErrorKind;
use mm_core::pagemap::DevPagemap;
use mm_core::readers::{CountReferences, Reader};
use mm_core::vmemmap::{FoldError, OfflineError};
use std::ops::Range;

/// How many vmemmap pages a change beside readers is about at most: no more units than one call
/// freezes.
pub(super) const FROZEN: u64 = 512;

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Whether readers can read descriptors: they translate by tables.
    pub(super) fn reads(&self) -> bool {
        self.world.machine.facts().has_tables
    }

    /// Compares what readers find for a frame that `page` describes with what they should.
    pub(super) fn check_found(&self, page: u64) -> Result<(), String> {
        let layout = &self.world.layout;
        let expected = self.model.found(page);
        // The last one, since the first may be a head.
        let frame = layout.frame_of(page);
        let frame = frame.saturating_add(layout.model.descriptors_per_page() - 1);
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing is folded or taken
        // offline while this reads, and it keeps no reference.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        if reading.is_online(frame) != expected.is_some() {
            return Err(format!(
                "frame {frame} of page {page}, expected {expected:?}"
            ));
        }
        let (true, Some(order)) = (self.reads(), expected) else {
            return Ok(());
        };
        let order = Order::new(order).ok_or("no such order")?;
        let first = frame.align_down(order);
        let found = reading.page_of(frame);
        match found.map(|page| (page.first(), page.order())) {
            Some(found) if found == (first, order) => Ok(()),
            found => Err(format!("frame {frame}: found {found:?}, not {order}")),
        }
    }

    /// Takes `frames` offline if nobody else has a reference to their pages, and sometimes somebody
    /// has.
    pub(super) fn freeze_and_depopulate(
        &mut self,
        pagemap: &DevPagemap<'w>,
        frames: PfnRange,
    ) -> Result<(), String> {
        if !self.reads() {
            return self.depopulate_by(pagemap, frames, Ok(()));
        }
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("freeze and depopulate {pages:?}");
        self.touched = pages.clone();
        let parts = self.model.parts(&pages);
        self.model.refresh();
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing is folded as long as
        // there is a reference, and what has one does not go offline.
        let reader = unsafe { self.vmemmap.reader() };
        give_owners(&reader, frames);
        let page = self.rng.u64(pages.clone());
        let in_use = match self.rng.u8(..4) {
            0 => reader
                .enter()
                .reference(self.world.layout.frame_of(page))
                .ok(),
            _ => None,
        };
        if self.model.found(page).is_none() && in_use.is_some() {
            return Err(format!(
                "there is a reference to page {page}, which is not found"
            ));
        }
        let ours = pages.clone().all(|page| self.model.cell(page).is_ours());
        let all_found = pages.clone().all(|page| self.model.found(page).is_some());
        let expected = match (ours, self.model.are_whole(&pages)) {
            (false, _) => Err(ErrorKind::NotOnline),
            (true, false) => Err(ErrorKind::Misaligned),
            // A part of a page of which more is missing is nothing that could be frozen.
            (true, true) if !all_found => Err(ErrorKind::Misaligned),
            (true, true) if in_use.is_some() => Err(ErrorKind::Busy),
            (true, true) => Ok(()),
        };
        if !parts && expected.is_ok() {
            self.disarm();
        }
        self.tally.busy += u64::from(ours && expected.is_err());
        self.speculate(&pages);
        let offlined = self.attempt(expected, OfflineError::kind, |churn| {
            let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
            // SAFETY: 1: as above. 2: each page has the one reference of its owner.
            unsafe { vmemmap.try_offline(table, pagemap, frames, 1) }
        })?;
        drop(in_use);
        if let Some(offlined) = offlined {
            self.tally.frozen += 1;
            self.tally.split_offline += u64::from(parts);
            self.went(&pages, offlined.marked)?;
        }
        Ok(())
    }
}

/// Gives an owner to each page of `frames` that has none, as those that were tails of others.
pub(super) fn give_owners<E: TailEncoding>(
    reader: &Reader<'_, Page<E>, ThreadKernel<'_>>,
    frames: PfnRange,
) {
    let reading = reader.enter();
    let mut rest = Some(frames);
    while let Some(left) = rest {
        let page = reading.page_of(left.start());
        let frames = page.as_ref().map_or(1, |page| page.frames().frames());
        if let Some(page) = page {
            page.head().references().own();
        }
        rest = left.split_at(frames).1;
    }
}

/// Changes of order beside readers.
impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Whether readers can read, and `whole` is no more than what one call freezes, of the request's range.
    pub(super) fn can_freeze(&self, request: &Request<'w>, whole: &Range<u64>) -> bool {
        let range = self.world.layout.pages_of(request.range);
        self.reads()
            && whole.end - whole.start <= FROZEN
            && range.start.max(request.reserved.end) <= whole.start
            && whole.end <= range.end
    }

    /// Freezes the pages that `request` is about, `whole`, and changes them. One of them may be in use.
    pub(super) fn reorder_beside_readers(
        &mut self,
        request: &Request<'w>,
        whole: &Range<u64>,
    ) -> Result<(), String> {
        let layout = self.world.layout;
        let part = layout.pages_of(request.frames);
        self.act = format!(
            "reorder {part:?} of {whole:?} beside readers {:?}",
            request.policy
        );
        self.model.refresh();
        let has_blocks = self.prepare(request, true)?;
        let frames = layout.frames(whole.start, whole.end - whole.start)?;
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: what has a reference is not
        // changed, and nothing goes offline.
        let reader = unsafe { self.vmemmap.reader() };
        give_owners(&reader, frames);
        let page = self.rng.u64(whole.clone());
        let in_use = match self.rng.u8(..3) {
            0 => reader.enter().reference(layout.frame_of(page)).ok(),
            _ => None,
        };
        let order = self.model.largest_order(whole).max(request.policy.order);
        let unit = self.model.pages_of(order);
        let all_found = whole.clone().all(|page| self.model.found(page).is_some());
        let expected = match self.model.is_ours(whole) {
            false => Err(ErrorKind::NotOnline),
            true if !all_found || whole.start % unit + whole.end % unit > 0 => {
                Err(ErrorKind::Misaligned)
            }
            true => Ok(()),
        };
        let references = self.rng.u32(1..4);
        let before = self.model.costs();
        let commits = self.rng.u8(..8) > 0;
        let changed = self.without_allocator(|churn| {
            let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
            // SAFETY: 1: as above. 2: each page has the one reference of its owner.
            let frozen = unsafe { vmemmap.freeze_units(&*table, &request.pagemap, frames, 1) }?;
            if !commits {
                return Ok(None);
            }
            let (pagemap, frames) = (&request.pagemap, request.frames);
            let quiescent = frozen.wait();
            let committed = vmemmap.commit_reorder(table, quiescent, pagemap, frames, references);
            if let Some(old) = committed.old_heads {
                vmemmap.release_heads(table, pagemap, old.wait())?;
            }
            Ok::<_, FoldError>(Some(committed.changed))
        })?;
        let changed = match self.judge(changed.map_err(|error| error.kind()), expected)? {
            Some(Some(changed)) => changed,
            Some(None) => {
                drop(in_use);
                return self.check_references(whole, 1);
            }
            None => return Ok(()),
        };
        // The unit with the page that is in use stays.
        let first_busy = in_use.as_ref().map(|page| page.first());
        let busy = first_busy.map_or(whole.end..whole.end, |first| {
            let start = layout.page_of(first) / unit * unit;
            start..start + unit
        });
        let mut units = 0;
        let mut candidates = Vec::new();
        for run in [whole.start..busy.start, busy.end..whole.end] {
            let of_run = part.start.max(run.start)..part.end.min(run.end);
            if of_run.is_empty() {
                continue;
            }
            let done = self.follow(request, &of_run, u64::MAX);
            units += done.units;
            candidates.extend(done.candidates);
        }
        let found = (
            changed.folded.changed,
            changed.busy,
            changed.first_busy,
            changed.error,
        );
        if found != (units, u64::from(first_busy.is_some()), first_busy, None) {
            return Err(format!(
                "{changed:?}, expected {units} units, and {first_busy:?} busy"
            ));
        }
        drop(in_use);
        let done = Expected {
            units,
            end: whole.end,
            error: None,
            candidates,
        };
        self.changed(&before, &done, has_blocks)?;
        self.tally.reordered_frozen += units;
        self.tally.busy += changed.busy;
        self.check_references(&(whole.start..busy.start), references)?;
        self.check_references(&busy, 1)?;
        self.check_references(&(busy.end..whole.end), references)
    }

    /// Checks that each page of `pages`, whole ones, has `references` references, and leaves one of them.
    pub(super) fn check_references(
        &mut self,
        pages: &Range<u64>,
        references: u32,
    ) -> Result<(), String> {
        self.model.refresh();
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing changes meanwhile.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        let mut rest = match pages.is_empty() {
            true => None,
            false => Some(
                self.world
                    .layout
                    .frames(pages.start, pages.end - pages.start)?,
            ),
        };
        while let Some(left) = rest {
            let first = left.start();
            let Some(page) = reading.page_of(first) else {
                return Err(format!("{first} is not found"));
            };
            if !page.head().try_freeze(references) {
                return Err(format!("{first} has not {references} references"));
            }
            // SAFETY: 1: frozen just now. 2: the others are given back.
            unsafe { page.head().unfreeze(1) };
            rest = left.split_at(page.frames().frames()).1;
        }
        Ok(())
    }
}
