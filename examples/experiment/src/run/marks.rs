//! Single frames marked: each by itself, whatever it shares with others, and whatever becomes of
//! the pages that it is part of.

use super::Session;
use super::problem::{Problem, equal};
use crate::case::Case;
use crate::{Probe, Report};
use mm_core::addr::{NodeId, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::vmemmap::MarkError;

/// Frames that are marked: a tail in the head's vmemmap page, one that shares its page, and the
/// last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked([Pfn; 3]);

impl Marked {
    pub(super) fn of(case: &Case, model: &MemoryModel) -> Self {
        let start = case.range.start();
        let middle = case.range.frames() / 2 + model.descriptors_per_page() + 7;
        Self([
            start.saturating_add(1),
            start.saturating_add(middle),
            case.range.last(),
        ])
    }

    /// How many there are.
    pub(super) const fn count(self) -> u64 {
        self.0.len() as u64
    }

    /// How many frames hold the marks, by arithmetic: half of a page of bits each.
    fn holders(self, model: &MemoryModel) -> u64 {
        let order = model.granule().shift() + 2;
        let block = |frame: Pfn| frame.get() >> order;
        let new = |index: &usize| {
            let others = self.0.iter().take(*index);
            self.0
                .get(*index)
                .is_some_and(|frame| others.clone().all(|other| block(*other) != block(*frame)))
        };
        (0..self.0.len()).filter(new).count() as u64
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// Marks frames of the case's range, first with no memory for it.
    pub(super) fn mark(&mut self, case: &Case, report: &mut Report<'_>) -> Marked {
        let marked = Marked::of(case, &self.on.model);
        let before = self.usage(report);
        self.on.frames.allocator().set_frame_limit(Some(0));
        let refused = self.mark_all(Marked([case.range.start(); 3]));
        self.on.frames.allocator().set_frame_limit(None);
        let outcome = match refused {
            Err(Problem::Mark(MarkError::OutOfFrames(_))) => Ok(()),
            Err(problem) => Err(problem),
            Ok(()) => Err(Problem::ShouldRefuse),
        };
        report.check("a mark without memory is refused", outcome);
        self.check_unchanged("a refused mark changes nothing", before, report);

        report.check("marked", self.mark_all(marked));
        report.check("marks of single frames", self.marks_hold(marked));
        let now = self.usage(report);
        let frames = now.mark_frames.saturating_sub(before.mark_frames);
        let taken = before.free.saturating_sub(now.free);
        let expected = marked.holders(&self.on.model);
        report.check("frames of marks", equal("of marks", frames, expected));
        report.check("frames of marks", equal("taken", taken, expected));
        marked
    }

    fn mark_all(&mut self, marked: Marked) -> Result<(), Problem> {
        for frame in marked.0 {
            let marked = self.vmemmap.mark(&*self.table, frame, NodeId::new(0));
            marked.map_err(Problem::Mark)?;
        }
        Ok(())
    }

    /// The frames are marked, and their neighbours are not, nor what shares a descriptor with them.
    pub(super) fn marks_hold(&self, marked: Marked) -> Result<(), Problem> {
        let is = |frame: Pfn, expected: bool| match self.vmemmap.is_marked(frame) {
            marked if marked == expected => Ok(()),
            marked => Err(Problem::Marked { frame, marked }),
        };
        let per_page = self.on.model.descriptors_per_page();
        for frame in marked.0 {
            is(frame, true)?;
            for distance in [1, per_page] {
                let neighbours = [
                    frame.get().checked_sub(distance).and_then(Pfn::new),
                    frame.checked_add(distance),
                ];
                for other in neighbours.into_iter().flatten() {
                    is(other, marked.0.contains(&other))?;
                }
            }
        }
        equal(
            "frames marked",
            self.vmemmap.mark_stats().marked,
            marked.count(),
        )
    }
}
