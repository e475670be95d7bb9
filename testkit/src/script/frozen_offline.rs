//! Memory that is frozen to go offline.

use super::interpreter::Interpreter;
use super::model::Expected;
use super::op::{Ending, Fault, One};
use super::oracle::Oracle;
use crate::threads::ThreadKernel;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::readers::Readers;
use mm_core::vmemmap::{OfflineError, Offlined};
use std::ops::Range;

impl<'s, E: TailEncoding> Interpreter<'s, E, Readers<'s, ThreadKernel<'s>>> {
    /// Freezes the pages that so many vmemmap pages from the one at `at` on are about, and takes them offline, or not.
    pub(super) fn freeze_pages(
        &mut self,
        at: One,
        pages: u64,
        ending: Ending,
    ) -> Result<(), String> {
        if !self.can_read() {
            return Ok(());
        }
        let (page, _) = self.frame(at)?;
        let all = self.model.all_pages();
        let of_subsection = self.scale().subsection / self.scale().per_page;
        let part = page..(page + pages).min(all.end);
        let whole = self.model.orders().whole(&part).unwrap_or(part);
        let start = whole.start - whole.start % of_subsection;
        let part = start.max(all.start)..whole.end.next_multiple_of(of_subsection).min(all.end);
        let Some(frames) = self.scale().frames(&part) else {
            return Ok(());
        };
        let window = [self.aligned_window(Order::BASE).unwrap_or(frames)];
        let (pagemap, altmap) = match self.with_altmap(frames) {
            Some(live) => (
                live.pagemaps().ours,
                live.altmaps.map(|both| both.ours.reserved()),
            ),
            None => {
                let model = self.parts.machine.model();
                let made = DevPagemap::new(&model, &window, Geometry::BASE_PAGES);
                (made.map_err(|error| error.to_string())?, None)
            }
        };
        self.model.refresh();
        let reserved = altmap.filter(|reserved| reserved.overlaps(frames));
        let (references, busy) = self.frozen_references(&part, reserved);
        let of_altmap = |page: u64| {
            let frames = self.scale().frames(&(page..page + 1));
            frames.is_some_and(|frames| reserved.is_some_and(|all| all.contains_range(frames)))
        };
        let all_found = |part: &Range<u64>| {
            part.clone()
                .all(|page| of_altmap(page) || self.model.found(page).is_some())
        };
        let whole = || match self.model.orders().are_whole(&part) && all_found(&part) {
            true => Expected::Done,
            false => Expected::refused(ErrorKind::Misaligned),
        };
        let free = || match busy.first() {
            None => Expected::Done,
            Some(_) => Expected::refused(ErrorKind::Busy),
        };
        let expected = self.model.piece(pagemap.ranges(), frames);
        let expected = expected
            .and(|| self.model.depopulate(altmap, frames))
            .and(whole)
            .and(free);
        self.arm(Fault::None);
        let hull = self.hull(&[frames]);
        self.speculate(&hull);
        let before = self.snapshot(&hull);
        let is_split = !self.model.straddlers(&part).is_empty();
        match (
            self.end_frozen(&pagemap, frames, references, ending)?,
            expected,
        ) {
            (Ok(Some(gone)), Expected::Done) => {
                let theirs = self.with_altmap(frames).map(|live| live.pagemaps().theirs);
                if let Some(Oracle { vmemmap, table, .. }) = &mut self.oracle {
                    let theirs = theirs.flatten().unwrap_or(pagemap);
                    let done = vmemmap.depopulate(table, &theirs, frames);
                    done.map_err(|error| format!("the oracle: {error}"))?;
                }
                self.tally.frozen += 1;
                self.tally.offline += 1;
                self.tally.split_offline += u64::from(is_split);
                let marked = self.model.take_piece(frames);
                match gone.marked == marked {
                    true => Ok(()),
                    false => Err(format!("{gone:?}, expected {marked} marks")),
                }
            }
            (Ok(None), Expected::Done) => {
                self.tally.thawed += 1;
                self.unchanged(&before, &hull, "after it was thawed")?;
                self.check_found_in(&part)
            }
            (Err(error), Expected::Refused(kind, _)) if error.kind() == kind => {
                if let OfflineError::Busy { first } = error
                    && Some(first.get()) != busy.first().copied()
                {
                    return Err(format!("{first} is busy, expected {busy:x?}"));
                }
                self.tally.busy += u64::from(kind == ErrorKind::Busy);
                self.unchanged(&before, &hull, "after a freeze was refused")
            }
            (gone, expected) => Err(format!("{gone:?} of {frames}, expected {expected:?}")),
        }
    }

    /// Freezes `frames`, whose pages have so many references, and takes them offline, or not.
    fn end_frozen(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: u32,
        ending: Ending,
    ) -> Result<Result<Option<Offlined>, OfflineError>, String> {
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        if ending == Ending::AtOnce {
            // SAFETY: 1: they translate by the machine's one table, and each page has the references of its owner.
            let gone = unsafe { vmemmap.try_offline(table, pagemap, frames, references) };
            return Ok(gone.map(Some));
        }
        // SAFETY: 1: they translate by the machine's one table. 2: each page has the references of its owner,
        // and nothing else happens before it is committed or dropped.
        let frozen = match unsafe { vmemmap.freeze(&*table, pagemap, frames, references) } {
            Ok(frozen) => frozen,
            Err(error) => return Ok(Err(error)),
        };
        self.is_hidden(frames)?;
        if ending == Ending::Dropped {
            drop(frozen);
            return Ok(Ok(None));
        }
        Ok(self
            .vmemmap
            .commit(&mut self.table, frozen.wait())
            .map(Some))
    }

    /// Readers find nothing of `frames`, which are frozen.
    fn is_hidden(&self, frames: PfnRange) -> Result<(), String> {
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing happens meanwhile.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        for frame in [frames.start(), frames.last()] {
            if reading.is_online(frame) || reading.reference(frame).is_ok() {
                return Err(format!("readers find {frame}, which is frozen"));
            }
        }
        Ok(())
    }
}
