//! A plan for programs: one object, its runs written as they are made.

use super::{Planned, Totals, policy, runs};
use crate::failure::Failure;
use crate::request::{Request, piece_name, tables_name};
use crate::size::ByteRange;
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
    tails: Option<&'static str>,
    tables: Option<&'static str>,
    piece: &'static str,
    runs: Option<Runs<'a>>,
    /// Written after the runs, which fill it.
    totals: Option<&'a Cell<Totals>>,
    notes: Option<Vec<String>>,
    error: Option<&'a Failure>,
}

/// Serializes by making the runs, and counts them.
struct Runs<'a> {
    pagemap: &'a DevPagemap<'a>,
    totals: &'a Cell<Totals>,
}

impl Serialize for Runs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut totals = Totals::default();
        let counted = runs(self.pagemap).map(|run| {
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
    planned: Result<&Planned<'_>, &Failure>,
) -> io::Result<()> {
    let pagemap = match planned {
        Ok(planned) => planned.pagemap(),
        Err(failure) => Err(failure.clone()),
    };
    let totals = Cell::new(Totals::default());
    let policy = pagemap.as_ref().ok().map(policy);
    let object = Object {
        backend: request.backend.name(),
        ranges: &request.ranges,
        align: request.align.to_string(),
        tails: policy.as_ref().map(|(tails, _)| *tails),
        tables: policy.as_ref().map(|_| tables_name(request.tables)),
        piece: piece_name(request.piece),
        runs: pagemap.as_ref().ok().map(|pagemap| Runs {
            pagemap,
            totals: &totals,
        }),
        totals: pagemap.is_ok().then_some(&totals),
        notes: policy.map(|(_, notes)| notes),
        error: pagemap.as_ref().err(),
    };
    crate::json::print(out, &object)
}
