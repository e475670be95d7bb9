//! The conformance battery on what the kernel has: its live table, its allocator and its direct
//! map.

use super::Experiment;
use crate::{Frames, Probe, Report};
use conformance::{Failure, Harness, Outcome, Parts, Powers};
use mm_core::addr::{Granule, NodeId, PfnRange, VirtRange};
use mm_core::frame::DirectMap;
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::vmemmap::AuditSlot;

impl<P: Probe, T: PageTable, M: DirectMap> Experiment<'_, P, T, M> {
    /// Runs the battery with descriptors of `device`, while nothing is online. What it cannot do
    /// here is printed with the reason.
    pub fn run_battery(&mut self, device: PfnRange, report: &mut Report<'_>) {
        let mut battery = Battery {
            model: self.model,
            table: &mut self.table,
            frames: self.frames,
            direct_map: self.direct_map,
            powers: Live {
                probe: self.probe,
                frames: self.frames,
                granule: self.model.granule(),
            },
            device,
            scratch: self.scratch,
        };
        let mut skipped = 0;
        conformance::run(&mut battery, &mut |name, outcome| match outcome {
            Outcome::Passed => report.check::<Failure>(name, Ok(())),
            Outcome::Failed(failure) => report.check(name, Err(failure)),
            Outcome::Skipped(why) => {
                skipped += 1;
                report.line(format_args!("  skipped: {name}: {why}"));
            }
        });
        let (passed, failed) = report.end_row();
        report.line(format_args!(
            "conformance: {passed} passed, {failed} failed, {skipped} skipped"
        ));
    }
}

/// What the battery works with.
struct Battery<'b, 'm, P, T, M> {
    model: MemoryModel,
    table: &'b mut T,
    frames: &'m Frames<'m>,
    direct_map: &'b M,
    powers: Live<'b, 'm, P>,
    device: PfnRange,
    scratch: &'b mut [AuditSlot],
}

impl<'b, 'm, P: Probe, T: PageTable, M: DirectMap> Harness for Battery<'b, 'm, P, T, M> {
    type Table = T;
    type Frames = Frames<'m>;
    type DirectMap = M;
    type Powers = Live<'b, 'm, P>;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: self.model,
            table: self.table,
            frames: self.frames,
            direct_map: self.direct_map,
            powers: &self.powers,
            device: self.device,
            node: NodeId::new(0),
            altmap: None,
            scratch: self.scratch,
            // The vmemmap is the experiment's alone.
            ends_are_free: true,
        }
    }
}

/// What a running CPU and the kernel's allocator can do besides.
///
/// Not `translate`: a load says that something is mapped, but neither which frame nor whether it
/// can be executed. That pages fault which are not mapped is what the experiment looks at.
struct Live<'b, 'm, P> {
    probe: &'b P,
    frames: &'m Frames<'m>,
    granule: Granule,
}

impl<P: Probe, T> Powers<T> for Live<'_, '_, P> {
    fn fail_after(&self, n: Option<u64>) -> bool {
        self.frames.allocator().set_calls(n);
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.frames.allocator().refuse_blocks(fail);
        true
    }

    /// A load from every page.
    fn speculate(&self, _table: &T, range: VirtRange) {
        let page = self.granule.bytes();
        for index in 0..range.pages(self.granule) {
            if let Some(at) = range.start().checked_add(index * page) {
                // What is not mapped faults, and is not cached.
                let _ = self.probe.load(at);
            }
        }
    }
}
