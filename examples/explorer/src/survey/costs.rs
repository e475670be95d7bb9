//! What memory costs online, case by case.

use super::cases::{Case, GIB, Row};
use super::layout::Layout;
use super::{Backend, Survey, name_of, percent};
use crate::online::online;
use crate::progress::Silent;
use crate::report::Report;
use crate::size::{ByteSize, rounded};
use crate::table::{UNKNOWN, number, time};
use mm_core::pagemap::Tables;
use std::io;

/// Brings all cases of `backend` online, one after the other.
pub(super) fn table(survey: &mut Survey<'_>, backend: &Backend) -> io::Result<Layout<8, 2>> {
    let mut table = Layout::new([
        "\n\ntails",
        "\n\nleaves",
        "\ndescr.\nframes",
        "\ntable\nframes",
        "left in\nRAM,\nper GiB",
        "in the\naltmap,\nper GiB",
        "\n\nsaved",
        "\n\nonline in",
    ]);
    let mut above = None;
    for row in &backend.online {
        let what = name_of(backend, row);
        survey.begin(&what);
        let request = row.case.request(backend.kind, row.range);
        // The survey itself says how far it is.
        let report = online(&request, survey.limits, &Silent);
        let failed = survey.end(&what, report.error.as_ref(), report.audit.as_deref())?;
        let group = Some((row.case.align, row.range));
        if above != group {
            above = group;
            table.across(heading(backend, row));
        }
        let leaves = leaves(&row.case, row.leaf);
        match failed {
            Some(failed) => table.across(failed_row(&row.case, &leaves, &failed)),
            None => table.cells(cells(row, leaves, &report)),
        }
    }
    Ok(table)
}

/// What the rows below it are about.
fn heading(backend: &Backend, row: &Row) -> String {
    let (size, align) = (ByteSize(row.range.size), ByteSize(row.case.align));
    let base = match align.0 == backend.kind.model().granule().bytes() {
        true => "base pages of ",
        false => "pages of ",
    };
    format!("-- {size} online in {base}{align}")
}

/// What stands for the figures of a row that was not done.
pub(super) fn failed_row(case: &Case, leaves: &str, failed: &str) -> String {
    format!("{}, leaves {leaves}: {failed}", case.shares())
}

/// What maps the vmemmap: leaves of `leaf` bytes.
pub(super) fn leaves(case: &Case, leaf: ByteSize) -> String {
    match case.tables {
        Tables::Shared => format!("{leaf} shared"),
        _ => leaf.to_string(),
    }
}

fn cells(row: &Row, leaves: String, report: &Report) -> [String; 8] {
    let frames = &report.frames;
    let gib = report.bytes() as f64 / GIB as f64;
    let per_gib = |frames: Option<u64>| match frames {
        Some(frames) => rounded((frames * report.frame_bytes) as f64 / gib),
        None => UNKNOWN.to_owned(),
    };
    let altmap = frames.altmap.filter(|_| row.case.altmap);
    let in_ram = frames.total.map(|total| total - altmap.unwrap_or(0));
    let tables = frames.leaf_tables.zip(frames.upper_tables);
    [
        row.case.shares().to_owned(),
        leaves,
        number(frames.descriptors),
        number(tables.map(|(leaf, upper)| leaf + upper)),
        per_gib(in_ram),
        per_gib(altmap),
        report.saved_percent.map(percent).unwrap_or_default(),
        time(report.online),
    ]
}
