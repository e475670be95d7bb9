//! Both ways on machines of their own, step by step, and what is checked after each.

use super::report::{LazyReport, LazyWay};
use crate::audit::Auditor;
use crate::failure::Failure;
use crate::fold::first_wrong;
use crate::need::{Limits, Need};
use crate::progress::Progress;
use crate::request::FrameRequest;
use crate::simulation::{MachineVmemmap, Simulation, timed};
use hosted::{AnyTable, BackendKind};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::DevPagemap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many steps progress is made of.
const COUNT: usize = 4;

/// Brings all RAM online in base pages, and takes it offline again.
pub(super) fn eager(
    backend: BackendKind,
    frames: &FrameRequest<'_>,
    (pagemap, need): (&DevPagemap<'_>, &Need),
    limits: &Limits,
    report: &mut LazyReport,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    progress.step("bringing base pages online", 0, COUNT);
    let simulation = Simulation::new(backend, frames, None, need, limits, true)?;
    let mut auditor = Auditor::new(&simulation, need);
    let (mut table, mut vmemmap) = simulation.start()?;
    let (region, time) = timed(|| vmemmap.online(&mut table, pagemap));
    let region = region.map_err(Failure::host)?;
    report.eager.online = Some(time);
    let counted = auditor.count(&vmemmap, &table, "eager");
    report.eager.frames = counted.map(|counted| counted.frames());
    vmemmap
        .offline(&mut table, region)
        .map_err(Failure::host)
        .map(drop)
}

/// RAM that comes online in large pages.
pub(super) struct Steps<'s, 'p> {
    /// The page tables.
    pub(super) backend: BackendKind,
    /// As it comes online.
    pub(super) online: &'s DevPagemap<'p>,
    /// As what is used becomes, and as the rest of a page stays.
    pub(super) changed: &'s DevPagemap<'p>,
    /// What becomes base pages at a time.
    pub(super) block: Order,
    /// How many frames are used, from the first one on: whole blocks.
    pub(super) used: u64,
}

impl Steps<'_, '_> {
    pub(super) fn run(
        &self,
        frames: &FrameRequest<'_>,
        need: &Need,
        limits: &Limits,
        report: &mut LazyReport,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        progress.step("bringing large pages online", 1, COUNT);
        let simulation = Simulation::new(self.backend, frames, None, need, limits, true)?;
        let mut auditor = Auditor::new(&simulation, need);
        let (mut table, mut vmemmap) = simulation.start()?;
        let (region, time) = timed(|| vmemmap.online(&mut table, self.online));
        let region = region.map_err(Failure::host)?;
        let way = &mut report.lazy;
        way.online = Some(time);
        way.frames_online = count(&mut auditor, &vmemmap, &table, "online");
        progress.step("handing frames out", 2, COUNT);
        for first in (0..self.used).step_by(self.block.frames() as usize) {
            let first = Pfn::new(first).unwrap_or(Pfn::ZERO);
            self.hand_out(&simulation, (&mut table, &mut vmemmap), first, way)?;
            if way.frames_first.is_none() {
                way.first = way.all;
                way.frames_first = count(&mut auditor, &vmemmap, &table, "first frame");
            }
        }
        way.frames_used = count(&mut auditor, &vmemmap, &table, "used");
        let used = PfnRange::new(Pfn::ZERO, self.used);
        let wrong = used.ok().and_then(|used| {
            first_wrong(
                &vmemmap,
                &table,
                [used].into_iter(),
                Order::BASE,
                Order::BASE,
            )
        });
        if let Some(frame) = wrong {
            auditor.add("used", format_args!("frame {frame} has another head"));
        }
        progress.step("taking it offline", 3, COUNT);
        vmemmap.empty_reserve(&mut table);
        vmemmap.offline(&mut table, region).map_err(Failure::host)?;
        auditor.expect_nothing(&vmemmap, &table, "after offline");
        report.frames_left = Some(auditor.outstanding());
        report.audit = Some(auditor.result());
        Ok(())
    }

    /// What an allocator does when it hands out `first`, the first frame of a block: the block becomes base
    /// pages where it is not. Before that, where it may allocate, it tops the reserve up.
    fn hand_out<'m>(
        &self,
        simulation: &Simulation,
        (table, vmemmap): (&mut AnyTable<'m>, &mut MachineVmemmap<'m>),
        first: Pfn,
        way: &mut LazyWay,
    ) -> Result<(), Failure> {
        let frames = simulation.machine.frames();
        let page = vmemmap.descriptor(table, first);
        if page.is_none_or(|page| page.order() == Order::BASE) {
            return Ok(());
        }
        let block = PfnRange::new(first, self.block.frames()).map_err(Failure::host)?;
        let largest = self.online.geometry().order();
        let needed = vmemmap.reserve_needed(table, self.changed, block, largest);
        let filled = vmemmap.fill_reserve(table, self.changed.node(), needed);
        let _ = filled.map_err(Failure::host)?;
        way.reserve = Some(simulation.frames_in(needed));

        let calls = Arc::new(AtomicU64::new(0));
        let (allocated, freed) = (calls.clone(), calls.clone());
        frames.on_allocate(move |_| {
            let _ = allocated.fetch_add(1, Ordering::Relaxed);
        });
        frames.on_free(move |_| {
            let _ = freed.fetch_add(1, Ordering::Relaxed);
        });
        let (done, time) = timed(|| vmemmap.reorder(table, self.changed, block));
        frames.remove_hooks();
        way.flushes += done.map_err(Failure::host)?.flushes;
        way.allocator_calls += calls.load(Ordering::Relaxed);
        way.changes += 1;
        *way.all.get_or_insert(Duration::ZERO) += time;
        Ok(())
    }
}

/// Frames without those in reserve.
fn count(
    auditor: &mut Auditor<'_>,
    vmemmap: &MachineVmemmap<'_>,
    table: &AnyTable<'_>,
    when: &str,
) -> Option<u64> {
    let counted = auditor.count(vmemmap, table, when)?;
    Some(counted.frames() - counted.reserve_frames)
}
