//! What is in use at one time, by the audit's count and by the allocators'.

use super::Session;
use super::problem::Problem;
use crate::{Cost, Probe, Report};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::paging::PageTable;

/// What is in use at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// By the audit's count, but for what comes from the altmap, which counts that itself.
    pub(super) used: Cost,
    /// Frames that hold marks.
    pub(super) mark_frames: u64,
    /// Frames that the allocator of RAM has.
    pub(super) free: u64,
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// Counts what is in use now.
    pub(super) fn usage(&mut self, report: &mut Report<'_>) -> Usage {
        let ram: &dyn InspectFrames = self.on.frames;
        let both = [self.altmap.unwrap_or(ram), ram];
        let audit = match self.altmap {
            Some(_) => self.vmemmap.audit(&*self.table, &both, self.scratch),
            None => self.vmemmap.audit(&*self.table, &[ram], self.scratch),
        };
        let found = audit.unwrap_or_else(|finding| {
            report.check("audit", Err(Problem::Audit(finding)));
            Default::default()
        });
        let altmap = self.altmap.and_then(InspectFrames::outstanding);
        Usage {
            used: Cost {
                descriptor_frames: found.descriptor_frames,
                leaf_tables: found.leaf_tables,
                upper_tables: found.upper_tables,
                count_frames: found.count_frames,
                altmap_frames: altmap.unwrap_or(0) + found.count_frames,
            },
            mark_frames: found.mark_frames,
            free: self.on.frames.allocator().allocator().free_frames(),
        }
    }

    /// Checks that `expected` is in use beyond what was before, and says what is.
    pub(super) fn check_cost(
        &mut self,
        expected: Cost,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Option<Cost> {
        let now = self.usage(report);
        let found = now.used.since(&before.used);
        let outcome = match found {
            Some(found) if found == expected => Ok(()),
            found => Err(Problem::Cost { found, expected }),
        };
        report.check("frames used", outcome);
        let marks = now.mark_frames.saturating_sub(before.mark_frames);
        let out = before.free.saturating_sub(now.free);
        let expected = expected.ram_frames() + marks;
        let outcome = (out == expected).then_some(());
        report.check(
            "frames taken from the allocator",
            outcome.ok_or(Problem::Taken { out, expected }),
        );
        found
    }

    /// Checks that the same frames are in use as before.
    pub(super) fn check_unchanged(&mut self, what: &str, before: Usage, report: &mut Report<'_>) {
        let now = self.usage(report);
        let outcome = (now == before).then_some(());
        report.check(what, outcome.ok_or(Problem::Changed { before, now }));
    }
}
