//! A plan for people: a line for each run, of at most 80 columns below 256 TiB.

use super::{Planned, Totals, runs};
use crate::counts::CountCosts;
use crate::notes::counted;
use crate::picture;
use crate::request::{self, Request, piece_name};
use crate::size::ByteSize;
use crate::table::number;
use mm_core::addr::Pfn;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{PlannedFrames, PlannedRun};
use std::io::{self, Write};

/// Above the frames that a run's descriptors are about.
const DESCRIBES: &str = "descriptors of frames";

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
        "{}: {} in pages of {}",
        request.backend.name(),
        ranges.join(", "),
        request.align,
    )?;
    writeln!(
        out,
        "{}, piece: {}\n",
        request::policies(Some(policies.heads), policies.tails, policies.tables),
        piece_name(request.piece),
    )?;
    picture::text::draw(out, &picture::of_plan::picture(&pagemap, planned.huge_leaf))?;
    writeln!(out)?;
    let width = width_of_frames(&pagemap);
    writeln!(
        out,
        "{:<18}  {:>6}  {DESCRIBES:<width$}  mapped to",
        "vmemmap page", "pages"
    )?;
    let limit = limit.unwrap_or(u64::MAX);
    let mut totals = Totals::of(&pagemap);
    for run in runs(&pagemap, planned.huge_leaf) {
        if totals.runs < limit {
            print_run(out, &pagemap, &run, width)?;
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
    if totals.head_frames > 0 {
        let frames = counted(totals.head_frames, "descriptor frame");
        writeln!(out, "heads: {frames} of these, packed")?;
    }
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

/// How wide the frames of the widest run are, or what stands above them.
fn width_of_frames(pagemap: &DevPagemap<'_>) -> usize {
    let ranges = pagemap.ranges().iter();
    let lasts = ranges.map(|range| frames(range.last(), range.last()).len());
    lasts.fold(DESCRIBES.len(), usize::max)
}

fn frames(first: Pfn, last: Pfn) -> String {
    format!("{first}..={last}")
}

fn print_run(
    out: &mut dyn Write,
    pagemap: &DevPagemap<'_>,
    run: &PlannedRun,
    width: usize,
) -> io::Result<()> {
    let describes = frames(run.describes.start(), run.describes.last());
    write!(
        out,
        "{:<#18x}  {:>6}  {describes:<width$}  ",
        run.at.get(),
        run.pages
    )?;
    match run.frames {
        PlannedFrames::Own if run.pages == 1 => writeln!(out, "a frame of its own"),
        PlannedFrames::Own => writeln!(out, "a frame of its own each"),
        PlannedFrames::Tail { .. } if pagemap.tails().0 == Tails::PerOrder => {
            writeln!(out, "tail frame of all")
        }
        PlannedFrames::Tail { head } => {
            writeln!(out, "tail frame of {head}")
        }
        PlannedFrames::Stubs => writeln!(out, "frame of stubs of all"),
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
