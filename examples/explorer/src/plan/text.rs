//! A plan for people: a line for each run.

use super::{Planned, Totals, runs};
use crate::counts::CountCosts;
use crate::notes::counted;
use crate::request::{Request, piece_name};
use crate::size::ByteSize;
use crate::table::number;
use mm_core::pagemap::{DevPagemap, Tails};
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
    let policies = planned.policies(&pagemap);
    let ranges: Vec<String> = request.ranges.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "{}: {} in pages of {}; tails: {}, tables: {}, piece: {}\n",
        request.backend.name(),
        ranges.join(", "),
        request.align,
        policies.tails,
        policies.tables,
        piece_name(request.piece),
    )?;
    writeln!(
        out,
        "{:<18}  {:>8}  {:<28}  mapped to",
        "vmemmap page", "pages", "descriptors of frames"
    )?;
    let limit = limit.unwrap_or(u64::MAX);
    let mut totals = Totals::of(&pagemap);
    for run in runs(&pagemap, planned.huge_leaf) {
        if totals.runs < limit {
            print_run(out, &pagemap, &run)?;
        }
        totals.add(&run);
    }
    if totals.runs > limit {
        writeln!(out, "... and {}", counted(totals.runs - limit, "more run"))?;
    }
    writeln!(
        out,
        "\ntotal: {}, {}, {}",
        counted(totals.runs, "run"),
        counted(totals.vmemmap_pages, "vmemmap page"),
        counted(totals.descriptor_frames, "descriptor frame"),
    )?;
    writeln!(out, "counts: {}", CountCosts::of(&pagemap))?;
    print_altmap(out, planned)?;
    for note in policies.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// How much is reserved, and how much of that is used.
fn print_altmap(out: &mut dyn Write, planned: &Planned<'_>) -> io::Result<()> {
    let Some(reserved) = planned.reserved() else {
        return Ok(());
    };
    let frames = reserved.size / planned.model.granule().bytes();
    writeln!(
        out,
        "altmap: {reserved} is reserved; {} of its {} hold descriptors and counts",
        number(Some(planned.altmap_frames)),
        counted(frames, "frame"),
    )
}

fn print_run(out: &mut dyn Write, pagemap: &DevPagemap<'_>, run: &PlannedRun) -> io::Result<()> {
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
        PlannedFrames::Tail { .. } if pagemap.tails().0 == Tails::PerOrder => {
            writeln!(out, "the tail frame of all compound pages")
        }
        PlannedFrames::Tail { head } => {
            writeln!(out, "the tail frame of compound page {head}")
        }
        PlannedFrames::HugeLeaves { order } => {
            let granule = pagemap.model().granule();
            let size = ByteSize(order.frames() * granule.bytes());
            match run.pages / order.frames() {
                1 => writeln!(out, "1 huge leaf of {size}"),
                leaves => writeln!(out, "{leaves} huge leaves of {size}"),
            }
        }
    }
}
