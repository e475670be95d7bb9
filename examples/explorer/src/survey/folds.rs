//! What folding and unfolding changes, case by case.

use super::cases::Row;
use super::costs::{failed_row, leaves};
use super::layout::Layout;
use super::{Backend, Survey, name_of, percent};
use crate::fold::{FoldReport, FoldRequest, fold};
use crate::progress::Silent;
use crate::size::ByteSize;
use crate::table::{UNKNOWN, number, time};
use std::io;

/// Folds and unfolds what there is to fold on `backend`, one after the other.
pub(super) fn table(survey: &mut Survey<'_>, backend: &Backend) -> io::Result<Layout<8, 2>> {
    let mut table = Layout::new([
        "\ntails",
        "\nleaves",
        "frames\nbefore",
        "frames\nfolded",
        "\nsaved",
        "\nflushes",
        "folded\nin",
        "unfolded\nin",
    ]);
    let page = ByteSize(backend.kind.model().granule().bytes());
    let mut above = None;
    for row in &backend.fold {
        let what = format!("fold on {}", name_of(backend, row));
        survey.begin(&what);
        let request = FoldRequest {
            region: row.case.request(backend.kind, row.range),
            quiesce: true,
        };
        // The survey itself says how far it is.
        let report = fold(&request, survey.limits, &Silent);
        let failed = survey.end(&what, report.error.as_ref(), report.audit.as_deref())?;
        let group = Some((row.case.align, row.range));
        if above != group {
            above = group;
            table.across(heading(row));
        }
        // Shared tails need leaves of base pages, whatever there was before.
        let leaves = leaves(&row.case, page);
        match failed {
            Some(failed) => table.across(failed_row(&row.case, &leaves, &failed)),
            None => table.cells(cells(leaves, &report)),
        }
    }
    Ok(table)
}

/// What the rows below it are about.
fn heading(row: &Row) -> String {
    let (size, align) = (ByteSize(row.range.size), ByteSize(row.case.align));
    let leaf = row.leaf;
    format!("-- {size} online in base pages with leaves of {leaf}, folded to pages of {align}")
}

fn cells(leaves: String, report: &FoldReport) -> [String; 8] {
    [
        report.tails.unwrap_or(UNKNOWN).to_owned(),
        leaves,
        number(report.frames_base),
        number(report.frames_folded),
        report.saved_percent.map(percent).unwrap_or_default(),
        number(report.flushes),
        time(report.fold),
        time(report.unfold),
    ]
}
