//! Bringing a region online in pages of one size, making them pages of another one, and back.
//!
//! ```text
//!   online ──▶ fill the reserve ──▶ there ──▶ back ──▶ empty it ──▶ offline
//!    count                          count     count                  nothing left
//! ```

mod report;
mod steps;
mod text;

pub use report::{ReorderReport, ReserveUse};
pub use text::print;

use crate::args::{Format, PieceArg, RegionArgs, ReorderArgs, YesNo};
use crate::failure::Failure;
use crate::geometry::{NoPage, PageSize, natural};
use crate::need::{Limits, Need};
use crate::progress::Progress;
use crate::refusal;
use crate::refusal::Running;
use crate::request::Request;
use crate::simulation::Simulation;
use crate::size::{ByteRange, ByteSize};
use mm_core::addr::{Order, PfnRange, PhysAddr};
use steps::{Steps, Way};

/// A region, and the sizes of its pages.
#[derive(Clone, Debug)]
pub struct ReorderRequest {
    /// The region, in pages as it comes online.
    pub from: Request,
    /// The region, in pages as it is to be.
    pub to: Request,
    /// The part that changes, if that is not all of it.
    pub part: Option<ByteRange>,
}

impl ReorderRequest {
    /// What the command line asks for, and how to print what comes of it.
    ///
    /// # Errors
    ///
    /// The option, and [`NoPage`], where the backend has no pages of its size.
    pub fn from_args(args: ReorderArgs) -> Result<(Self, Format), (&'static str, NoPage)> {
        let [small, large] = natural(args.backend.model().granule()).map(ByteSize);
        let size = |option, size: Option<PageSize>, otherwise| match size {
            Some(size) => size.on(args.backend).map_err(|no_page| (option, no_page)),
            None => Ok(otherwise),
        };
        let from = size("--from", args.from, large)?;
        let to = size("--to", args.to, small)?;
        let region = RegionArgs {
            backend: args.backend,
            ranges: args.ranges,
            // The default range is whole pages of either size.
            align: Some(PageSize::Bytes(ByteSize(from.0.max(to.0)))),
            heads: args.heads,
            tails: args.tails,
            tables: args.tables,
            piece: PieceArg::Range,
            huge_leaves: YesNo::Yes,
            altmap: None,
            node: 0,
            fail_after: args.fail_after,
            format: args.format,
        };
        let (region, format) = Request::from_args(region).map_err(|no_page| ("--from", no_page))?;
        let request = Self {
            from: Request {
                align: from,
                ..region.clone()
            },
            to: Request {
                align: to,
                ..region
            },
            part: args.part,
        };
        Ok((request, format))
    }
}

/// Does what `request` asks for, within `limits`.
pub fn reorder(
    request: &ReorderRequest,
    limits: &Limits,
    progress: &dyn Progress,
) -> ReorderReport {
    let job = Job {
        request,
        limits,
        progress,
    };
    let mut report = ReorderReport::new(request);
    if let Err(failure) = job.prepare(&mut report) {
        report.error = Some(failure);
    }
    report
}

struct Job<'a> {
    request: &'a ReorderRequest,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    /// Checks the request, and does it if there is nothing against it.
    fn prepare(&self, report: &mut ReorderReport) -> Result<(), Failure> {
        let backend = self.request.from.backend;
        let facts = &backend.facts();
        let (model, granule) = (&facts.model, facts.model.granule());
        let (from, to) = (&self.request.from, &self.request.to);
        let (from, to) = (from.in_frames(granule)?, to.in_frames(granule)?);
        let (before, after) = (from.pagemap(model, None)?, to.pagemap(model, None)?);
        report.enter_policies(&before, &after, facts.shares_tables);
        let parts = match self.request.part {
            None => from.ranges.clone(),
            Some(part) => {
                let name = format_args!("part {part}");
                let frames = PfnRange::from_bytes(PhysAddr::new(part.start), part.size, granule);
                vec![frames.map_err(|error| refusal::no_range(name, error, granule))?]
            }
        };
        let largest = before.geometry().order().max(after.geometry().order());
        let back = parts.iter().map(|part| around(*part, largest)).collect();
        let there = Way {
            from: &before,
            to: &after,
            parts,
        };
        let back = Way {
            from: &after,
            to: &before,
            parts: back,
        };
        let need = Need::of(facts, &before).plus(&Need::of(facts, &after));
        self.progress.step("making the machine", 0, steps::COUNT);
        let simulation = Simulation::new(backend, &from, None, &need, self.limits, true)?;
        let running = Running {
            granule,
            fail_after: self.request.from.fail_after,
            enough: &|| from.altmap_needed(model),
        };
        Steps::new(&simulation, (there, back), &need, &running, report).run(self.progress)
    }
}

/// `part`, extended to whole pages of `order`.
fn around(part: PfnRange, order: Order) -> PfnRange {
    let start = part.start().align_down(order);
    let last = part.last().align_down(order).get() + (order.frames() - 1);
    PfnRange::new(start, last - start.get() + 1).unwrap_or(part)
}
