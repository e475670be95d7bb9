//! Bringing a region online in base pages, folding it as compound pages, and unfolding it again,
//! with a recount after each step.
//!
//! ```text
//!   online in base pages ──▶ fold ──▶ unfold ──▶ offline
//!          count             count    count       nothing left
//!                                     as before
//! ```
//!
//! Where heads are packed, both are changes of order, with a reserve that is filled before each and emptied after it.

mod heads;
mod parts;
mod report;
mod room;
mod steps;
mod text;

pub(crate) use heads::first_wrong;
pub use report::{FoldReport, Step};
pub use text::print;

use crate::altmap::{self, PlannedAltmap};
use crate::failure::Failure;
use crate::geometry::natural;
use crate::need::{Limits, Need};
use crate::progress::Progress;
use crate::refusal::Running;
use crate::report::AfterError;
use crate::request::{FrameRequest, Request};
use crate::simulation::Simulation;
use crate::size::ByteSize;
use hosted::BackendFacts;
use mm_core::addr::Order;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tails};
use mm_core::vmemmap::Notes;
use steps::Steps;

/// A region to fold and unfold, and how.
#[derive(Clone, Debug)]
pub struct FoldRequest {
    /// The region, in compound pages.
    pub region: Request,
    /// Whether the kernel can keep CPUs away from addresses, where the backend needs that.
    pub quiesce: bool,
}

/// Does what `request` asks for, within `limits`.
pub fn fold(request: &FoldRequest, limits: &Limits, progress: &dyn Progress) -> FoldReport {
    let region = &request.region;
    let facts = &region.backend.facts();
    let job = Job {
        request,
        facts,
        limits,
        progress,
    };
    let mut report = FoldReport::new(region);
    let frames = region.in_frames(facts.model.granule());
    let done = frames.and_then(|frames| job.prepare(&frames, &mut report));
    if let Err(failure) = done {
        report.error = Some(failure);
        report
            .after_error
            .get_or_insert_with(AfterError::nothing_done);
    }
    report
}

struct Job<'a> {
    request: &'a FoldRequest,
    facts: &'a BackendFacts,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    /// Checks the request, and does it if there is nothing against it.
    fn prepare(&self, frames: &FrameRequest<'_>, report: &mut FoldReport) -> Result<(), Failure> {
        let model = &self.facts.model;
        let compound = frames.pagemap(model, None)?;
        check_tails(&compound, &self.request.region)?;
        check_heads(&compound, &self.request.region)?;
        let base = frames.base_pagemap(model, None)?;
        let leaf = huge_leaf_of(self.facts, &base);
        let reserved = frames.reserved_or(|| room::needed(&base, &compound, leaf))?;
        report.altmap_reserved_bytes = altmap::reserved_bytes(reserved, model);
        let need = {
            let altmap = reserved
                .map(|reserved| PlannedAltmap::new(reserved, model, frames.node()))
                .transpose()?;
            let altmap = altmap.as_ref().map(|one| one as _);
            // An altmap may leave room for base pages only.
            frames.pagemap(model, altmap)?;
            Need::of(self.facts, &frames.base_pagemap(model, altmap)?)
                .with_unfolding(leaf.is_some())
        };
        self.progress.step("making the machine", 0, steps::COUNT);
        let simulation = Simulation::new(
            self.request.region.backend,
            frames,
            reserved,
            &need,
            self.limits,
            self.request.quiesce,
        )?;
        let altmap = simulation.altmap.as_ref().map(|one| one as _);
        let base = frames.base_pagemap(model, altmap)?;
        // Unfolding brings back the huge leaves that there were, and no others.
        let compound = frames
            .pagemap(model, altmap)?
            .with_huge_leaves(leaf.is_some());
        let running = Running {
            granule: model.granule(),
            fail_after: self.request.region.fail_after,
            enough: &|| room::needed(&base, &compound, leaf),
        };
        Steps::new(&simulation, (&base, &compound), &need, &running, report)
            .run(self.request, self.progress)
    }
}

/// Refuses packed heads beside an altmap: what a change of order makes is of a reserve in RAM, so folding would not
/// say what an altmap has to hold.
fn check_heads(compound: &DevPagemap<'_>, region: &Request) -> Result<(), Failure> {
    match compound.heads().0 == Heads::Packed && region.altmap.is_some() {
        true => Err(Failure::new(
            ErrorKind::Unsupported,
            "with --heads packed there is no altmap to fold into; leave out --altmap, or take --heads in-place",
        )),
        false => Ok(()),
    }
}

/// Refuses what has nothing to fold.
fn check_tails(compound: &DevPagemap<'_>, region: &Request) -> Result<(), Failure> {
    let (Tails::None, fallback) = compound.tails() else {
        return Ok(());
    };
    let align = region.align;
    let [small, large] = natural(compound.model().granule()).map(ByteSize);
    let is_base = compound.geometry() == Geometry::BASE_PAGES;
    let (what, instead) = match fallback {
        _ if is_base => (
            format!("base pages, {align}"),
            format!("a larger --align, like {small} or {large}"),
        ),
        None => (
            "tails that share nothing".to_owned(),
            "--tails per-compound or per-order".to_owned(),
        ),
        Some(_) => (
            format!("pages of {align}, whose descriptors fill too few vmemmap pages"),
            format!("a larger --align, like {small} or {large}"),
        ),
    };
    Err(Failure::new(
        ErrorKind::Unsupported,
        format_args!("there is nothing to fold in {what}; take {instead}"),
    ))
}

/// The huge leaves that map `base`, if there are any.
fn huge_leaf_of(facts: &BackendFacts, base: &DevPagemap<'_>) -> Option<Order> {
    let wanted = base.huge_leaves();
    let as_asked = Notes::known_ahead(base, facts.huge_leaf, facts.shares_tables).is_empty();
    facts.huge_leaf.filter(|_| wanted && as_asked)
}
