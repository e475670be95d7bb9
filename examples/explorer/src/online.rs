//! Bringing a region online on a simulated machine, recounting, and taking it offline again.

use crate::altmap::{self, Altmap};
use crate::failure::Failure;
use crate::need::{Limits, Need};
use crate::report::{AfterError, AfterOffline, CLEAN, Report};
use crate::request::{FrameRequest, Request};
use hosted::{Backend, Machine, MachineConfig, WithBackend};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::InspectFrames;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use std::time::{Duration, Instant};

/// The most slots that an audit gets: 64 MiB.
const MAX_AUDIT_SLOTS: u64 = 1 << 21;

/// Does what `request` asks for, within `limits`.
pub fn online(request: &Request, limits: &Limits) -> Report {
    request.backend.run(Online { request, limits })
}

struct Online<'a> {
    request: &'a Request,
    limits: &'a Limits,
}

impl WithBackend for Online<'_> {
    type Output = Report;

    fn with<B: Backend>(self) -> Report {
        let mut report = Report::new(self.request);
        let frames = self.request.in_frames(B::MODEL.granule());
        let done = frames.and_then(|frames| self.prepare::<B>(&frames, &mut report));
        if let Err(failure) = done {
            report.error = Some(failure);
            report
                .after_error
                .get_or_insert_with(AfterError::nothing_done);
        }
        report
    }
}

impl Online<'_> {
    /// Checks the request, and does it if there is nothing against it.
    fn prepare<B: Backend>(
        &self,
        frames: &FrameRequest<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let reserved = frames.reserved(&B::MODEL)?;
        let need = {
            let altmap = frames.planned_altmap(&B::MODEL)?;
            Need::of::<B>(&frames.pagemap(&B::MODEL, altmap.as_ref().map(|one| one as _))?)
        };
        need.check(self.limits)?;
        let machine = Machine::<B>::new(&MachineConfig {
            devices: frames.ranges.clone(),
            backed: reserved.into_iter().collect(),
            ram_frames: need.ram_frames(),
        })?;
        let altmap = match reserved {
            Some(reserved) => {
                let (memory, node) = (machine.memory(), self.request.node);
                // SAFETY: 1: the machine has contents for the reserved part, and its RAM is
                // elsewhere. 2: it has one vmemmap, and there is one thread.
                Some(unsafe { altmap::on_machine(memory, reserved, &B::MODEL, node) }?)
            }
            None => None,
        };
        let pagemap = frames.pagemap(&B::MODEL, altmap.as_ref().map(|one| one as _))?;
        self.drive(&machine, &pagemap, altmap.as_ref(), &need, report)
    }

    fn drive<B: Backend>(
        &self,
        machine: &Machine<B>,
        pagemap: &DevPagemap<'_>,
        altmap: Option<&Altmap>,
        need: &Need,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let mut table = machine
            .take_table()
            .ok_or_else(|| Failure::host("the machine's page table is taken"))?;
        // SAFETY: 1: nothing else is mapped on this machine. 2: its memory has all RAM, and
        // contents for the altmap. 3: the machine has one table.
        let vmemmap = unsafe {
            Vmemmap::<Page<Mask>, _, _>::new(B::MODEL, machine.frames(), machine.memory())
        };
        let mut vmemmap = vmemmap.map_err(Failure::host)?;
        let mut auditor = Auditor::new(machine, altmap, need);
        if let Some(allocations) = self.request.fail_after {
            machine.frames().fail_after(allocations);
        }

        let (region, online) = timed(|| vmemmap.online(&mut table, pagemap));
        let region = match region {
            Ok(region) => region,
            Err(error) => {
                auditor.expect_nothing(&vmemmap, &table, "after the error");
                report.after_error = Some(AfterError {
                    frames: auditor.outstanding(),
                    audit: auditor.result(),
                });
                return Err(error.into());
            }
        };
        report.online = Some(online);
        report.enter_policies(region.tails(), region.tables());
        report.notes = Some(region.notes().iter().map(|note| note.to_string()).collect());
        if let Some(counted) = auditor.count(&vmemmap, &table, "online") {
            report.enter_counts(&counted, altmap.map_or(0, Altmap::in_use));
        }
        let (_, offline) = timed(|| vmemmap.offline(&mut table, region));
        report.offline = Some(offline);
        report.after_offline = AfterOffline {
            frames: Some(auditor.outstanding()),
        };
        auditor.expect_nothing(&vmemmap, &table, "after offline");
        report.audit = Some(auditor.result());
        Ok(())
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// The vmemmap of a machine.
type MachineVmemmap<'m> = Vmemmap<Page<Mask>, &'m arch_sim::SimFrames, &'m arch_sim::SimMemory>;

/// Recounts, and remembers what was found.
struct Auditor<'m, B: Backend> {
    machine: &'m Machine<B>,
    allocators: Vec<&'m dyn InspectFrames>,
    scratch: Vec<AuditSlot>,
    findings: Vec<String>,
}

impl<'m, B: Backend> Auditor<'m, B> {
    fn new(machine: &'m Machine<B>, altmap: Option<&'m Altmap>, need: &Need) -> Self {
        let mut allocators: Vec<&dyn InspectFrames> = vec![machine.frames()];
        if let Some(altmap) = altmap {
            allocators.push(altmap);
        }
        // A hash table with room to spare.
        let slots = (need.descriptor_frames + need.tables) / 4 * 5 + 64;
        let slots = slots.min(MAX_AUDIT_SLOTS) as usize;
        Self {
            machine,
            allocators,
            scratch: vec![AuditSlot::default(); slots],
            findings: Vec::new(),
        }
    }

    fn outstanding(&self) -> u64 {
        self.allocators
            .iter()
            .filter_map(|one| one.outstanding())
            .sum()
    }

    fn count<P: PageTable>(
        &mut self,
        vmemmap: &MachineVmemmap<'_>,
        table: &P,
        when: &str,
    ) -> Option<AuditReport> {
        vmemmap
            .audit(table, &self.allocators, &mut self.scratch)
            .map_err(|finding| self.findings.push(format!("{when}: {finding}")))
            .ok()
    }

    /// Counts where nothing may be left.
    fn expect_nothing<P: PageTable>(
        &mut self,
        vmemmap: &MachineVmemmap<'_>,
        table: &P,
        when: &str,
    ) {
        if let Some(counted) = self.count(vmemmap, table, when)
            && counted != AuditReport::default()
        {
            let frames = counted.frames();
            self.findings
                .push(format!("{when}: {frames} frames are still mapped"));
        }
    }

    /// All that was found, and what the machine has complained of.
    fn result(&self) -> String {
        let complaints = self.machine.violations().to_string();
        let lines = self.findings.iter().map(String::as_str);
        let all: Vec<&str> = lines.chain(complaints.lines()).collect();
        if all.is_empty() {
            CLEAN.to_owned()
        } else {
            all.join("; ")
        }
    }
}
