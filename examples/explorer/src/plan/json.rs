//! A plan for programs: one object, its runs written as they are made.

use super::{Planned, Totals, runs};
use crate::counts::CountCosts;
use crate::failure::Failure;
use crate::request::{Request, piece_name};
use crate::size::ByteRange;
use mm_core::addr::Order;
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{PlannedFrames, PlannedRun};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::io::{self, Write};

/// The object, in the order of its keys.
#[derive(Serialize)]
struct Object<'a> {
    backend: &'static str,
    ranges: &'a [ByteRange],
    align: String,
    heads: Option<&'static str>,
    tails: Option<&'static str>,
    tables: Option<&'static str>,
    piece: &'static str,
    altmap_reserved_bytes: Option<u64>,
    runs: Option<Runs<'a>>,
    /// Written after the runs, which fill it.
    totals: Option<&'a Cell<Totals>>,
    counts: Option<CountCosts>,
    notes: Option<Vec<String>>,
    error: Option<&'a Failure>,
}

/// Serializes by making the runs, and counts them.
struct Runs<'a> {
    pagemap: &'a DevPagemap<'a>,
    huge_leaf: Option<Order>,
    totals: &'a Cell<Totals>,
}

impl Serialize for Runs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut totals = Totals::of(self.pagemap);
        let counted = runs(self.pagemap, self.huge_leaf).map(|run| {
            totals.add(&run);
            self.totals.set(totals);
            Run::from(run)
        });
        serializer.collect_seq(counted)
    }
}

/// A run. Addresses are text, since JSON readers round such numbers.
#[derive(Serialize)]
struct Run {
    address: String,
    pages: u64,
    first_frame: u64,
    frames: u64,
    mapped_to: &'static str,
    head: Option<u64>,
}

impl From<PlannedRun> for Run {
    fn from(run: PlannedRun) -> Self {
        let (mapped_to, head) = match run.frames {
            PlannedFrames::Own => ("own", None),
            PlannedFrames::Tail { head } => ("tail", Some(head.get())),
            PlannedFrames::Stubs => ("stubs", None),
            PlannedFrames::HugeLeaves { .. } => ("huge-leaves", None),
        };
        Self {
            address: format!("{:#x}", run.at.get()),
            pages: run.pages,
            first_frame: run.describes.start().get(),
            frames: run.describes.frames(),
            mapped_to,
            head,
        }
    }
}

pub(super) fn print(
    out: &mut dyn Write,
    request: &Request,
    reserved: Option<u64>,
    planned: Result<&Planned<'_>, &Failure>,
) -> io::Result<()> {
    // It was made once, when the plan was.
    let made = planned
        .map_err(Failure::clone)
        .and_then(|planned| Ok((planned, planned.pagemap()?)));
    let totals = Cell::new(Totals::default());
    let policies = made
        .as_ref()
        .ok()
        .map(|(planned, pagemap)| planned.policies(pagemap));
    let object = Object {
        backend: request.backend.name(),
        ranges: &request.ranges,
        align: request.align.to_string(),
        heads: policies.as_ref().map(|policies| policies.heads),
        tails: policies.as_ref().map(|policies| policies.tails),
        tables: policies.as_ref().map(|policies| policies.tables),
        piece: piece_name(request.piece),
        altmap_reserved_bytes: reserved,
        runs: made.as_ref().ok().map(|(planned, pagemap)| Runs {
            pagemap,
            huge_leaf: planned.huge_leaf,
            totals: &totals,
        }),
        totals: made.is_ok().then_some(&totals),
        counts: made
            .as_ref()
            .ok()
            .map(|(_, pagemap)| CountCosts::of(pagemap)),
        notes: policies.map(|policies| policies.notes),
        error: made.as_ref().err(),
    };
    crate::json::print(out, &object)
}
