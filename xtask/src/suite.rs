//! The whole test suite, part by part.

use crate::MachineArguments;
use crate::kernel::Boot;
use crate::qemu::{self, Verdict};
use crate::requirement::{Missing, Requirement};
use crate::toolchain::cargo;
use anyhow::{Context, Error, Result};
use std::env;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What became of a part.
#[derive(Debug)]
enum Outcome {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(what) if what.is_empty() => f.write_str("passed"),
            Self::Passed(what) => write!(f, "passed ({what})"),
            Self::Failed(why) => write!(f, "FAILED ({why})"),
            Self::Skipped(why) => write!(f, "skipped ({why})"),
        }
    }
}

/// Runs every part, then prints what became of each.
pub(crate) fn run(machine: &MachineArguments, install: bool) -> Result<ExitCode> {
    let in_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
    let missing = if install {
        Missing::Install
    } else {
        Missing::Refuse
    };
    let may_skip = !install && !in_ci;

    let mut parts = vec![timed("hosted tests".to_owned(), hosted)];
    for boot in Boot::all() {
        parts.push(timed(boot.to_string(), || {
            let verdict = qemu::build_and_boot(boot, machine, missing);
            Ok(match verdict {
                Ok(Verdict::Passed(summary)) => Outcome::Passed(summary),
                Ok(Verdict::Skipped(why)) if may_skip => Outcome::Skipped(why),
                Ok(verdict) => Outcome::Failed(verdict.to_string()),
                Err(error) => could_not_run(&error, may_skip),
            })
        }));
    }

    eprintln!();
    for (name, outcome, time) in &parts {
        eprintln!("{name:<20} {:>6.1} s  {outcome}", time.as_secs_f64());
    }
    let all_good = parts
        .iter()
        .all(|(_, outcome, _)| !matches!(outcome, Outcome::Failed(_)));
    Ok(if all_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A part that lacks something is skipped where that is allowed; any other error is a failure.
fn could_not_run(error: &Error, may_skip: bool) -> Outcome {
    if may_skip && error.downcast_ref::<Requirement>().is_some() {
        Outcome::Skipped(error.to_string())
    } else {
        Outcome::Failed(format!("{error:#}"))
    }
}

fn timed(name: String, part: impl FnOnce() -> Result<Outcome>) -> (String, Outcome, Duration) {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let outcome = part().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    (name, outcome, start.elapsed())
}

/// Tests and doctests of the workspace.
fn hosted() -> Result<Outcome> {
    let status = cargo()
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .status()
        .context("cargo does not start")?;
    Ok(if status.success() {
        Outcome::Passed(String::new())
    } else {
        Outcome::Failed(format!("cargo test: {status}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn only_what_is_missing_is_skipped_and_only_where_it_may_be() {
        let missing = Error::new(Requirement {
            what: "a thing is missing".to_owned(),
            remedies: vec!["get it".to_owned(), "make it".to_owned()],
        });
        assert_eq!(
            could_not_run(&missing, true).to_string(),
            "skipped (a thing is missing; run `get it` or `make it`)"
        );
        assert!(matches!(could_not_run(&missing, false), Outcome::Failed(_)));
        assert!(matches!(
            could_not_run(&anyhow!("broken"), true),
            Outcome::Failed(_)
        ));
    }
}
