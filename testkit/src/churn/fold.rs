//! Memory that is online and changes its shape.

use super::Churn;
use super::frozen_change::FrozenChange;
use super::model::{FoldRefusal, Policy};
use super::operations::Expected;
use super::targets::FEW;
use mm_core::addr::PfnRange;
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{Change, FoldError};
use std::ops::Range;

impl<'w, E: TailEncoding> Churn<'w, E> {
    pub(super) fn fold(&mut self) -> Result<(), String> {
        let unfolded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            let survey = churn.model.survey(pages, policy.order);
            survey.is_ok_and(|(_, unfolded)| unfolded > 0)
                && churn.model.tails_of(policy) != Tails::None
        };
        let (pagemap, policy, frames) = self.target(Self::unit, unfolded)?;
        if self.freezes(&self.world.layout.pages_of(frames)) {
            return self.change_frozen(&FrozenChange {
                change: Change::Fold,
                pagemap: &pagemap,
                policy: &policy,
                frames,
            });
        }
        self.fold_by(&pagemap, &policy, frames)
    }

    pub(super) fn surveyed(&self, pages: &Range<u64>, policy: &Policy) -> (Expected, u64, u64) {
        match self.model.survey(pages, policy.order) {
            _ if self.model.packs(policy) => (Err(ErrorKind::Unsupported), 0, 0),
            Ok((folded, unfolded)) => (Ok(()), folded, unfolded),
            Err(FoldRefusal::Packed) => (Err(ErrorKind::Unsupported), 0, 0),
            Err(FoldRefusal::NotOnline) => (Err(ErrorKind::NotOnline), 0, 0),
            Err(FoldRefusal::OtherTails) => (Err(ErrorKind::Overlap), 0, 0),
        }
    }

    /// What is answered where pages are to have another order: readers find whole pages, so a part of one is
    /// refused, before anything else is looked at.
    fn as_whole(&self, pages: &Range<u64>, expected: Expected) -> Expected {
        match pages.clone().all(|page| self.model.cell(page).is_ours()) {
            false => Err(ErrorKind::NotOnline),
            true if !self.model.are_whole(pages) => Err(ErrorKind::Misaligned),
            true => expected,
        }
    }

    pub(super) fn fold_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        policy: &Policy,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("fold {pages:?} {policy:?}");
        self.touched = pages.clone();
        let (mut expected, folded, unfolded) = self.surveyed(&pages, policy);
        if self.model.tails_of(policy) == Tails::None {
            expected = Err(ErrorKind::Unsupported);
        }
        let expected = self.as_whole(&pages, expected);
        self.speculate(&pages);
        let done = self.attempt(expected, FoldError::kind, |churn| {
            churn.vmemmap.fold(&mut churn.table, pagemap, frames)
        })?;
        let Some(done) = done else { return Ok(()) };
        if (done.changed, done.unchanged) != (unfolded, folded) {
            return Err(format!("{done:?} instead of {unfolded} and {folded}"));
        }
        self.tally.folded += unfolded;
        self.model.fold(&pages, policy);
        Ok(())
    }

    pub(super) fn unfold(&mut self) -> Result<(), String> {
        let most = match self.rng.u64(..self.world.layout.huge_leaves_of) {
            0 => 2 * self.world.layout.table,
            _ => FEW,
        };
        let folded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            let survey = churn.model.survey(pages, policy.order);
            pages.end - pages.start <= most && survey.is_ok_and(|(folded, _)| folded > 0)
        };
        let (pagemap, policy, frames) = self.target(Self::unit, folded)?;
        let pages = self.world.layout.pages_of(frames);
        // What is unfolded gets frames of its own.
        if pages.end - pages.start > most {
            return Ok(());
        }
        if self.freezes(&pages) {
            return self.change_frozen(&FrozenChange {
                change: Change::Unfold,
                pagemap: &pagemap,
                policy: &policy,
                frames,
            });
        }
        self.unfold_by(&pagemap, &policy, frames)
    }

    pub(super) fn unfold_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        policy: &Policy,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("unfold {pages:?} {policy:?}");
        self.touched = pages.clone();
        let was_armed = self.armed;
        let (expected, folded, unfolded) = self.surveyed(&pages, policy);
        self.speculate(&pages);
        let done = self.attempt(expected, FoldError::kind, |churn| {
            churn.vmemmap.unfold(&mut churn.table, pagemap, frames)
        })?;
        let Some(done) = done else { return Ok(()) };
        if (done.changed, done.unchanged) != (folded, unfolded) {
            return Err(format!("{done:?} instead of {folded} and {unfolded}"));
        }
        let huge = self.huge_among(self.model.joins(&pages, policy), was_armed)?;
        self.tally.unfolded += folded;
        self.tally.joined += huge.len() as u64;
        self.model.unfold(&pages, &huge);
        Ok(())
    }

    pub(super) fn reshape(&mut self) -> Result<(), String> {
        let unfolded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            pages.end - pages.start <= FEW
                && matches!(churn.model.survey(pages, policy.order), Ok((0, _)))
        };
        let (pagemap, policy, frames) = self.target(Self::unit, unfolded)?;
        let pages = self.world.layout.pages_of(frames);
        if self.freezes(&pages) {
            return self.change_frozen(&FrozenChange {
                change: Change::Reshape,
                pagemap: &pagemap,
                policy: &policy,
                frames,
            });
        }
        self.act = format!("reshape {pages:?} {policy:?}");
        self.touched = pages.clone();
        let expected = match self.surveyed(&pages, &policy) {
            (Ok(()), 0, _) if !self.model.has_tails_behind(&pages) => Ok(()),
            (Ok(()), ..) => Err(ErrorKind::Overlap),
            (refused, ..) => refused,
        };
        let expected = self.as_whole(&pages, expected);
        let answer = self.vmemmap.reshape(&self.table, &pagemap, frames);
        if self
            .judge(answer.map_err(|error| error.kind()), expected)?
            .is_some()
        {
            self.tally.reshaped += 1;
            self.model.reshape(&pages, policy.order);
        }
        Ok(())
    }
}
