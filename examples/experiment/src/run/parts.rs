//! Part of a range offline and online again, while the rest is in use.
//!
//! A subsection has few vmemmap pages, so that the backend may flush them one by one, and the table
//! that they are in stays.

use super::Session;
use super::problem::Problem;
use super::usage::Usage;
use crate::case::Case;
use crate::cost::split_span_at;
use crate::{Cost, Probe, Report};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::{InUse, PageTable, Replacement};
use mm_core::vmemmap::OfflineError;

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// Takes the first subsection of the case, then one in the middle, then the last one, offline
    /// and brings it online again. Nothing else may change, and in the end all is as it was, but
    /// for the tables that were made of huge leaves and of shared tables. A page table that cannot
    /// exchange entries in use refuses what needs these.
    pub(super) fn check_parts(
        &mut self,
        case: &Case,
        pagemap: &DevPagemap<'_>,
        mut expected: Cost,
        before: Usage,
        report: &mut Report<'_>,
    ) {
        let unit = self.on.model.subsection();
        let start = case.range.start();
        let middle = start.saturating_add(case.range.frames() / 2);
        let mut split = None;
        for first in [start, middle, case.range.last()] {
            let Ok(part) = PfnRange::new(first.align_down(unit), unit.frames()) else {
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
            // There are more links of a shared table than parts here, so that it stays.
            let span = split_span_at(case, part.range, &self.on.model, &self.on.shape);
            if span.is_some() && span != split && !self.refuses_to_split(case, &part) {
                split = span;
                expected.leaf_tables += 1;
            }
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
        let outcome = self.vmemmap.depopulate(self.table, pagemap, part.range);
        match outcome {
            Ok(_) => self.all_fault(part)?,
            Err(OfflineError::SplitsHugeLeaf { .. } | OfflineError::SplitsSharedTable { .. })
                if self.refuses_to_split(case, part) =>
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
        if !self.refuses_to_split(case, part) {
            self.vmemmap
                .populate(self.table, pagemap, part.range)
                .map_err(Problem::Online)?;
        }
        self.all_readable(case)
    }

    /// Whether the part cannot go offline, since entries in use would have to be exchanged.
    fn refuses_to_split(&self, case: &Case, part: &Case) -> bool {
        self.table.replacement() == Replacement::Refused
            && split_span_at(case, part.range, &self.on.model, &self.on.shape).is_some()
    }
}

/// The part of `range` from `first` on.
fn rest_of(range: PfnRange, first: Pfn) -> Option<PfnRange> {
    let done = first.get().checked_sub(range.start().get())?;
    range.split_at(done).1.filter(|_| done < range.frames())
}
