//! Parts of what is tested, what became of each, and the table of all of them.

use crate::qemu::Verdict;
use crate::requirement::Requirement;
use crate::tally::Tally;
use anyhow::{Error, Result};
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something was built or installed.
    Done(String),
    /// Tests or checks were run.
    Ran(Tally),
    /// It failed as a whole; why.
    Failed(String),
    /// It could not be done, and need not be; why.
    Skipped(String),
}

impl Outcome {
    /// Of an error: where a part may be skipped, it is if it lacks something.
    fn of_error(error: &Error, may_skip: bool) -> Self {
        if may_skip && error.downcast_ref::<Requirement>().is_some() {
            Self::Skipped(error.to_string())
        } else {
            Self::Failed(format!("{error:#}"))
        }
    }

    /// Of a kernel.
    pub(crate) fn of_verdict(verdict: &Verdict, may_skip: bool) -> Self {
        match verdict {
            Verdict::Passed(tally) => Self::Ran(*tally),
            Verdict::Skipped(why) if may_skip => Self::Skipped(why.clone()),
            Verdict::Failed(last) => match Tally::of_line(last) {
                Some(tally) if tally.failed > 0 => Self::Ran(tally),
                _ => Self::Failed(format!("the kernel says so; last line: {last}")),
            },
            other => Self::Failed(other.to_string()),
        }
    }

    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::Ran(tally) => tally.failed > 0,
            Self::Failed(_) => true,
            Self::Done(_) | Self::Skipped(_) => false,
        }
    }

    /// How it counts: what failed or was skipped as a whole as one.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        match self {
            Self::Done(_) => {}
            Self::Ran(ran) => tally = *ran,
            Self::Failed(_) => tally.failed = 1,
            Self::Skipped(_) => tally.skipped = 1,
        }
        tally
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(what) => f.write_str(what),
            Self::Ran(tally) if tally.failed > 0 => write!(f, "FAILED: {tally}"),
            Self::Ran(tally) => write!(f, "{tally}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    outcome: Outcome,
    time: Duration,
    /// Whether it counts in the end. What is built counts by what is run of it.
    counts: bool,
}

/// The parts so far.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) may_skip: bool,
    /// Prints a line.
    say: fn(fmt::Arguments<'_>),
    start: Instant,
    parts: Vec<Part>,
}

impl Suite {
    /// A suite without parts, which prints to standard output. Where parts may be skipped, one that
    /// lacks something is.
    pub(crate) fn new(may_skip: bool) -> Self {
        Self {
            may_skip,
            say,
            start: Instant::now(),
            parts: Vec::new(),
        }
    }

    /// Runs a part that prepares for others. What becomes of those where it fails is the error.
    pub(crate) fn prepare<T>(
        &mut self,
        name: &str,
        counts: bool,
        part: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T, Outcome> {
        let start = self.begin(name);
        let prepared = part();
        self.prepared(name, counts, prepared, start.elapsed())
    }

    /// Ends a part that prepares for others, and took `time`.
    pub(crate) fn prepared<T>(
        &mut self,
        name: &str,
        counts: bool,
        prepared: Result<(T, String)>,
        time: Duration,
    ) -> Result<T, Outcome> {
        let (outcome, done) = match prepared {
            Ok((done, what)) => (Outcome::Done(what), Ok(done)),
            Err(error) => {
                let outcome = Outcome::of_error(&error, self.may_skip);
                let of_others = match outcome {
                    Outcome::Skipped(_) => Outcome::Skipped("not built".to_owned()),
                    _ => Outcome::Failed("not built".to_owned()),
                };
                (outcome, Err(of_others))
            }
        };
        self.end(name, outcome, time, counts);
        done
    }

    /// Runs a part that tests, with what was prepared for it.
    pub(crate) fn test<T>(
        &mut self,
        name: &str,
        prepared: Result<T, Outcome>,
        part: impl FnOnce(T) -> Result<Outcome>,
    ) {
        let start = self.begin(name);
        let tested = prepared.map(part);
        self.tested(name, tested, start.elapsed());
    }

    /// Ends a part that tests, and took `time`.
    pub(crate) fn tested(
        &mut self,
        name: &str,
        tested: Result<Result<Outcome>, Outcome>,
        time: Duration,
    ) {
        let outcome = match tested {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::of_error(&error, self.may_skip),
            Err(not_prepared) => not_prepared,
        };
        self.end(name, outcome, time, true);
    }

    pub(crate) fn begin(&self, name: &str) -> Instant {
        (self.say)(format_args!("\n== {name}"));
        Instant::now()
    }

    fn end(&mut self, name: &str, outcome: Outcome, time: Duration, counts: bool) {
        if !matches!(outcome, Outcome::Ran(_)) {
            (self.say)(format_args!("{outcome}"));
        }
        self.parts.push(Part {
            name: name.to_owned(),
            outcome,
            time,
            counts,
        });
    }

    fn tally(&self) -> Tally {
        let counted = self.parts.iter().filter(|part| part.counts);
        counted.map(|part| part.outcome.tally()).sum()
    }

    /// What became of each part, how long all took together, and the sum alone on the last line.
    fn table(&self, all: Duration) -> String {
        let row = |name: &str, time: Duration, what: &dyn fmt::Display| {
            let row = format!("{name:<25} {:>7.1} s  {what}", time.as_secs_f64());
            row.trim_end().to_owned()
        };
        let rows = self.parts.iter();
        let mut lines: Vec<String> = rows
            .map(|part| row(&part.name, part.time, &part.outcome))
            .collect();
        let packages = self.parts.iter().find(|part| part.name == PACKAGES);
        lines.push(match packages {
            None => row("all", all, &""),
            Some(packages) => {
                let own = all.saturating_sub(packages.time);
                row(&format!("all but {PACKAGES}"), own, &"")
            }
        });
        lines.push(self.tally().to_string());
        lines.join("\n")
    }

    /// Prints the table, and says how the whole ends.
    pub(crate) fn close(&self) -> ExitCode {
        (self.say)(format_args!("\n{}", self.table(self.start.elapsed())));
        self.status()
    }

    fn status(&self) -> ExitCode {
        match self.parts.iter().any(|part| part.outcome.is_failure()) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }
}

/// The part in which apt-get installs what is missing.
pub(crate) const PACKAGES: &str = "packages";

/// Prints a line. What the parts print goes to standard output too, so the order is kept.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Nobody to read it is no reason to stop.
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    fn missing() -> Error {
        Error::new(Requirement {
            what: "a thing is missing".to_owned(),
            packages: vec!["thing"],
            or: None,
        })
    }

    fn suite(may_skip: bool) -> Suite {
        Suite {
            may_skip,
            say: |_| {},
            start: Instant::now(),
            parts: Vec::new(),
        }
    }

    /// The rows without names and times, and the last line.
    fn outcomes(suite: &Suite) -> (Vec<String>, String) {
        let rows = suite.parts.iter().map(|part| part.outcome.to_string());
        let table = suite.table(Duration::ZERO);
        let last = table.lines().last().unwrap_or_default();
        (rows.collect(), last.to_owned())
    }

    #[test]
    fn only_what_is_missing_is_skipped_and_only_where_it_may_be() {
        assert_eq!(
            Outcome::of_error(&missing(), true).to_string(),
            "skipped: a thing is missing; run `apt-get install --no-install-recommends thing`"
        );
        assert!(Outcome::of_error(&missing(), false).is_failure());
        assert!(Outcome::of_error(&anyhow!("broken"), true).is_failure());
    }

    #[test]
    fn kernels_count_by_their_last_line_or_as_one() {
        let passed = Verdict::Passed(tally(7, 0, 2));
        assert_eq!(Outcome::of_verdict(&passed, true).tally(), tally(7, 0, 2));
        let failed = |last: &str| Outcome::of_verdict(&Verdict::Failed(last.to_owned()), true);
        assert_eq!(
            failed("6 passed, 1 failed, 0 skipped").to_string(),
            "FAILED: 6 passed, 1 failed"
        );
        for last in ["", "0 passed, 0 failed, 9 skipped"] {
            assert_eq!(failed(last).tally(), tally(0, 1, 0));
        }
        let panicked = Outcome::of_verdict(&Verdict::Panicked, true);
        assert_eq!(panicked.to_string(), "FAILED: the kernel panicked");
        let lacking = Verdict::Skipped("no such pages".to_owned());
        assert!(!Outcome::of_verdict(&lacking, true).is_failure());
        assert!(Outcome::of_verdict(&lacking, false).is_failure());
    }

    #[test]
    fn what_is_not_built_counts_by_what_would_have_run() {
        for (may_skip, of_tests, sum) in [
            (true, "skipped: not built", "5 passed, 0 failed, 2 skipped"),
            (false, "FAILED: not built", "5 passed, 2 failed"),
        ] {
            let mut suite = suite(may_skip);
            suite.test("one", Ok(()), |()| Ok(Outcome::Ran(tally(5, 0, 0))));
            let built = suite.prepare::<()>("build", false, || Err(missing()));
            for name in ["two", "three"] {
                suite.test(name, built.clone(), |()| panic!("{name} is run"));
            }
            let (rows, last) = outcomes(&suite);
            assert_eq!(rows[2..], [of_tests, of_tests]);
            assert_eq!(last, sum);
            assert_eq!(suite.status() == ExitCode::SUCCESS, may_skip);
        }
    }

    #[test]
    fn the_time_of_packages_is_told_from_the_rest() {
        let mut suite = suite(false);
        let part = |name: &str, seconds| Part {
            name: name.to_owned(),
            outcome: Outcome::Done("done".to_owned()),
            time: Duration::from_secs(seconds),
            counts: true,
        };
        suite.parts = vec![part("hosted build", 60), part("hosted tests", 90)];
        // Together they took less than one after the other.
        let all = "hosted build                 60.0 s  done\n\
                   hosted tests                 90.0 s  done\n\
                   all                         120.0 s\n\
                   0 passed, 0 failed";
        assert_eq!(suite.table(Duration::from_secs(120)), all);
        suite.parts.insert(0, part(PACKAGES, 30));
        let table = suite.table(Duration::from_secs(150));
        assert!(
            table.contains("\nall but packages            120.0 s\n"),
            "{table}"
        );
    }
}
