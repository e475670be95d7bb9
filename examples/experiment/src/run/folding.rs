//! Memory that is in use folded and unfolded: the CPU looks at it before, in between and after.
//!
//! ```text
//!   online as base pages ▶ marked ▶ fold ▶ unfold ▶ base pages again ▶ a part of a huge leaf ▶ offline
//!   frames:   those of the start    compound pages'    the start's                the start's    none
//! ```

use super::problem::{Problem, equal};
use super::table::{Ending, FOLDS, FoldFigures};
use super::usage::Usage;
use super::{Experiment, Session, Subject};
use crate::case::{Case, Fold, Leaves, described_by_leaf, folds};
use crate::{Cost, Probe, Report};
use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::pagemap::{DevPagemap, Tables, Tails};
use mm_core::paging::{InUse, PageTable, Replacement};
use mm_core::vmemmap::{FoldError, Folded};

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// Everything that is folded, while nothing else is online: so the frames of a row are all that
    /// the vmemmap costs.
    pub(super) fn run_folds(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        report.line(format_args!("{FOLDS}"));
        let (model, shape) = (self.on.model, self.on.shape);
        for fold in folds(&model, &shape, subject) {
            if fold.folded.needs_same_tails() {
                self.run_fold::<Mask>(&fold, report);
            } else {
                self.run_fold::<Pointer>(&fold, report);
            }
        }
    }

    /// On a page table whose entries in use cannot be exchanged: folds and unfolds are refused.
    pub fn run_refused_folds(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        report.line(format_args!("entries in use cannot be exchanged:"));
        let (model, shape) = (self.on.model, self.on.shape);
        let small = |fold: &Fold| fold.base.leaves == Leaves::Small;
        for fold in folds(&model, &shape, subject).filter(small) {
            let Some(mut session) = self.session::<Mask>(None, report) else {
                return;
            };
            let before = session.usage(report);
            let outcome = session.refuses_to_fold(&fold, report);
            report.check("refused", outcome);
            session.check_unchanged("all frames are back", before, report);
            let ending = Ending::of(report);
            report.line(format_args!("{fold} refused  {ending}"));
        }
    }

    fn run_fold<E: TailEncoding>(&mut self, fold: &Fold, report: &mut Report<'_>) {
        let Some(mut session) = self.session::<E>(None, report) else {
            return;
        };
        let before = session.usage(report);
        let needed = session.cost(&fold.base).frames();
        // Unfolding has all of its frames before it gives any back.
        if 2 * needed > before.free {
            return report.skip(
                format_args!("{fold} fold"),
                format_args!("RAM has no room for twice {needed} frames"),
            );
        }
        let figures = session.fold_and_unfold(fold, before, report);
        let figures = figures.unwrap_or_else(|problem| {
            report.check("fold and unfold", Err(problem));
            FoldFigures::default()
        });
        session.check_unchanged("all frames are back", before, report);
        let (start, size) = session.mebibytes(fold.base.range);
        let ending = Ending::of(report);
        report.line(format_args!(
            "{fold} {start:>7}+{size:<6} {figures}  {ending}"
        ));
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// What `case` costs where nothing else is online.
    fn cost(&self, case: &Case) -> Cost {
        Cost::of(case, &[], &self.on.model, &self.on.shape)
    }

    fn fold_and_unfold(
        &mut self,
        fold: &Fold,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Result<FoldFigures, Problem> {
        let Fold { base, folded } = fold;
        let (as_base, as_compound) = self.pagemaps(fold)?;
        let online = self.vmemmap.online(self.table, &as_base);
        let region = online.map_err(Problem::Online)?;
        report.check("as asked", super::cases::as_asked(&region));
        let mut figures = FoldFigures {
            base: self.check_cost(self.cost(base), before, report),
            ..FoldFigures::default()
        };
        report.check("descriptors through the MMU", self.all_readable(base));
        let marked = self.mark(base, report);
        report.check("kept", self.keep(folded));
        report.check("left behind", self.leave_behind(folded));
        let start = self.usage(report);

        let needed = self.needed_to_fold(fold);
        self.check_refused(fold, (Self::fold, needed), &as_compound, start, report);
        report.check("descriptors are as before", self.all_readable(base));
        figures.fold_flushes = self.exchange(Self::fold, &as_compound, base.range, report);
        figures.folded = self.check_cost(self.cost(folded), before, report);
        report.check("what is kept", self.is_kept(folded));
        self.check_contents(folded, report);
        report.check("read-only tails", self.tails_refuse_stores(folded));
        report.check("marks stay", self.marks_hold(marked));

        report.check("kept", self.keep(folded));
        let in_between = self.usage(report);
        let needed = self.needed_to_unfold(fold);
        self.check_refused(
            fold,
            (Self::unfold, needed),
            &as_compound,
            in_between,
            report,
        );
        figures.unfold_flushes = self.exchange(Self::unfold, &as_compound, base.range, report);
        figures.unfolded = self.check_cost(self.cost(base), before, report);
        self.check_unchanged("the frames of the start", start, report);
        report.check("what is kept", self.is_kept(folded));
        self.check_contents(&fold.unfolded(), report);
        report.check("marks stay", self.marks_hold(marked));

        let again = self.reshape(base, &as_base, base.range);
        report.check("base pages again", again);
        if self.has_parts_of_leaves(fold) {
            let outcome = self.fold_a_part(fold, before, report);
            report.check("a part", outcome);
            self.check_unchanged("the frames of the start", start, report);
        }
        let offlined = self.vmemmap.offline(self.table, region);
        let outcome = offlined
            .map_err(Problem::Offline)
            .and_then(|offlined| equal("marked frames", offlined.marked, marked.count()));
        report.check("marks are reported", outcome);
        report.check("every page faults", self.all_fault(base));
        Ok(figures)
    }

    /// What the memory is asked for as at first, and what it is folded as: with the huge leaves of
    /// the start to be brought back.
    fn pagemaps<'f>(&self, fold: &'f Fold) -> Result<(DevPagemap<'f>, DevPagemap<'f>), Problem> {
        let pagemap = |case: &'f Case| case.pagemap(&self.on.model).map_err(Problem::Pagemap);
        let huge_leaves = fold.base.leaves == Leaves::Huge;
        let folded = pagemap(&fold.folded)?.with_huge_leaves(huge_leaves);
        Ok((pagemap(&fold.base)?, folded))
    }

    pub(super) fn fold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        range: PfnRange,
    ) -> Result<Folded, FoldError> {
        self.vmemmap.fold(self.table, pagemap, range)
    }

    pub(super) fn unfold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        range: PfnRange,
    ) -> Result<Folded, FoldError> {
        self.vmemmap.unfold(self.table, pagemap, range)
    }

    /// Folds or unfolds all compound pages of `range`, and says how many flushes that took, by its
    /// own word and by the MMU's. Where break-before-make is the rule, CPUs were kept away for each
    /// batch.
    pub(super) fn exchange(
        &mut self,
        work: Exchange<Self>,
        pagemap: &DevPagemap<'_>,
        range: PfnRange,
        report: &mut Report<'_>,
    ) -> u64 {
        let (flushes, quiesces) = (self.on.record.flushes(), self.on.record.quiesces());
        let done = match work(self, pagemap, range) {
            Ok(done) => done,
            Err(error) => {
                report.check("fold or unfold", Err(Problem::Fold(error)));
                return 0;
            }
        };
        let count = range.frames() / pagemap.geometry().order().frames();
        let changed = equal("compound pages changed", done.changed, count);
        report.check("all are changed", changed);
        report.check(
            "as asked",
            match done.notes.iter().next() {
                None => Ok(()),
                Some(note) => Err(Problem::Note(note)),
            },
        );
        let flushes = self.on.record.flushes() - flushes;
        report.check("flushes", equal("flushes", flushes, done.flushes));
        let expected = match self.table.replacement() {
            Replacement::BreakBeforeMake => flushes,
            _ => 0,
        };
        let quiesces = self.on.record.quiesces() - quiesces;
        report.check("quiesces", equal("quiesces", quiesces, expected));
        flushes
    }

    /// With too few frames for what needs `needed`: refused, and nothing has changed.
    fn check_refused(
        &mut self,
        fold: &Fold,
        (work, needed): (Exchange<Self>, u64),
        pagemap: &DevPagemap<'_>,
        before: Usage,
        report: &mut Report<'_>,
    ) {
        let flushes = self.on.record.flushes();
        for limit in [0, needed / 2, needed.saturating_sub(1)] {
            if limit >= needed {
                continue;
            }
            self.on.frames.allocator().set_frame_limit(Some(limit));
            let outcome = work(self, pagemap, fold.base.range);
            self.on.frames.allocator().set_frame_limit(None);
            let outcome = match outcome {
                Err(FoldError::OutOfFrames(_)) => Ok(()),
                Err(error) => Err(Problem::Fold(error)),
                Ok(_) => Err(Problem::ShouldRefuse),
            };
            report.check("too few frames are refused", outcome);
            self.check_unchanged("a refusal changes nothing", before, report);
        }
        let flushes = self.on.record.flushes() - flushes;
        report.check("a refusal flushes nothing", equal("flushes", flushes, 0));
    }

    /// How many frames a fold needs: a table for each huge leaf, and the tail for all.
    fn needed_to_fold(&self, fold: &Fold) -> u64 {
        let tables = self.cost(&Case {
            tables: Tables::Private,
            ..fold.folded
        });
        let tables = tables.leaf_tables - self.cost(&fold.base).leaf_tables;
        tables + u64::from(fold.folded.tails == Tails::PerOrder)
    }

    /// How many frames an unfold cannot do without: where huge leaves are to come back it makes do
    /// with a table's worth of single frames for each.
    fn needed_to_unfold(&self, fold: &Fold) -> u64 {
        let Fold { base, folded } = fold;
        let frames = self.cost(base).descriptor_frames - self.cost(folded).descriptor_frames;
        match base.leaves {
            // All blocks are refused, and so is the second single frame.
            Leaves::Huge => frames.min(2),
            Leaves::Small => frames,
        }
    }

    /// Every vmemmap page of `case` by the MMU; heads; and who sees what is written.
    fn check_contents(&self, case: &Case, report: &mut Report<'_>) {
        report.check("descriptors through the MMU", self.all_readable(case));
        report.check("heads", self.heads_are_found(case));
        report.check("nothing kept", self.keep_nothing(case));
        report.check("written and seen", self.written_is_seen(case, &[]));
    }

    /// Makes base pages of unfolded compound pages.
    fn reshape(
        &mut self,
        base: &Case,
        as_base: &DevPagemap<'_>,
        range: PfnRange,
    ) -> Result<(), Problem> {
        let reshaped = self.vmemmap.reshape(&*self.table, as_base, range);
        reshaped.map_err(Problem::Fold)?;
        self.all_readable(base)
    }

    /// Whether a compound page is only a part of what a huge leaf of the start describes.
    fn has_parts_of_leaves(&self, fold: &Fold) -> bool {
        let Fold { base, folded } = fold;
        let described = described_by_leaf(&self.on.model, &self.on.shape);
        base.leaves == Leaves::Huge && described.is_some_and(|leaf| folded.order < leaf)
    }

    /// Folds the second compound page alone, which is a part of what a huge leaf describes; then
    /// unfolds it, which leaves base pages there; then all of the range, which brings the leaf back.
    fn fold_a_part(
        &mut self,
        fold: &Fold,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        let Fold { base, folded } = fold;
        let (as_base, as_compound) = self.pagemaps(fold)?;
        let (first, rest) = base.range.split_at(folded.order.frames());
        let (part, rest) = match rest {
            Some(rest) => rest.take_first(folded.order.frames()),
            None => return Ok(()),
        };
        let others = || [first, rest].into_iter().flatten();
        let (one, all) = (
            Case {
                range: part,
                ..*folded
            },
            self.cost(base),
        );
        let unfolded = Case {
            range: part,
            ..fold.unfolded()
        };
        // The leaf's block is single frames below a table of their own.
        let split = Cost {
            leaf_tables: all.leaf_tables + 1,
            ..all
        };

        let done = self.fold(&as_compound, part).map_err(Problem::Fold)?;
        equal("compound pages folded", done.changed, 1)?;
        let spared = self
            .cost(&Case {
                range: part,
                ..*base
            })
            .descriptor_frames
            - self.cost(&one).descriptor_frames;
        let expected = Cost {
            descriptor_frames: all.descriptor_frames - spared,
            ..split
        };
        self.check_cost(expected, before, report);
        self.all_readable(&one)?;
        others().try_for_each(|range| self.all_readable(&Case { range, ..*base }))?;
        let neighbours = [first, rest].map(|range| Case {
            range: range.unwrap_or(part),
            ..*base
        });
        self.written_is_seen(&one, &neighbours)?;

        let done = self.unfold(&as_compound, part).map_err(Problem::Fold)?;
        equal("compound pages unfolded", done.changed, 1)?;
        self.check_cost(split, before, report);
        self.all_readable(&unfolded)?;
        self.reshape(base, &as_base, part)?;
        let done = self.unfold(&as_compound, base.range);
        let done = done.map_err(Problem::Fold)?;
        equal("compound pages unfolded", done.changed, 0)?;
        self.all_readable(base)
    }

    /// Comes online as base pages; then every fold and unfold of it is refused.
    fn refuses_to_fold(&mut self, fold: &Fold, report: &mut Report<'_>) -> Result<(), Problem> {
        let (as_base, as_compound) = self.pagemaps(fold)?;
        let online = self.vmemmap.online(self.table, &as_base);
        let region = online.map_err(Problem::Online)?;
        let before = self.usage(report);
        let flushes = self.on.record.flushes();
        for work in [Self::fold as Exchange<Self>, Self::unfold] {
            let outcome = match work(self, &as_compound, fold.base.range) {
                Err(FoldError::Refused) => Ok(()),
                Err(error) => Err(Problem::Fold(error)),
                Ok(_) => Err(Problem::ShouldRefuse),
            };
            report.check("refused", outcome);
            self.check_unchanged("a refusal changes nothing", before, report);
        }
        let flushes = self.on.record.flushes() - flushes;
        report.check("a refusal flushes nothing", equal("flushes", flushes, 0));
        report.check("descriptors are as before", self.all_readable(&fold.base));
        let offlined = self.vmemmap.offline(self.table, region);
        offlined.map_err(Problem::Offline)?;
        self.all_fault(&fold.base)
    }
}

/// A fold, or an unfold.
pub(super) type Exchange<S> = fn(&mut S, &DevPagemap<'_>, PfnRange) -> Result<Folded, FoldError>;
