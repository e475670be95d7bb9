//! Making each allocation of an operation fail in turn.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, equal, fail};
use mm_core::addr::{PfnRange, VirtAddr};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::paging::PageTable;
use mm_core::vmemmap::AuditReport;

/// More allocations than any operation of a check needs; a loop that comes here would not end.
const MANY: u64 = 1 << 16;

/// Up to so many allocations, each number of them is too few in turn. After that, some are.
const EACH: u64 = 1 << 8;

/// How everything is, as far as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    report: AuditReport,
    outstanding: u64,
    of_altmap: u64,
    marked: u64,
    fingerprint: u64,
    in_use: Option<VirtAddr>,
}

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    /// How everything is: what is mapped for `frames`, and all counts.
    pub(crate) fn snapshot(&mut self, frames: PfnRange) -> Result<Snapshot, Stop> {
        let range = self.model.descriptors(frames);
        Ok(Snapshot {
            report: self.audit()?,
            outstanding: self.outstanding(),
            of_altmap: self.altmap.and_then(|one| one.outstanding()).unwrap_or(0),
            marked: self.vmemmap.mark_stats().marked,
            fingerprint: self.fingerprint(frames)?,
            in_use: range.and_then(|range| self.table.first_in_use(range)),
        })
    }

    /// Checks that everything is as `before`.
    pub(crate) fn unchanged(&mut self, before: &Snapshot, frames: PfnRange) -> Result<(), Stop> {
        let now = self.snapshot(frames)?;
        equal(before.outstanding, now.outstanding, "frames that are out")?;
        equal(before.of_altmap, now.of_altmap, "frames of the altmap")?;
        equal(
            before.report.frames(),
            now.report.frames(),
            "frames that are in use",
        )?;
        equal(before.fingerprint, now.fingerprint, "what is mapped")?;
        match now == *before {
            true => Ok(()),
            false => fail("nothing has changed"),
        }
    }

    /// Does `operation` with every number of allocations that is too few, or with many such numbers,
    /// and then with one that is not. Each time that it fails it says that frames ran out, and nothing has changed, `frames`
    /// being what it is about. Answers with what came of it, and how often it failed.
    ///
    /// Nothing may be online that has a stake in the harness being able to do this: ask by
    /// [`needs_faults`](Self::needs_faults) first.
    pub(crate) fn failing_at_every_allocation<T>(
        &mut self,
        frames: PfnRange,
        mut operation: impl FnMut(&mut Self) -> Result<T, ErrorKind>,
    ) -> Result<(T, u64), Stop> {
        self.needs_faults()?;
        let before = self.snapshot(frames)?;
        let (mut allocations, mut failures) = (0, 0);
        while allocations < MANY {
            self.controls.fail_after(Some(allocations));
            let outcome = operation(self);
            self.controls.fail_after(None);
            match outcome {
                Ok(done) => return Ok((done, failures)),
                Err(ErrorKind::OutOfFrames) => self.unchanged(&before, frames)?,
                Err(_) => return fail("the error is about frames"),
            }
            failures += 1;
            allocations += 1 + allocations / EACH * (EACH / 4);
        }
        fail("enough frames are enough")
    }
}
