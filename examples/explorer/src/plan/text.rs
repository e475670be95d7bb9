//! A plan for people: a line for each run.

use super::{Planned, Totals, policy, runs};
use crate::request::{Request, piece_name, tables_name};
use crate::table::number;
use mm_core::vmemmap::{PlannedFrames, PlannedRun};
use std::io::{self, Write};

pub(super) fn print(
    out: &mut dyn Write,
    request: &Request,
    planned: &Planned<'_>,
    limit: Option<u64>,
) -> io::Result<()> {
    // It was made once, when the plan was.
    let Ok(pagemap) = planned.pagemap() else {
        return Ok(());
    };
    let (tails, notes) = policy(&pagemap);
    let ranges: Vec<String> = request.ranges.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "{}: {} in pages of {}; tails: {tails}, tables: {}, piece: {}\n",
        request.backend.name(),
        ranges.join(", "),
        request.align,
        tables_name(request.tables),
        piece_name(request.piece),
    )?;
    writeln!(
        out,
        "{:<18}  {:>8}  {:<28}  mapped to",
        "vmemmap page", "pages", "descriptors of frames"
    )?;
    let limit = limit.unwrap_or(u64::MAX);
    let mut totals = Totals::default();
    for run in runs(&pagemap) {
        if totals.runs < limit {
            print_run(out, &run)?;
        }
        totals.add(&run);
    }
    if totals.runs > limit {
        writeln!(
            out,
            "... and {} more runs",
            number(Some(totals.runs - limit))
        )?;
    }
    writeln!(
        out,
        "\ntotal: {} runs, {} vmemmap pages, {} descriptor frames",
        number(Some(totals.runs)),
        number(Some(totals.vmemmap_pages)),
        number(Some(totals.descriptor_frames)),
    )?;
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn print_run(out: &mut dyn Write, run: &PlannedRun) -> io::Result<()> {
    let (first, last) = (run.describes.start(), run.describes.last());
    let describes = format!("{first}..={last}");
    write!(
        out,
        "{:<#18x}  {:>8}  {describes:<28}  ",
        run.at.get(),
        run.pages
    )?;
    match run.frames {
        PlannedFrames::Own if run.pages == 1 => writeln!(out, "a frame of its own"),
        PlannedFrames::Own => writeln!(out, "a frame of its own each"),
        PlannedFrames::Tail { head } => {
            writeln!(out, "the tail frame of compound page {head}")
        }
        PlannedFrames::HugeLeaves { order } => match run.pages / order.frames() {
            1 => writeln!(out, "1 huge leaf of 2M"),
            leaves => writeln!(out, "{leaves} huge leaves of 2M"),
        },
    }
}
