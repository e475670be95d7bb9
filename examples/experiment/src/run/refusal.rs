//! Memory that runs out half-way: nothing is left, and no page is mapped.

use super::Session;
use super::ledger::Ledger;
use super::problem::Problem;
use crate::case::Case;
use crate::{Cost, Probe, Report};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap> Session<'_, E, P, T, M> {
    /// Brings the case online with too few frames: none, one, half of what it needs, one too few.
    pub(super) fn check_refusals(
        &mut self,
        case: &Case,
        pagemap: &DevPagemap<'_>,
        expected: Cost,
        before: Ledger,
        report: &mut Report<'_>,
    ) {
        let needed = expected.frames().min(before.free + 1);
        for ration in [0, 1, needed / 2, needed.saturating_sub(1)] {
            self.on.frames.allocator().set_ration(Some(ration));
            let outcome = self.vmemmap.online(self.table, pagemap);
            self.on.frames.allocator().set_ration(None);
            let outcome = match outcome {
                Ok(region) => {
                    self.vmemmap.offline(self.table, region);
                    Err(Problem::ShouldRefuse)
                }
                Err(error) if error.kind() == ErrorKind::OutOfFrames => Ok(()),
                Err(error) => Err(Problem::Online(error)),
            };
            report.check("too few frames are refused", outcome);
            self.check_unchanged("a refusal leaves nothing", before, report);
            report.check("a refusal maps nothing", self.all_fault(case));
        }
    }
}
