//! Every backend, geometry and policy side by side: what the program does without a command.
//!
//! - `selection`: which backends, and pages of which sizes;
//! - `cases`: what there is, and how much memory each case gets;
//! - `costs`: the table of what it costs online;
//! - `folds`: the table of what folding and unfolding changes;
//! - `layout`: how tables look; `legend`: what their words mean.

mod cases;
mod costs;
mod folds;
mod layout;
mod legend;
mod selection;

use crate::failure::Failure;
use crate::need::Limits;
use crate::progress::Progress;
use crate::report::CLEAN;
use crate::screen::print_wrapped;
use crate::size::{ByteSize, rounded};
use cases::{FoldRows, GIB, Row, Rows};
use hosted::BackendKind;
pub use selection::Selection;
use std::io::{self, Write};

/// What a survey is shown on.
pub struct Screen<'s> {
    /// Hears how far it is.
    pub progress: &'s dyn Progress,
    /// How wide lines are at most.
    pub columns: usize,
    /// Results; flushed when a backend is done.
    pub out: &'s mut dyn Write,
    /// Messages.
    pub stderr: &'s mut dyn Write,
}

impl std::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

/// Surveys what is selected, and prints two tables for each backend when that is done. Says whether
/// all was done with clean audits.
///
/// # Errors
///
/// Those of the output.
pub fn survey<'s>(
    selection: &Selection,
    limits: &'s Limits,
    screen: Screen<'s>,
) -> io::Result<bool> {
    let backends: Vec<Backend> = selection.backends.iter().map(Backend::of).collect();
    let rows = |backend: &Backend| backend.online.len() + backend.fold.len();
    let mut survey = Survey {
        limits,
        screen,
        done: 0,
        all: backends.iter().map(rows).sum(),
        good: true,
    };
    for backend in &backends {
        survey.show(backend)?;
    }
    let Screen { columns, out, .. } = survey.screen;
    legend::print(out, columns, &backends)?;
    Ok(survey.good)
}

/// What is done on a backend.
struct Backend {
    kind: BackendKind,
    online: Vec<Row>,
    fold: Vec<Row>,
}

impl Backend {
    fn of((kind, pages): &(BackendKind, Vec<u64>)) -> Self {
        let facts = &kind.facts();
        Self {
            kind: *kind,
            online: Rows { pages }.on(facts),
            fold: FoldRows { pages }.on(facts),
        }
    }

    /// What the flat array costs, per GiB.
    fn flat(&self) -> String {
        let model = self.kind.model();
        let frames = GIB / model.granule().bytes();
        rounded((frames * model.descriptor_bytes()) as f64)
    }
}

/// How far a survey is.
struct Survey<'s> {
    limits: &'s Limits,
    screen: Screen<'s>,
    done: usize,
    all: usize,
    good: bool,
}

impl Survey<'_> {
    /// Does what there is on `backend`, and prints it.
    fn show(&mut self, backend: &Backend) -> io::Result<()> {
        let (name, about) = (backend.kind.name(), backend.kind.about());
        let title = format!(
            "{name}: {about}. A flat array costs {} per GiB.",
            backend.flat()
        );
        if backend.online.is_empty() {
            let none = format!("{title} It has no pages of this size.");
            print_wrapped(self.screen.out, &none, self.screen.columns, 2)?;
            return writeln!(self.screen.out);
        }
        let good_before = std::mem::replace(&mut self.good, true);
        let costs = costs::table(self, backend)?;
        let folds = folds::table(self, backend)?;
        self.screen.progress.hide();
        let (out, columns) = (&mut *self.screen.out, self.screen.columns);
        print_wrapped(out, &title, columns, 2)?;
        writeln!(out)?;
        costs.print(out, columns)?;
        writeln!(out)?;
        if !backend.fold.is_empty() {
            folds.print(out, columns)?;
            writeln!(out)?;
        }
        let audits = match self.good {
            true => "clean after each step of every row",
            false => "not clean, or rows failed; the reasons are on standard error",
        };
        writeln!(out, "audit: {audits}\n")?;
        self.good &= good_before;
        out.flush()
    }

    fn begin(&mut self, what: &str) {
        let Screen { progress, .. } = self.screen;
        progress.step(what, self.done, self.all);
    }

    /// Says what went wrong with `what`, if anything did, and answers with what the table says of
    /// it.
    fn end(
        &mut self,
        what: &str,
        error: Option<&Failure>,
        audit: Option<&str>,
    ) -> io::Result<Option<String>> {
        self.done += 1;
        let said = match (error, audit) {
            (Some(failure), _) => failure.to_string(),
            (None, Some(CLEAN)) => return Ok(None),
            (None, found) => format!("audit: {}", found.unwrap_or("none")),
        };
        self.good = false;
        self.screen.progress.hide();
        writeln!(self.screen.stderr, "error: {what}: {said}")?;
        let verdict = error.map_or("audit", |failure| failure.kind);
        Ok(Some(format!("failed: {verdict}")))
    }
}

/// A case in a few words.
fn name_of(backend: &Backend, row: &Row) -> String {
    format!("{} at {}", backend.kind.name(), ByteSize(row.case.align))
}

/// Two digits; what rounds to zero has no sign, and what is not all does not round to all.
fn percent(saved: f64) -> String {
    let rounded = (saved * 100.0).round() / 100.0 + 0.0;
    let rounded = match saved < 100.0 {
        true => rounded.min(99.99),
        false => rounded,
    };
    format!("{rounded:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saving_is_not_rounded_to_what_it_is_not() {
        let cases = [
            (-0.2075, "-0.21%"),
            (-0.001, "0.00%"),
            (99.95, "99.95%"),
            (99.9996, "99.99%"),
            (100.0, "100.00%"),
        ];
        for (saved, text) in cases {
            assert_eq!(percent(saved), text);
        }
    }
}
