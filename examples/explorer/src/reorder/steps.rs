//! The steps on a machine, one after the other, and what is checked after each.

use super::ReorderReport;
use crate::audit::Auditor;
use crate::failure::Failure;
use crate::fold::first_wrong;
use crate::need::Need;
use crate::notes;
use crate::progress::Progress;
use crate::refusal::Running;
use crate::simulation::{MachineVmemmap, Mapped, Simulation, timed};
use arch_sim::SimFrames;
use hosted::AnyTable;
use mm_core::addr::PfnRange;
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::Reserve;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many steps progress is made of.
pub(super) const COUNT: usize = 5;

/// A change: of which parts, from pages as one pagemap says to pages as another one does.
pub(super) struct Way<'r, 'p> {
    pub(super) from: &'r DevPagemap<'p>,
    pub(super) to: &'r DevPagemap<'p>,
    pub(super) parts: Vec<PfnRange>,
}

/// A machine on which orders are changed, and what has come of it so far.
pub(super) struct Steps<'r, 'p> {
    simulation: &'r Simulation,
    there: Way<'r, 'p>,
    back: Way<'r, 'p>,
    auditor: Auditor<'r>,
    running: &'r Running<'r>,
    report: &'r mut ReorderReport,
    /// How often the allocator was called within changes.
    calls: Arc<AtomicU64>,
}

impl<'r, 'p> Steps<'r, 'p> {
    pub(super) fn new(
        simulation: &'r Simulation,
        (there, back): (Way<'r, 'p>, Way<'r, 'p>),
        need: &Need,
        running: &'r Running<'r>,
        report: &'r mut ReorderReport,
    ) -> Self {
        Self {
            simulation,
            there,
            back,
            auditor: Auditor::new(simulation, need),
            running,
            report,
            calls: Arc::default(),
        }
    }

    /// Brings the region online, changes its pages there and back, and takes it offline.
    pub(super) fn run(mut self, progress: &dyn Progress) -> Result<(), Failure> {
        let mut mapped = self.simulation.start()?;
        if let Some(allocations) = self.running.fail_after {
            self.frames().fail_after(allocations);
        }
        progress.step("bringing memory online", 1, COUNT);
        let (table, vmemmap) = &mut mapped;
        let region = vmemmap.online(table, self.there.from);
        let region = region.map_err(|error| self.running.online(error))?;
        let done = self.there_and_back(&mut mapped, progress);
        progress.step("taking it offline", 4, COUNT);
        let (table, vmemmap) = &mut mapped;
        vmemmap.empty_reserve(table);
        vmemmap.offline(table, region).map_err(Failure::host)?;
        self.auditor
            .expect_nothing(&mapped.1, &mapped.0, "after offline");
        self.report.frames_left = Some(self.auditor.outstanding());
        self.report.audit = Some(self.auditor.result());
        done
    }

    fn frames(&self) -> &'r SimFrames {
        self.simulation.machine.frames()
    }

    fn there_and_back(
        &mut self,
        mapped: &mut Mapped<'r>,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        progress.step("filling the reserve", 2, COUNT);
        let node = self.there.from.node();
        let (table, vmemmap) = &mut *mapped;
        let to_go = needed(vmemmap, table, &self.there);
        let to_return = needed(vmemmap, table, &self.back);
        self.report.reserve.needed = Some(self.simulation.frames_in(to_go));
        let filled = vmemmap.fill_reserve(table, node, plus(to_go, to_return));
        let filled = filled.map_err(|error| self.running.fold(error))?;
        let granule = self.running.granule;
        let noted = filled.iter().map(|note| notes::text(&note, granule));
        self.report.notes.extend(noted);
        self.report.frames_before = self.count(mapped, "online");

        progress.step("changing orders", 3, COUNT);
        self.count_calls();
        let before = self.simulation.frames_in(mapped.1.reserve(node));
        let there = self.change(mapped, true)?;
        let left = self.simulation.frames_in(mapped.1.reserve(node));
        self.report.reserve.used = Some(before.saturating_sub(left));
        self.report.there = Some(there);
        self.report.frames_after = self.count(mapped, "there");
        self.report.back = Some(self.change(mapped, false)?);
        self.frames().remove_hooks();
        self.report.allocator_calls = Some(self.calls.load(Ordering::Relaxed));
        self.report.frames_back = self.count(mapped, "back");
        if self.report.frames_back != self.report.frames_before {
            self.auditor.add("back", "not the frames of the start");
        }
        if let Some(allocations) = self.running.fail_after {
            self.report.notes.push(notes::never_failed(allocations));
        }
        Ok(())
    }

    /// Changes all parts of one way, and says how long that took.
    fn change(&mut self, mapped: &mut Mapped<'r>, is_there: bool) -> Result<Duration, Failure> {
        let way = if is_there { &self.there } else { &self.back };
        let (table, vmemmap) = &mut *mapped;
        let mut took = Duration::ZERO;
        for part in &way.parts {
            let (done, time) = timed(|| vmemmap.reorder(table, way.to, *part));
            let done = done.map_err(|stopped| self.running.fold(stopped.error))?;
            took += time;
            *self.report.flushes.get_or_insert(0) += done.flushes;
            let noted = done.notes.iter();
            let noted = noted.map(|note| notes::text(&note, self.running.granule));
            self.report.notes.extend(noted);
        }
        let order = way.to.geometry().order();
        let parts = way.parts.iter().copied();
        if let Some(frame) = first_wrong(vmemmap, table, parts, order, order) {
            let when = if is_there { "there" } else { "back" };
            self.auditor
                .add(when, format_args!("frame {frame} has another head"));
        }
        Ok(took)
    }

    /// Frames without those in reserve.
    fn count(&mut self, mapped: &Mapped<'r>, when: &str) -> Option<u64> {
        let counted = self.auditor.count(&mapped.1, &mapped.0, when)?;
        Some(counted.frames() - counted.reserve_frames)
    }

    /// Counts what the allocator hands out and takes back from now on.
    fn count_calls(&self) {
        let calls = self.calls.clone();
        self.frames().on_allocate(move |_| {
            let _ = calls.fetch_add(1, Ordering::Relaxed);
        });
        let calls = self.calls.clone();
        self.frames().on_free(move |_| {
            let _ = calls.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// What `way` needs at most.
fn needed(vmemmap: &MachineVmemmap<'_>, table: &AnyTable<'_>, way: &Way<'_, '_>) -> Reserve {
    let [from, to] = [way.from, way.to].map(|pagemap| pagemap.geometry().order());
    let parts = way.parts.iter();
    let each = parts.map(|part| vmemmap.reserve_needed(table, way.to, *part, from.max(to)));
    each.fold(Reserve::default(), plus)
}

fn plus(one: Reserve, other: Reserve) -> Reserve {
    Reserve {
        frames: one.frames + other.frames,
        tables: one.tables + other.tables,
        huge_leaves: one.huge_leaves + other.huge_leaves,
    }
}
