//! Memory that runs out half-way: nothing is left, and no page is mapped.

use super::Session;
use super::problem::Problem;
use super::usage::Usage;
use crate::case::Case;
use crate::{Cost, Probe, Report};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::DirectMap;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;

/// One page of so many is loaded from where it is refused early.
const FEWER_PAGES: u64 = 16;

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// Brings the case online with too few frames: none, one, half of what it needs, one too few.
    pub(super) fn check_refusals(
        &mut self,
        case: &Case,
        pagemap: &DevPagemap<'_>,
        expected: Cost,
        before: Usage,
        report: &mut Report<'_>,
    ) {
        let needed = expected.ram_frames().min(before.free + 1);
        for limit in [0, 1, needed / 2, needed.saturating_sub(1)] {
            if limit >= needed {
                continue;
            }
            self.on.frames.allocator().set_frame_limit(Some(limit));
            let outcome = self.must_refuse(pagemap, ErrorKind::OutOfFrames);
            self.on.frames.allocator().set_frame_limit(None);
            report.check("too few frames are refused", outcome);
            self.check_unchanged("a refusal leaves nothing", before, report);
            // The later it is refused, the more was mapped. The tables are empty, as was seen; a fault takes long.
            let one_of = if limit + 1 == needed { 1 } else { FEWER_PAGES };
            report.check("a refusal maps nothing", self.each_faults(case, one_of));
        }
    }

    /// Brings `pagemap` online, which has to be refused with an error of this kind.
    pub(super) fn must_refuse(
        &mut self,
        pagemap: &DevPagemap<'_>,
        kind: ErrorKind,
    ) -> Result<(), Problem> {
        match self.vmemmap.online(self.table, pagemap) {
            Ok(region) => {
                let offlined = self.vmemmap.offline(self.table, region);
                offlined.map_err(Problem::Offline)?;
                Err(Problem::ShouldRefuse)
            }
            Err(error) if error.kind() == kind => Ok(()),
            Err(error) => Err(Problem::Online(error)),
        }
    }
}
