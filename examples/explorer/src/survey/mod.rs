//! Every backend, geometry and policy side by side: what the program does when nothing is said.
//!
//! - `cases`: what there is, and how much memory each case gets;
//! - `costs`: the table of what it costs online;
//! - `folds`: the table of what folding and unfolding changes.

mod cases;
mod costs;
mod folds;

use crate::failure::Failure;
use crate::need::Limits;
use crate::report::CLEAN;
use crate::size::ByteSize;
use cases::{FoldRows, Row, Rows};
use comfy_table::{LineStyle, Table, presets};
use hosted::{BackendKind, WithBackend};
use std::io::{self, Write};

/// Hears of what is being done: what, how much of it is done, and how much there is.
pub type Progress<'p> = &'p dyn Fn(&str, usize, usize);

/// Runs all cases and prints two tables to `out`. Says whether all were done with clean audits.
///
/// # Errors
///
/// Those of `out`.
pub fn survey(
    limits: &Limits,
    progress: Progress<'_>,
    out: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<bool> {
    let (online, fold) = (on_all_backends(|| Rows), on_all_backends(|| FoldRows));
    let mut survey = Survey {
        limits,
        progress,
        stderr,
        done: 0,
        all: online.len() + fold.len(),
        good: true,
    };
    let costs = costs::table(&mut survey, &online)?;
    writeln!(out, "{}\n", costs.trim_fmt())?;
    costs::print_notes(out, &online)?;
    let folds = folds::table(&mut survey, &fold)?;
    writeln!(out, "\n{}\n", folds.trim_fmt())?;
    folds::print_notes(out)?;
    progress("", survey.all, survey.all);
    Ok(survey.good)
}

/// A row, and the backend that it is run on.
type BackendRow = (BackendKind, Row);

fn on_all_backends<J: WithBackend<Output = Vec<Row>>>(rows: impl Fn() -> J) -> Vec<BackendRow> {
    let rows = |backend: BackendKind| {
        let rows = backend.run(rows());
        rows.into_iter().map(move |row| (backend, row))
    };
    BackendKind::ALL.into_iter().flat_map(rows).collect()
}

/// How far a survey is.
struct Survey<'s> {
    limits: &'s Limits,
    progress: Progress<'s>,
    stderr: &'s mut dyn Write,
    done: usize,
    all: usize,
    good: bool,
}

impl Survey<'_> {
    fn begin(&mut self, what: &str) {
        (self.progress)(what, self.done, self.all);
    }

    /// Says what went wrong with `what`, if anything did, and answers with what the table says.
    fn end(
        &mut self,
        what: &str,
        error: Option<&Failure>,
        audit: Option<&str>,
    ) -> io::Result<String> {
        self.done += 1;
        let found = audit.filter(|audit| *audit != CLEAN);
        if let Some(failure) = error {
            writeln!(self.stderr, "error: {what}: {failure}")?;
        }
        if let Some(found) = found {
            writeln!(self.stderr, "error: {what}: {found}")?;
        }
        let verdict = match (error, audit) {
            (Some(failure), _) => failure.kind,
            (None, Some(CLEAN)) => CLEAN,
            (None, _) => "FAILED",
        };
        self.good &= verdict == CLEAN;
        Ok(verdict.to_owned())
    }
}

/// A table without borders.
fn plain_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    let style = presets::UTF8_NO_BORDERS.row_separator(LineStyle::none());
    table.load_style(style).set_header(header);
    table
}

/// Adds `cells` to `table`, with a gap before each backend, which is named once.
fn add_row<const N: usize>(
    table: &mut Table,
    above: &mut Option<BackendKind>,
    backend: BackendKind,
    mut cells: [String; N],
) {
    if above.is_some_and(|above| above != backend) {
        table.add_row([""; N]);
    }
    if let Some(first) = cells.first_mut().filter(|_| *above != Some(backend)) {
        first.push_str(backend.name());
    }
    table.add_row(cells);
    *above = Some(backend);
}

/// A case in a few words.
fn name_of((backend, row): &BackendRow) -> String {
    format!("{} at {}", backend.name(), ByteSize(row.case.align))
}

/// Two digits; what rounds to zero has no sign.
fn percent(saved: f64) -> String {
    format!("{:.2} %", (saved * 100.0).round() / 100.0 + 0.0)
}
