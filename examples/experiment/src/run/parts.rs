//! Part of a range offline and online again, while the rest is in use.
//!
//! A subsection has few vmemmap pages, so that the backend may flush them one by one, and the table that they are in stays.

use super::problem::Problem;
use super::{Experiment, Ledger};
use crate::case::Case;
use crate::cost::is_mapped_by_huge_leaf;
use crate::{Cost, Probe, Report};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::vmemmap::OfflineError;

impl<P: Probe, T: PageTable, M: DirectMap> Experiment<'_, P, T, M> {
    /// Takes the first subsection of the case, and then one in the middle, offline and brings it online again. Nothing else may change, and
    /// in the end all is as it was.
    pub(super) fn check_parts(
        &mut self,
        case: &Case,
        pagemap: &DevPagemap<'_>,
        expected: Cost,
        before: Ledger,
        report: &mut Report<'_>,
    ) {
        let unit = self.model.subsection();
        let start = case.range.start();
        let middle = start.saturating_add(case.range.frames() / 2);
        for first in [start, middle.align_down(unit)] {
            let Ok(part) = PfnRange::new(first, unit.frames()) else {
                continue;
            };
            let part = Case {
                range: part,
                ..*case
            };
            report.check(
                "a part goes offline",
                self.part_offline(case, &part, pagemap),
            );
            report.check("a part comes back", self.part_online(case, &part, pagemap));
            self.check_cost(expected, before, report);
        }
    }

    fn part_offline(
        &mut self,
        case: &Case,
        part: &Case,
        pagemap: &DevPagemap<'_>,
    ) -> Result<(), Problem> {
        // The CPU has it in its TLB.
        self.all_readable(case)?;
        self.all_readable(part)?;
        let outcome = self
            .vmemmap
            .depopulate(&mut self.table, pagemap, part.range);
        match outcome {
            Ok(_) => self.all_fault(part)?,
            Err(OfflineError::SplitsHugeLeaf { .. })
                if is_mapped_by_huge_leaf(case, part.range, &self.model, &self.spans) =>
            {
                return self.all_readable(part);
            }
            Err(error) => return Err(Problem::Offline(error)),
        }
        let rest = [
            case.range
                .split_at(part.range.start().get() - case.range.start().get())
                .0,
            part.range
                .last()
                .checked_add(1)
                .and_then(|first| rest_of(case.range, first)),
        ];
        for range in rest.into_iter().flatten() {
            self.all_readable(&Case { range, ..*case })?;
        }
        Ok(())
    }

    fn part_online(
        &mut self,
        case: &Case,
        part: &Case,
        pagemap: &DevPagemap<'_>,
    ) -> Result<(), Problem> {
        if !is_mapped_by_huge_leaf(case, part.range, &self.model, &self.spans) {
            self.vmemmap
                .populate(&mut self.table, pagemap, part.range)
                .map_err(Problem::Online)?;
        }
        self.all_readable(case)
    }
}

/// The part of `range` from `first` on.
fn rest_of(range: PfnRange, first: Pfn) -> Option<PfnRange> {
    let done = first.get().checked_sub(range.start().get())?;
    range.split_at(done).1.filter(|_| done < range.frames())
}
