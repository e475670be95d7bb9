//! What a region's vmemmap would be populated with, run by run, without touching memory.
//!
//! Runs are printed as they are made, so that a plan of any size needs no memory.

mod json;
mod text;

use crate::altmap::Reserved;
use crate::args::Format;
use crate::failure::Failure;
use crate::need::{Limits, Need};
use crate::request::{FrameRequest, Request, tails_name};
use hosted::{Backend, WithBackend};
use mm_core::addr::{Order, Pfn};
use mm_core::frame::DeviceAltmap;
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{Note, Plan, PlannedFrames, PlannedRun};
use serde::Serialize;
use std::io::{self, Write};

/// The order of a huge leaf of every backend here: 2 MiB of 4 KiB pages.
const HUGE_LEAF: Option<Order> = Order::new(9);

/// How a plan is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// For people or for programs.
    pub format: Format,
    /// How many runs are printed as text; all of them if nothing is said.
    pub limit: Option<u64>,
}

/// Prints the plan of `request` to `out`, and says why there is none if there is none.
///
/// # Errors
///
/// Those of `out`.
pub fn print(
    request: &Request,
    limits: &Limits,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<Option<Failure>> {
    request.backend.run(Print {
        request,
        limits,
        style,
        out,
    })
}

struct Print<'a> {
    request: &'a Request,
    limits: &'a Limits,
    style: Style,
    out: &'a mut dyn Write,
}

impl WithBackend for Print<'_> {
    type Output = io::Result<Option<Failure>>;

    fn with<B: Backend>(self) -> Self::Output {
        let Self {
            request,
            limits,
            style,
            out,
        } = self;
        let checked = check::<B>(request, limits);
        let made = match &checked {
            Ok((frames, reserved)) => Planned::new::<B>(request, limits, frames, reserved),
            Err(failure) => Err(failure.clone()),
        };
        match (style.format, &made) {
            (Format::Table, Ok(planned)) => text::print(out, request, planned, style.limit)?,
            (Format::Table, Err(_)) => {}
            (Format::Json, made) => json::print(out, request, made.as_ref())?,
        }
        Ok(made.err())
    }
}

/// The request in frames, and the counts of its altmap.
type Checked<'r> = (FrameRequest<'r>, Option<Reserved>);

fn check<'r, B: Backend>(request: &'r Request, limits: &Limits) -> Result<Checked<'r>, Failure> {
    let frames = request.in_frames(B::MODEL.granule())?;
    let reserved = match frames.reserved {
        Some(reserved) => Some(Reserved::new(reserved, limits)?),
        None => None,
    };
    Ok((frames, reserved))
}

/// A plan that there is.
struct Planned<'p> {
    frames: &'p FrameRequest<'p>,
    altmap: Option<DeviceAltmap<'p>>,
    model: mm_core::model::MemoryModel,
}

impl<'p> Planned<'p> {
    fn new<B: Backend>(
        request: &Request,
        limits: &Limits,
        frames: &'p FrameRequest<'p>,
        reserved: &'p Option<Reserved>,
    ) -> Result<Self, Failure> {
        let altmap = match reserved {
            // SAFETY: 1: no frame is taken from it: plans allocate nothing.
            Some(reserved) => Some(unsafe { reserved.altmap(request.node) }?),
            None => None,
        };
        let planned = Self {
            frames,
            altmap,
            model: B::MODEL,
        };
        let runs = Need::of::<B>(&planned.pagemap()?, frames.reserved).runs;
        if runs > limits.planned_runs {
            let limit = limits.planned_runs;
            return Err(Failure::too_large(format!(
                "the plan may have {runs} runs, more than the limit of {limit}"
            )));
        }
        Ok(planned)
    }

    fn pagemap(&self) -> Result<DevPagemap<'_>, Failure> {
        let altmap = self.altmap.as_ref().map(|altmap| altmap as _);
        self.frames.pagemap(&self.model, altmap)
    }
}

/// The runs of `pagemap`, in the order in which it is populated.
fn runs<'p>(pagemap: &'p DevPagemap<'_>) -> impl Iterator<Item = PlannedRun> + use<'p> {
    // The pieces of a pagemap are whole subsections of its ranges, so each has a plan.
    pagemap
        .pieces()
        .filter_map(|piece| Plan::new(pagemap, piece, HUGE_LEAF).ok())
        .flatten()
}

/// How tails are shared, and why not as asked.
fn policy(pagemap: &DevPagemap<'_>) -> (&'static str, Vec<String>) {
    let (tails, fallback) = pagemap.tails();
    let notes = fallback.map(|fallback| Note::Tails(fallback).to_string());
    (tails_name(tails), notes.into_iter().collect())
}

/// What the runs come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    /// How many runs.
    runs: u64,
    /// Vmemmap pages that they map.
    vmemmap_pages: u64,
    /// Frames that hold the descriptors; the pieces of a compound page share its tail frame.
    descriptor_frames: u64,
    /// Leaves of 2 MiB.
    huge_leaves: u64,
    #[serde(skip)]
    last_head: Option<Pfn>,
}

impl Totals {
    fn add(&mut self, run: &PlannedRun) {
        self.runs += 1;
        self.vmemmap_pages += run.pages;
        match run.frames {
            PlannedFrames::Own => self.descriptor_frames += run.pages,
            PlannedFrames::HugeLeaves { order } => {
                self.descriptor_frames += run.pages;
                self.huge_leaves += run.pages / order.frames();
            }
            PlannedFrames::Tail { head } => {
                // Ranges are whole compound pages, so all runs of one follow each other.
                if self.last_head.replace(head) != Some(head) {
                    self.descriptor_frames += 1;
                }
            }
        }
    }
}
