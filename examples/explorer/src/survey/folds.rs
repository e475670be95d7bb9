//! What folding and unfolding changes, case by case.

use super::cases::{FOLDED_BYTES, Row};
use super::{BackendRow, Survey, add_row, name_of, percent, plain_table};
use crate::fold::{FoldReport, FoldRequest, fold};
use crate::size::{ByteSize, rounded};
use crate::table::{align_right, number, time};
use comfy_table::Table;
use std::io::{self, Write};

/// Folds and unfolds `rows`, one after the other.
pub(super) fn table(survey: &mut Survey<'_>, rows: &[BackendRow]) -> io::Result<Table> {
    let mut table = plain_table([
        "backend",
        "align",
        "tails",
        "tables",
        "leaves",
        "range",
        "base\nframes",
        "folded",
        "unfolded",
        "saved",
        "flushes",
        "fold",
        "unfold",
        "audit",
    ]);
    let mut above = None;
    for row in rows {
        let what = format!("fold on {}", name_of(row));
        survey.begin(&what);
        let &(backend, row) = row;
        let request = FoldRequest {
            region: row.case.request(backend, row.range),
            quiesce: true,
        };
        let report = fold(&request, survey.limits);
        let verdict = survey.end(&what, report.error.as_ref(), report.audit.as_deref())?;
        add_row(
            &mut table,
            &mut above,
            backend,
            cells(row, &report, verdict),
        );
    }
    align_right(&mut table, 5);
    Ok(table)
}

fn cells(row: Row, report: &FoldReport, verdict: String) -> [String; 14] {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    [
        String::new(),
        report.align.clone(),
        text(report.tails),
        text(report.tables),
        row.leaf.to_string(),
        ByteSize(report.bytes()).to_string(),
        number(report.frames_base),
        number(report.frames_folded),
        number(report.frames_unfolded),
        report.saved_percent.map(percent).unwrap_or_default(),
        number(report.flushes),
        time(report.fold),
        time(report.unfold),
        verdict,
    ]
}

/// Says what the figures mean.
pub(super) fn print_notes(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Memory that came online in base pages, mapped by these leaves, is folded and unfolded. Frames are with all tables below the root; saved is against base pages."
    )?;
    writeln!(
        out,
        "Ranges are the largest whose descriptors take at most {} of host memory, or one page.",
        rounded(FOLDED_BYTES as f64),
    )
}
