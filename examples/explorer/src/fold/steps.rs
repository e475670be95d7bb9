//! The steps on a machine, one after the other, and what is checked after each.

use super::FoldRequest;
use super::heads;
use super::parts::Parts;
use super::report::{FoldReport, Step};
use crate::altmap;
use crate::audit::{Auditor, Snapshot};
use crate::failure::Failure;
use crate::need::Need;
use crate::notes;
use crate::progress::Progress;
use crate::refusal::Running;
use crate::report::{AfterError, AfterOffline};
use crate::simulation::{Mapped, Simulation, timed};
use crate::size::ByteRange;
use mm_core::addr::PfnRange;
use mm_core::pagemap::{DevPagemap, Geometry, Heads};
use mm_core::paging::{InUse, Replacement};
use mm_core::vmemmap::{FoldError, Folded, Note, Notes};
use std::time::Duration;

/// A machine on which a region is folded and unfolded, and what has come of it so far.
pub(super) struct Steps<'r, 'p> {
    simulation: &'r Simulation,
    /// The region in base pages, and in compound pages.
    base: &'r DevPagemap<'p>,
    compound: &'r DevPagemap<'p>,
    parts: Parts,
    auditor: Auditor<'r>,
    running: &'r Running<'r>,
    report: &'r mut FoldReport,
}

/// How many steps progress is made of.
pub(super) const COUNT: usize = 5;

impl<'r, 'p> Steps<'r, 'p> {
    pub(super) fn new(
        simulation: &'r Simulation,
        (base, compound): (&'r DevPagemap<'p>, &'r DevPagemap<'p>),
        need: &Need,
        running: &'r Running<'r>,
        report: &'r mut FoldReport,
    ) -> Self {
        report.enter_policies(compound, simulation.facts.shares_tables);
        Self {
            simulation,
            base,
            compound,
            parts: Parts::of(compound),
            auditor: Auditor::new(simulation, need),
            running,
            report,
        }
    }

    /// Brings the region online in base pages, folds and unfolds it, and takes it offline.
    pub(super) fn run(
        mut self,
        request: &FoldRequest,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let mut mapped = self.simulation.start()?;
        self.say_what_is_known();
        if !request.quiesce && mapped.0.replacement() == Replacement::Direct {
            let name = self.simulation.facts.name;
            self.report.note(format_args!(
                "{name} exchanges entries in use by single stores; it needs no quiesce hook"
            ));
        }
        if let Some(allocations) = request.region.fail_after {
            self.simulation.machine.frames().fail_after(allocations);
        }

        progress.step("bringing memory online", 1, COUNT);
        let (table, vmemmap) = &mut mapped;
        let (region, time) = timed(|| vmemmap.online(table, self.base));
        let region = match region {
            Ok(region) => region,
            Err(error) => {
                let failure = self.running.online(error);
                let failure = failure.while_doing("bringing it online in base pages");
                return Err(self.fail(Step::Online, &mapped, failure));
            }
        };
        self.report
            .notes_of(Step::Online, region.notes(), self.running.granule);
        let mut seen = self.look(Step::Online, &mapped);
        self.enter(Step::Online, &mapped, &seen, time);
        self.check_heads(Step::Online, &mapped);

        for (done, step) in [(2, Step::Fold), (3, Step::Unfold)] {
            progress.step(doing(step), done, COUNT);
            match self.change(step, &mut mapped, seen) {
                Ok(after) => seen = after,
                Err(failure) => {
                    let (table, vmemmap) = &mut mapped;
                    vmemmap.offline(table, region).map_err(Failure::host)?;
                    return Err(self.fail(step, &mapped, failure));
                }
            }
        }
        self.expect_frames_of_the_start();

        progress.step("taking it offline", 4, COUNT);
        let (table, vmemmap) = &mut mapped;
        let (offlined, offline) = timed(|| vmemmap.offline(table, region));
        offlined.map_err(Failure::host)?;
        self.report.offline = Some(offline);
        self.report.after_offline = AfterOffline {
            frames: Some(self.auditor.outstanding()),
        };
        self.auditor
            .expect_nothing(&mapped.1, &mapped.0, "after offline");
        if let Some(allocations) = request.region.fail_after {
            self.report.note(notes::never_failed(allocations));
        }
        self.report.audit = Some(self.auditor.result());
        Ok(())
    }

    /// Notes what is done otherwise than asked, as far as that is known before.
    fn say_what_is_known(&mut self) {
        let granule = self.compound.model().granule();
        let facts = &self.simulation.facts;
        let ahead = Notes::known_ahead(self.compound, facts.huge_leaf, facts.shares_tables);
        // What lies behind the reserved part is said with it.
        let others = ahead
            .iter()
            .filter(|note| !matches!(note, Note::AltmapGap { .. }));
        others.for_each(|note| self.report.note(notes::text(&note, granule)));
        if let (Some(left_out), Some(altmap)) = (self.parts.left_out, self.compound.altmap()) {
            let [left_out, reserved] =
                [left_out, altmap.reserved()].map(|frames| ByteRange::of(frames, granule));
            let gap = match left_out == reserved {
                true => "",
                false => ", and whole compound pages begin only there",
            };
            self.report.note(format_args!(
                "{left_out} stays base pages and is left out of the fold: {reserved} is reserved for the altmap{gap}"
            ));
        }
    }

    /// Folds or unfolds all parts of the region, which was as in `before`, and says what it is like
    /// then.
    fn change(
        &mut self,
        step: Step,
        mapped: &mut Mapped<'r>,
        before: Snapshot,
    ) -> Result<Snapshot, Failure> {
        let parts = self.parts.folded.clone();
        let mut seen = before;
        let mut took = Duration::ZERO;
        let mut all = Folded::default();
        for part in parts {
            let (done, time) = match self.packs() {
                true => self.reorder(step, mapped, part),
                false => {
                    let (table, vmemmap) = &mut *mapped;
                    timed(|| match step {
                        Step::Unfold => vmemmap.unfold(table, self.compound, part),
                        _ => vmemmap.fold(table, self.compound, part),
                    })
                }
            };
            let after = self.look(step, mapped);
            match done {
                Ok(done) => {
                    self.report
                        .notes_of(step, &done.notes, self.running.granule);
                    all.changed += done.changed;
                    all.unchanged += done.unchanged;
                    all.flushes += done.flushes;
                }
                Err(error) => {
                    self.auditor
                        .expect_as_before(&seen, &after, "after the error");
                    return Err(self.failure_of(step, part, error));
                }
            }
            took += time;
            seen = after;
        }
        self.enter(step, mapped, &seen, took);
        self.report.enter_change(step, &all);
        let pages = self.parts.compound_pages(self.compound.geometry().order());
        if (all.changed, all.unchanged) != (pages, 0) {
            let (changed, name) = (all.changed, step.name());
            self.auditor.add(
                name,
                format_args!("{changed} compound pages of {pages} were changed"),
            );
        }
        self.check_heads(step, mapped);
        Ok(seen)
    }

    /// Whether heads are packed. Folding is a change of order then: pages whose heads are elsewhere are no longer
    /// what they were, with shared tails.
    fn packs(&self) -> bool {
        self.compound.heads().0 == Heads::Packed
    }

    /// Changes the order of `part`, to compound pages or back to base pages, with a reserve that has all that it
    /// can take. Filling it is not timed: a kernel does that before.
    fn reorder(
        &mut self,
        step: Step,
        mapped: &mut Mapped<'r>,
        part: PfnRange,
    ) -> (Result<Folded, FoldError>, Duration) {
        let to = match step {
            Step::Unfold => self.base,
            _ => self.compound,
        };
        let (table, vmemmap) = &mut *mapped;
        let order = self.compound.geometry().order();
        let needed = vmemmap.reserve_needed(table, to, part, order);
        let filled = match vmemmap.fill_reserve(table, to.node(), needed) {
            Ok(filled) => filled,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        let (done, took) = timed(|| vmemmap.reorder(table, to, part));
        vmemmap.empty_reserve(table);
        self.report.notes_of(step, &filled, self.running.granule);
        let changed = done.map(|done| Folded {
            changed: part.frames() >> order.get(),
            flushes: done.flushes,
            notes: done.notes,
            ..Folded::default()
        });
        (changed.map_err(|stopped| stopped.error), took)
    }

    fn failure_of(&self, step: Step, part: PfnRange, error: FoldError) -> Failure {
        let part = ByteRange::of(part, self.compound.model().granule());
        let failure = self.running.fold(error);
        failure.while_doing(format_args!("{} {part}", doing(step)))
    }

    /// Enters why a step was not done. Everything is offline now.
    fn fail(&mut self, step: Step, mapped: &Mapped<'r>, failure: Failure) -> Failure {
        self.auditor
            .expect_nothing(&mapped.1, &mapped.0, "after the error");
        self.report.failed_step = Some(step);
        self.report.after_error = Some(AfterError {
            frames: self.auditor.outstanding(),
            audit: self.auditor.result(),
        });
        failure
    }

    fn look(&mut self, step: Step, mapped: &Mapped<'r>) -> Snapshot {
        let ranges = self.compound.ranges();
        self.auditor.look(&mapped.1, &mapped.0, ranges, step.name())
    }

    fn enter(&mut self, step: Step, mapped: &Mapped<'r>, seen: &Snapshot, took: Duration) {
        let in_altmap = self.simulation.altmap.as_ref().map_or(0, altmap::used);
        self.report
            .enter_step(step, seen.counted.as_ref(), in_altmap, &mapped.1, took);
    }

    /// Each page of what is folded has the head that it has to have after `step`.
    fn check_heads(&mut self, step: Step, mapped: &Mapped<'r>) {
        let geometry = match step {
            Step::Online => Geometry::BASE_PAGES,
            Step::Unfold if self.packs() => Geometry::BASE_PAGES,
            Step::Fold | Step::Unfold => self.compound.geometry(),
        };
        let order = self.compound.geometry().order();
        let pages = self.parts.folded.iter().copied();
        let wrong = heads::first_wrong(&mapped.1, &mapped.0, pages, order, geometry.order());
        if let Some(frame) = wrong {
            self.auditor
                .add(step.name(), format_args!("frame {frame} has a wrong head"));
        }
    }

    /// What unfolding leaves is what there was at the start, unless it was noted that it is not.
    fn expect_frames_of_the_start(&mut self) {
        let report = &*self.report;
        if report.unfolded != report.base && !report.lacked_huge_leaves {
            self.auditor
                .add("unfold", "the frames are not those of before the fold");
        }
    }
}

/// What is being done in a step after the first.
const fn doing(step: Step) -> &'static str {
    match step {
        Step::Unfold => "unfolding",
        _ => "folding",
    }
}
