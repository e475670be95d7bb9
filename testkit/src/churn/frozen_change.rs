//! Memory that is frozen, and then folded, unfolded or reshaped beside readers.

use super::Churn;
use super::model::Policy;
use super::readers::{FROZEN, give_owners};
use mm_core::addr::PfnRange;
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::Change;
use std::ops::Range;

/// What is to become of which memory.
pub(super) struct FrozenChange<'p, 'w> {
    pub(super) change: Change,
    pub(super) pagemap: &'p DevPagemap<'w>,
    pub(super) policy: &'p Policy,
    pub(super) frames: PfnRange,
}

/// What a change should have done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    changed: u64,
    unchanged: u64,
    busy: u64,
    error: Option<ErrorKind>,
}

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Whether `pages` are frozen now, if they are to be folded, unfolded or reshaped: sometimes, and no more than one
    /// call freezes.
    pub(super) fn freezes(&mut self, pages: &Range<u64>) -> bool {
        self.reads() && pages.end - pages.start <= FROZEN && self.rng.u8(..4) == 0
    }

    /// Freezes the pages that `request` is about, one of which may be in use, and changes the others, or thaws them.
    pub(super) fn change_frozen(&mut self, request: &FrozenChange<'_, 'w>) -> Result<(), String> {
        let FrozenChange {
            change,
            pagemap,
            policy,
            frames,
        } = *request;
        let layout = self.world.layout;
        let pages = layout.pages_of(frames);
        self.act = format!("{change:?} {pages:?} beside readers {policy:?}");
        self.touched = pages.clone();
        self.disarm();
        self.model.refresh();
        self.speculate(&pages);
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: what has a reference is not changed, and
        // nothing goes offline.
        let reader = unsafe { self.vmemmap.reader() };
        give_owners(&reader, frames);
        let page = self.rng.u64(pages.clone());
        let in_use = match self.rng.u8(..3) {
            0 => reader.enter().reference(layout.frame_of(page)).ok(),
            _ => None,
        };
        let order = self.model.largest_order(&pages).max(policy.order);
        let unit = self.model.pages_of(order);
        let all_found = pages.clone().all(|page| self.model.found(page).is_some());
        let is_whole = self.model.are_whole(&pages) && pages.start % unit + pages.end % unit == 0;
        let expected = match (self.model.is_ours(&pages), is_whole && all_found) {
            (false, _) => Err(ErrorKind::NotOnline),
            (true, false) => Err(ErrorKind::Misaligned),
            (true, true) => Ok(()),
        };
        let (references, commits) = (self.rng.u32(1..4), self.rng.u8(..8) > 0);
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        // SAFETY: 1: as above. 2: each page has the one reference of its owner.
        let frozen = unsafe { vmemmap.freeze_units(&*table, pagemap, frames, 1) };
        let done = frozen.map(|units| {
            commits.then(|| vmemmap.commit_change(table, units.wait(), change, pagemap, references))
        });
        let changed = match self.judge(done.map_err(|error| error.kind()), expected)? {
            Some(Some(changed)) => changed,
            Some(None) => {
                drop(in_use);
                return self.check_references(&pages, 1);
            }
            None => return Ok(()),
        };
        // The unit with the page that is in use stays.
        let first_busy = in_use.as_ref().map(|page| page.first());
        let busy = first_busy.map_or(pages.end..pages.end, |first| {
            let start = layout.page_of(first) / unit * unit;
            start..start + unit
        });
        let mut right = Outcome {
            busy: u64::from(first_busy.is_some()),
            ..Outcome::default()
        };
        let runs = [pages.start..busy.start, busy.end..pages.end];
        let mut end = pages.end;
        for run in runs.into_iter().filter(|run| !run.is_empty()) {
            match self.follow_change(request, &run)? {
                Ok((changed, unchanged)) => {
                    right.changed += changed;
                    right.unchanged += unchanged;
                }
                Err(error) => {
                    right.error = Some(error);
                    end = run.start;
                    break;
                }
            }
        }
        let found = Outcome {
            changed: changed.folded.changed,
            unchanged: changed.folded.unchanged,
            busy: changed.busy,
            error: changed.error.map(|error| error.kind()),
        };
        if found != right || changed.first_busy != first_busy {
            return Err(format!(
                "{changed:?}, expected {right:?}, and {first_busy:?} busy"
            ));
        }
        drop(in_use);
        self.tally.changed_frozen += u64::from(right.error.is_none());
        self.tally.busy += changed.busy;
        for (of, count) in [
            (pages.start..busy.start.min(end), references),
            (busy.start.min(end)..busy.start, 1),
            (busy.clone(), 1),
            (busy.end..end.max(busy.end), references),
            (end.max(busy.end)..pages.end, 1),
        ] {
            self.check_references(&of, count)?;
        }
        Ok(())
    }

    /// Has the model do what `request` says with `run`, whole units of it. Says how many compound pages have changed,
    /// and how many were as they should be, or why it is refused.
    fn follow_change(
        &mut self,
        request: &FrozenChange<'_, 'w>,
        run: &Range<u64>,
    ) -> Result<Result<(u64, u64), ErrorKind>, String> {
        let policy = request.policy;
        let (surveyed, folded, unfolded) = self.surveyed(run, policy);
        let refused = match request.change {
            Change::Fold if self.model.tails_of(policy) == Tails::None => {
                Err(ErrorKind::Unsupported)
            }
            Change::Reshape
                if surveyed.is_ok() && (folded > 0 || self.model.has_tails_behind(run)) =>
            {
                Err(ErrorKind::Overlap)
            }
            _ => surveyed,
        };
        if let Err(error) = refused {
            return Ok(Err(error));
        }
        Ok(Ok(match request.change {
            Change::Fold => {
                self.tally.folded += unfolded;
                self.model.fold(run, policy);
                (unfolded, folded)
            }
            Change::Unfold => {
                let huge = self.huge_among(self.model.joins(run, policy), false)?;
                self.tally.unfolded += folded;
                self.tally.joined += huge.len() as u64;
                self.model.unfold(run, &huge);
                (folded, unfolded)
            }
            _ => {
                self.tally.reshaped += 1;
                self.model.reshape(run, policy.order);
                (0, 0)
            }
        }))
    }
}
