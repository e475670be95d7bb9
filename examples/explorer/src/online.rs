//! Bringing a region online on a simulated machine, recounting, and taking it offline again.

use crate::altmap;
use crate::audit::Auditor;
use crate::counts::CountCosts;
use crate::failure::Failure;
use crate::need::{Limits, Need};
use crate::notes;
use crate::progress::Progress;
use crate::refusal::Running;
use crate::report::{AfterError, AfterOffline, Report};
use crate::request::{FrameRequest, Request};
use crate::simulation::{Simulation, timed};
use crate::stats;
use hosted::BackendFacts;
use mm_core::pagemap::DevPagemap;

/// How many steps `progress` hears of.
const STEPS: usize = 4;

/// Does what `request` asks for, within `limits`.
pub fn online(request: &Request, limits: &Limits, progress: &dyn Progress) -> Report {
    let facts = &request.backend.facts();
    let job = Online {
        request,
        facts,
        limits,
        progress,
    };
    let mut report = Report::new(request);
    let frames = request.in_frames(facts.model.granule());
    let done = frames.and_then(|frames| job.prepare(&frames, &mut report));
    if let Err(failure) = done {
        report.error = Some(failure);
        report
            .after_error
            .get_or_insert_with(AfterError::nothing_done);
    }
    report
}

struct Online<'a> {
    request: &'a Request,
    facts: &'a BackendFacts,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

impl Online<'_> {
    /// Checks the request, and does it if there is nothing against it.
    fn prepare(&self, frames: &FrameRequest<'_>, report: &mut Report) -> Result<(), Failure> {
        let model = &self.facts.model;
        let reserved = frames.reserved(model)?;
        report.altmap_reserved_bytes = altmap::reserved_bytes(reserved, model);
        let need = {
            let altmap = frames.planned_altmap(model)?;
            Need::of(
                self.facts,
                &frames.pagemap(model, altmap.as_ref().map(|one| one as _))?,
            )
        };
        self.progress.step("making the machine", 0, STEPS);
        let simulation = Simulation::new(
            self.request.backend,
            frames,
            reserved,
            &need,
            self.limits,
            true,
        )?;
        let altmap = simulation.altmap.as_ref();
        let pagemap = frames.pagemap(model, altmap.map(|one| one as _))?;
        let running = Running {
            granule: model.granule(),
            fail_after: self.request.fail_after,
            enough: &|| frames.altmap_needed(model),
        };
        self.drive(&simulation, &pagemap, &need, &running, report)
    }

    fn drive(
        &self,
        simulation: &Simulation,
        pagemap: &DevPagemap<'_>,
        need: &Need,
        running: &Running<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let (mut table, mut vmemmap) = simulation.start()?;
        let (machine, altmap) = (&simulation.machine, simulation.altmap.as_ref());
        let mut auditor = Auditor::new(simulation, need);
        if let Some(allocations) = self.request.fail_after {
            machine.frames().fail_after(allocations);
        }

        self.progress.step("bringing memory online", 1, STEPS);
        let (region, online) = timed(|| vmemmap.online(&mut table, pagemap));
        let region = match region {
            Ok(region) => region,
            Err(error) => {
                auditor.expect_nothing(&vmemmap, &table, "after the error");
                report.after_error = Some(AfterError {
                    frames: auditor.outstanding(),
                    audit: auditor.result(),
                });
                return Err(running.online(error));
            }
        };
        report.online = Some(online);
        report.enter_policies(region.heads(), region.tails(), region.tables());
        let granule = self.facts.model.granule();
        let noted = region.notes().iter();
        let mut notes: Vec<String> = noted.map(|note| notes::text(&note, granule)).collect();
        notes.extend(self.request.fail_after.map(notes::never_failed));
        report.notes = Some(notes);
        self.progress.step("recounting", 2, STEPS);
        if let Some(counted) = auditor.count(&vmemmap, &table, "online") {
            report.enter_counts(&counted, altmap.map_or(0, altmap::used));
        }
        report.counts = Some(CountCosts::of(pagemap));
        report.stats = Some(stats::rows(None, &vmemmap));
        self.progress.step("taking it offline", 3, STEPS);
        let (offlined, offline) = timed(|| vmemmap.offline(&mut table, region));
        offlined.map_err(Failure::host)?;
        report.offline = Some(offline);
        report.after_offline = AfterOffline {
            frames: Some(auditor.outstanding()),
        };
        auditor.expect_nothing(&vmemmap, &table, "after offline");
        report.audit = Some(auditor.result());
        Ok(())
    }
}
