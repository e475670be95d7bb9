//! The hosted tests under sanitizers.
//!
//! The library that comes with the compiler is not instrumented, which neither sanitizer needs.

use crate::nightly::Nightly;
use crate::parts::{Outcome, Suite, say};
use crate::suite::{build_tests, cargo_test, count_tests};
use crate::toolchain::{root, target_directory};
use anyhow::Result;
use clap::ValueEnum;
use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

/// What looks for mistakes while tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sanitizer {
    /// AddressSanitizer: accesses outside of what was allocated, or after it was freed; leaks
    Address,
    /// ThreadSanitizer: accesses by several threads that nothing orders
    Thread,
}

use Sanitizer::{Address, Thread};

impl Sanitizer {
    /// What the compiler calls it.
    const fn name(self) -> &'static str {
        match self {
            Address => "address",
            Thread => "thread",
        }
    }

    /// The variable that its run-time library reads options from.
    const fn options_variable(self) -> &'static str {
        match self {
            Address => "ASAN_OPTIONS",
            Thread => "TSAN_OPTIONS",
        }
    }

    /// Whether a line is the first one of a report.
    fn begins_report(self, line: &str) -> bool {
        let beginnings: &[&str] = match self {
            Address => &["ERROR: AddressSanitizer", "ERROR: LeakSanitizer"],
            Thread => &["WARNING: ThreadSanitizer", "ERROR: ThreadSanitizer"],
        };
        beginnings.iter().any(|beginning| line.contains(beginning))
    }
}

/// A test that cannot run under a sanitizer.
struct LeftOut {
    /// Its name as libtest prints it, or a part that it has in common with others that are meant.
    test: &'static str,
    /// Where it is.
    file: &'static str,
    of: &'static [Sanitizer],
    why: &'static str,
}

impl LeftOut {
    const fn of_stack(test: &'static str) -> Self {
        Self {
            test,
            file: "hosted/tests/stack.rs",
            of: &[Address, Thread],
            why: "it measures stacks, which are larger here, and stores below the stack pointer",
        }
    }

    /// Whether it is one of `packages`, which are all if none is named. A package's folder has its
    /// name.
    fn is_in(&self, packages: &[String]) -> bool {
        let mut folders = self.file.split('/');
        packages.is_empty() || folders.any(|folder| packages.iter().any(|name| name == folder))
    }

    /// Where nothing is shared between threads, there is nothing for this sanitizer to see.
    const fn of_one_thread(test: &'static str, file: &'static str) -> Self {
        Self {
            test,
            file,
            of: &[Thread],
            why: "it takes minutes, and each of its machines has one thread",
        }
    }
}

/// All of them.
const LEFT_OUT: &[LeftOut] = &[
    LeftOut::of_stack("every_operation_takes_less_than_a_page_of_stack"),
    LeftOut::of_stack("what_takes_more_is_noticed"),
    LeftOut {
        test: "misuse_does_not_compile",
        file: "mm-core/tests/misuse.rs",
        of: &[Address, Thread],
        why: "the messages that it expects are those of the stable compiler",
    },
    LeftOut {
        test: "each_damage_is_noticed_by_the_check_that_is_named_after_it",
        file: "testkit/tests/suite/damage/mod.rs",
        of: &[Address],
        why: "its CPUs walk into tables that were freed, on purpose; the first report ends the process",
    },
    LeftOut {
        test: "a_tebibyte_node_serves_a_million_allocations_quickly",
        file: "arch-sim/src/frames/tests.rs",
        of: &[Address, Thread],
        why: "what a sanitizer keeps about a tebibyte takes more memory than there is",
    },
    LeftOut {
        test: "model_check",
        file: "testkit/tests/suite/readers/mod.rs",
        of: &[Address, Thread],
        why: "the model checker has stacks of its own, which a sanitizer does not know, and looks for races itself",
    },
    LeftOut::of_one_thread("any_wide_script_holds", "testkit/tests/suite/properties.rs"),
    LeftOut::of_one_thread(
        "any_narrow_script_holds",
        "testkit/tests/suite/properties.rs",
    ),
    LeftOut::of_one_thread(
        "a_tib_of_2_mib_pages_costs_at_most_2081_mib",
        "testkit/tests/suite/costs.rs",
    ),
    LeftOut::of_one_thread(
        "all_checks_pass_with_4k_pages",
        "examples/experiment/tests/hosted.rs",
    ),
    LeftOut::of_one_thread(
        "all_checks_pass_with_64k_pages",
        "examples/experiment/tests/hosted.rs",
    ),
    LeftOut::of_one_thread(
        "every_combination_of_policies_costs_what_its_geometry_says",
        "examples/explorer/tests/suite/combinations.rs",
    ),
    LeftOut::of_one_thread(
        "every_backend_policy_piece_and_leaf_costs_what_its_geometry_says",
        "examples/explorer/tests/suite/fold/costs.rs",
    ),
    LeftOut::of_one_thread(
        "the_whole_survey_is_clean_explained_and_fits_the_screen",
        "examples/explorer/tests/suite/survey.rs",
    ),
];

/// How many operations the churn has on each backend, and the variable that says otherwise.
const CHURN: (&str, u64) = ("CHURN_OPERATIONS", 1 << 17);

/// Runs the tests of `packages` under each of `sanitizers`, and prints what became of them. Where none
/// is named, all are meant.
pub(crate) fn run(sanitizers: &[Sanitizer], packages: &[String]) -> Result<ExitCode> {
    let nightly = Nightly::find()?;
    let directory = target_directory()?;
    let mut suite = Suite::new(false);
    for &sanitizer in Sanitizer::value_variants() {
        if sanitizers.is_empty() || sanitizers.contains(&sanitizer) {
            test(&mut suite, sanitizer, packages, &nightly, &directory);
        }
    }
    Ok(suite.close())
}

/// Builds and runs the tests under one.
fn test(
    suite: &mut Suite,
    sanitizer: Sanitizer,
    packages: &[String],
    nightly: &Nightly,
    directory: &Path,
) {
    let name = sanitizer.name();
    let directory = directory.join(format!("{name}-sanitizer"));
    let cargo_test = || {
        let mut cargo = cargo_test(nightly.cargo(), packages, &directory);
        instrument(&mut cargo, sanitizer, nightly.host());
        cargo
    };
    let built = suite.prepare(
        &format!("{name} build"),
        false,
        || build_tests(cargo_test()),
    );
    suite.test(&format!("{name} tests"), built, |()| {
        let mut tests = cargo_test();
        tests.args(["--no-fail-fast", "--"]);
        for left_out in left_out(sanitizer).filter(|test| test.is_in(packages)) {
            let LeftOut {
                test, file, why, ..
            } = left_out;
            say(format_args!("left out: {test} ({file}): {why}"));
            tests.args(["--skip", left_out.test]);
        }
        let (variable, operations) = CHURN;
        let operations = env::var(variable).unwrap_or_else(|_| operations.to_string());
        say(format_args!("{variable}={operations} on each backend"));
        tests.env(variable, operations);
        let outcome = count(tests, sanitizer, io::stdout())?;
        say(format_args!("\n{outcome}"));
        Ok(outcome)
    });
}

/// Has everything compiled for the sanitizer, and its reports printed among the tests' own lines.
///
/// With a target, the flags are not for build scripts and macros, which run within the compiler.
fn instrument(cargo: &mut Command, sanitizer: Sanitizer, host: &str) {
    let name = sanitizer.name();
    // The compiler's own library is not compiled with the first flag, which the second one allows.
    let flags =
        format!("-Zsanitizer={name} -Cunsafe-allow-abi-mismatch=sanitizer --cfg {name}_sanitizer");
    let variable = sanitizer.options_variable();
    let mut options = "log_path=stdout:allow_addr2line=1".to_owned();
    if sanitizer == Thread {
        let wrong = root().join("xtask/src/thread-sanitizer.suppressions");
        options = format!("{options}:suppressions=\"{}\"", wrong.display());
    }
    if let Ok(more) = env::var(variable) {
        options = format!("{options}:{more}");
    }
    cargo
        .args(["--target", host])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTDOCFLAGS")
        .env("RUSTFLAGS", &flags)
        .env("RUSTDOCFLAGS", &flags)
        .env(variable, options);
}

fn left_out(sanitizer: Sanitizer) -> impl Iterator<Item = &'static LeftOut> {
    LEFT_OUT
        .iter()
        .filter(move |left_out| left_out.of.contains(&sanitizer))
}

/// Runs tests and counts them, with their output copied to `out`. Reports count as failures: a test
/// passes in spite of them.
fn count(tests: Command, sanitizer: Sanitizer, mut out: impl Write) -> Result<Outcome> {
    let mut reports = 0;
    let outcome = count_tests(tests, &mut out, |line| {
        reports += u64::from(sanitizer.begins_report(line));
    })?;
    if reports > 0 {
        let name = sanitizer.name();
        writeln!(out, "\nreports of the {name} sanitizer: {reports}")?;
    }
    Ok(match outcome {
        Outcome::Ran(mut tally) => {
            // A process with reports fails, which has counted as one failure if nothing else has.
            tally.failed = tally.failed.max(reports);
            Outcome::Ran(tally)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_script(script: &str, sanitizer: Sanitizer) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        count(command, sanitizer, io::sink()).unwrap().to_string()
    }

    #[test]
    fn what_is_left_out_exists_and_is_of_a_sanitizer() {
        for left_out in LEFT_OUT {
            let source = std::fs::read_to_string(root().join(left_out.file)).unwrap();
            let name = left_out.test.rsplit("::").next().unwrap();
            let is_there = |what| source.contains(&format!("{what} {name}"));
            assert!(is_there("fn") || is_there("mod"), "{}", left_out.test);
            assert!(!left_out.of.is_empty() && !left_out.why.is_empty());
        }
    }

    #[test]
    fn reports_are_failures_though_tests_pass() {
        let passed = "echo 'test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured'";
        assert_eq!(count_script(passed, Thread), "9 passed, 0 failed");
        let race = "echo 'WARNING: ThreadSanitizer: data race (pid=7)'";
        let script = format!("echo 'running 9 tests'; {race}; {race}; {passed}; exit 66");
        let two = "FAILED: 9 passed, 2 failed";
        assert_eq!(count_script(&script, Thread), two);
        // Even if somebody's options make the process end well.
        let script = format!("{race}; {race}; {passed}");
        assert_eq!(count_script(&script, Thread), two);
    }

    #[test]
    fn a_process_that_a_report_ends_is_one_failure() {
        let report = "echo '==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x7'";
        let passed = "echo 'test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured'";
        let script = format!("{passed}; echo 'running 1 test'; {report}; exit 1");
        assert_eq!(count_script(&script, Address), "FAILED: 9 passed, 1 failed");
    }
}
