//! What a region's vmemmap would be populated with, run by run, without touching memory.
//!
//! Runs are printed as they are made, so that a plan of any size needs no memory.

mod json;
mod text;

use crate::altmap::{self, PlannedAltmap};
use crate::args::Format;
use crate::failure::Failure;
use crate::need::{Limits, Need};
use crate::notes;
use crate::packed;
use crate::refusal;
use crate::request::{FrameRequest, Request, heads_name, tables_name, tails_name};
use crate::size::ByteRange;
use hosted::BackendFacts;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::frame::Altmap as _;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{Notes, Plan, PlannedFrames, PlannedRun};
use serde::Serialize;
use std::io::{self, Write};

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
    let facts = &request.backend.facts();
    let checked = check(request, &facts.model);
    let reserved = altmap::reserved_bytes(reserved(request, &facts.model), &facts.model);
    let made = match &checked {
        Ok((frames, altmap)) => Planned::new(facts, limits, frames, altmap.as_ref()),
        Err(failure) => Err(failure.clone()),
    };
    match (style.format, &made) {
        (Format::Table, Ok(planned)) => text::print(out, request, planned, style.limit)?,
        (Format::Table, Err(_)) => {}
        (Format::Json, made) => json::print(out, request, reserved, made.as_ref())?,
    }
    Ok(made.err())
}

/// The request in frames, and its altmap.
type Checked<'r> = (FrameRequest<'r>, Option<PlannedAltmap>);

fn check<'r>(request: &'r Request, model: &MemoryModel) -> Result<Checked<'r>, Failure> {
    let frames = request.in_frames(model.granule())?;
    let altmap = frames.planned_altmap(model)?;
    Ok((frames, altmap))
}

/// What would be reserved, whether or not there is a plan then.
fn reserved(request: &Request, model: &MemoryModel) -> Option<PfnRange> {
    let frames = request.in_frames(model.granule()).ok()?;
    frames.reserved(model).ok()?
}

/// A plan that there is.
struct Planned<'p> {
    frames: &'p FrameRequest<'p>,
    altmap: Option<&'p PlannedAltmap>,
    model: MemoryModel,
    huge_leaf: Option<Order>,
    shares_tables: bool,
    /// How many frames of the altmap hold descriptors, or count those that do.
    altmap_frames: u64,
}

impl<'p> Planned<'p> {
    fn new(
        facts: &BackendFacts,
        limits: &Limits,
        frames: &'p FrameRequest<'p>,
        altmap: Option<&'p PlannedAltmap>,
    ) -> Result<Self, Failure> {
        let mut planned = Self {
            frames,
            altmap,
            model: facts.model,
            huge_leaf: facts.huge_leaf,
            shares_tables: facts.shares_tables,
            altmap_frames: 0,
        };
        let pagemap = planned.pagemap()?;
        let Need {
            runs, from_altmap, ..
        } = Need::of(facts, &pagemap);
        let used = from_altmap + altmap.map_or(0, PlannedAltmap::count_frames);
        if let Some(reserved) = altmap.map(PlannedAltmap::reserved)
            && used > reserved.frames()
        {
            let enough = frames.altmap_needed(&facts.model);
            let granule = facts.model.granule();
            return Err(refusal::altmap_exhausted(reserved, enough, granule));
        }
        if runs > limits.planned_runs {
            let limit = limits.planned_runs;
            return Err(Failure::too_large(format!(
                "the plan may have {runs} runs, more than the limit of {limit}"
            )));
        }
        planned.altmap_frames = used;
        Ok(planned)
    }

    /// The bytes that are reserved for the altmap, if there is one.
    fn reserved(&self) -> Option<ByteRange> {
        let reserved = self.altmap?.reserved();
        Some(ByteRange::of(reserved, self.model.granule()))
    }

    fn pagemap(&self) -> Result<DevPagemap<'_>, Failure> {
        let altmap = self.altmap.map(|altmap| altmap as _);
        self.frames.pagemap(&self.model, altmap)
    }

    /// The policies of `pagemap`, as far as they are known without a machine.
    fn policies(&self, pagemap: &DevPagemap<'_>) -> Policies {
        let notes = Notes::known_ahead(pagemap, self.huge_leaf, self.shares_tables);
        let granule = self.model.granule();
        Policies {
            heads: heads_name(pagemap.heads().0),
            tails: tails_name(pagemap.tails().0),
            tables: tables_name(pagemap.tables_on(self.shares_tables).0),
            notes: notes
                .iter()
                .map(|note| notes::text(&note, granule))
                .collect(),
        }
    }
}

/// The runs of `pagemap`, in the order in which it is populated, where the page table has this huge
/// leaf.
fn runs<'p>(
    pagemap: &'p DevPagemap<'_>,
    huge_leaf: Option<Order>,
) -> impl Iterator<Item = PlannedRun> + use<'p> {
    // The pieces of a pagemap are whole subsections of its ranges, so each has a plan.
    pagemap
        .pieces()
        .filter_map(move |piece| Plan::new(pagemap, piece, huge_leaf).ok())
        .flatten()
}

/// Where heads are, what is shared, and what is done otherwise than asked.
struct Policies {
    heads: &'static str,
    tails: &'static str,
    tables: &'static str,
    notes: Vec<String>,
}

/// What the runs come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    /// How many runs.
    runs: u64,
    /// Vmemmap pages that they map.
    vmemmap_pages: u64,
    /// Frames that hold the descriptors, and those in which an altmap counts them; the pieces of a
    /// compound page share its tail frame, or all share one.
    descriptor_frames: u64,
    /// How many of these hold packed heads.
    head_frames: u64,
    /// Huge leaves.
    huge_leaves: u64,
    #[serde(skip)]
    last_head: Option<Pfn>,
    /// Whether all compound pages have one tail frame.
    #[serde(skip)]
    one_tail: bool,
}

impl Totals {
    fn of(pagemap: &DevPagemap<'_>) -> Self {
        let head_frames = packed::head_frames(pagemap);
        let count_frames = pagemap.altmap().map_or(0, |altmap| altmap.count_frames());
        Self {
            descriptor_frames: count_frames + head_frames,
            head_frames,
            one_tail: pagemap.tails().0 == Tails::PerOrder,
            ..Self::default()
        }
    }

    fn add(&mut self, run: &PlannedRun) {
        self.runs += 1;
        self.vmemmap_pages += run.pages;
        match run.frames {
            PlannedFrames::Own => self.descriptor_frames += run.pages,
            PlannedFrames::HugeLeaves { order } => {
                self.descriptor_frames += run.pages;
                self.huge_leaves += run.pages / order.frames();
            }
            PlannedFrames::Stubs => {
                let first = self.last_head.replace(run.describes.start());
                self.descriptor_frames += u64::from(first.is_none());
            }
            PlannedFrames::Tail { head } => {
                // Ranges are whole compound pages, so all runs of one follow each other.
                let last = self.last_head.replace(head);
                let same = match self.one_tail {
                    true => last.is_some(),
                    false => last == Some(head),
                };
                self.descriptor_frames += u64::from(!same);
            }
        }
    }
}
