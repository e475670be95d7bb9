//! The whole test suite, part by part.
//!
//! What takes time apart from testing is a part of its own: what apt-get brings, and what is built.

use crate::MachineArguments;
use crate::console;
use crate::dump::Inspected;
use crate::kernel::{Boot, Kernel, Parts};
use crate::libtest::Counter;
use crate::oldest;
use crate::parts::{Outcome, PACKAGES, Suite, say};
use crate::qemu::{self, Built, Verdict};
use crate::requirement;
use crate::side_by_side::{self, Transcript};
use crate::toolchain::{cargo, target_directory};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tempfile::NamedTempFile;

/// Tests that take half a minute or longer, and about how long, as in `("churn", "90 s")`. They are
/// named before the tests begin, for on a busy machine libtest says of each that it "has been running
/// for over 60 seconds".
const LONG_TESTS: &[(&str, &str)] = &[(
    "churn::operations_at_random_hold of testkit, for two of the backends",
    "30 s",
)];

/// Runs every part, then prints what became of each.
pub(crate) fn run(machine: &MachineArguments, install: bool) -> Result<ExitCode> {
    let directory = target_directory()?;
    let in_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
    let mut suite = Suite::new(!install && !in_ci);
    if install {
        // Parts that lack something after that say so.
        let _ = suite.prepare(PACKAGES, true, || Ok(((), packages()?)));
    }
    let built = build(&mut suite, &directory);
    hosted(&mut suite, &directory, built.hosted.clone());
    let oldest = oldest::name();
    suite.test(&oldest, Ok(()), |()| oldest::test(&directory));
    kernels(&mut suite, machine, &built.kernels);
    // Its tests need the program, so it was built with them.
    let explorer = built.hosted.map(|()| directory.join("debug/explorer"));
    dumps(&mut suite, machine, &built.kernels, &explorer, &directory);
    Ok(suite.close())
}

/// Installs all that is missing.
fn packages() -> Result<String> {
    let kernels = Kernel::value_variants().iter();
    let parts: Vec<_> = kernels.map(|kernel| kernel.parts()).collect();
    let missing = || parts.iter().flat_map(qemu::missing).collect();
    let installed = requirement::install(missing)?;
    Ok(match installed.is_empty() {
        true => "nothing was missing".to_owned(),
        false => format!("installed {}", installed.join(" ")),
    })
}

/// Something to build.
enum Build {
    /// The tests of the workspace, without the doctests.
    Hosted,
    /// All kernels for one target, as one of them says.
    Kernels(Parts, Vec<&'static str>),
}

/// What was built, or what becomes of the parts that need it.
struct AllBuilt {
    hosted: Result<(), Outcome>,
    /// By package.
    kernels: BTreeMap<&'static str, Result<Built, Outcome>>,
}

/// Builds everything, several parts at a time: each has times in which one CPU is enough for it.
/// Kernels for one target are built together, and what they have in common once.
fn build(suite: &mut Suite, directory: &Path) -> AllBuilt {
    let targets = by_target(Boot::all());
    let names = targets.iter().flat_map(|(_, packages)| packages);
    let names: Vec<&str> = names.copied().collect();
    suite.begin(&format!("building the hosted tests, {}", names.join(", ")));
    let mut builds = vec![Build::Hosted];
    let kernels = targets.into_iter();
    builds.extend(kernels.map(|(parts, packages)| Build::Kernels(parts, packages)));
    let mut all = AllBuilt {
        hosted: Err(Outcome::Failed("not built".to_owned())),
        kernels: BTreeMap::new(),
    };
    side_by_side::run(
        &builds,
        |build| match build {
            Build::Hosted => build_tests(cargo_test(cargo(), &[], directory)).map(|_| Vec::new()),
            Build::Kernels(parts, packages) => qemu::build(packages, parts, directory),
        },
        |build, result, time| {
            let name = match build {
                Build::Hosted => "hosted".to_owned(),
                Build::Kernels(parts, _) => format!("{} kernels", architecture(parts.target)),
            };
            let part = format!("{name} build");
            let result = result.map(|built| (built, format!("{name}: built")));
            match (build, suite.prepared(&part, false, result, time)) {
                (Build::Hosted, result) => all.hosted = result.map(drop),
                (Build::Kernels(..), Ok(built)) => {
                    let built = built
                        .into_iter()
                        .map(|(package, built)| (package, Ok(built)));
                    all.kernels.extend(built);
                }
                (Build::Kernels(_, packages), Err(outcome)) => {
                    let not_built = packages
                        .iter()
                        .map(|&package| (package, Err(outcome.clone())));
                    all.kernels.extend(not_built);
                }
            }
        },
    );
    all
}

/// What is to be built for each target, to boot all of `boots`: the parts of one of its kernels, and the
/// packages of all of them.
fn by_target(boots: impl Iterator<Item = Boot>) -> Vec<(Parts, Vec<&'static str>)> {
    let mut targets: Vec<(Parts, Vec<&str>)> = Vec::new();
    for parts in boots.map(|boot| boot.kernel.parts()) {
        let known = targets.iter_mut().find(|(of, _)| of.target == parts.target);
        match known {
            None => targets.push((parts, vec![parts.package])),
            Some((_, packages)) if packages.contains(&parts.package) => {}
            Some((_, packages)) => packages.push(parts.package),
        }
    }
    targets
}

/// The architecture in the name of a target.
fn architecture(target: &str) -> &str {
    target.split_once('-').map_or(target, |(first, _)| first)
}

/// Tests and doctests of the workspace. Doctests are built when they are run.
fn hosted(suite: &mut Suite, directory: &Path, built: Result<(), Outcome>) {
    suite.test("hosted tests", built, |()| {
        if let Some(line) = announcement(LONG_TESTS) {
            say(format_args!("{line}"));
        }
        let mut tests = cargo_test(cargo(), &[], directory);
        tests.arg("--no-fail-fast");
        let outcome = count_tests(tests, io::stdout(), |_| {})?;
        say(format_args!("\n{}", outcome.tally()));
        Ok(outcome)
    });
}

/// What tests `packages`, or all of the workspace if there are none, by `cargo`, built below
/// `directory`.
pub(crate) fn cargo_test(mut cargo: Command, packages: &[String], directory: &Path) -> Command {
    cargo
        .args(["test", "--locked", "--target-dir"])
        .arg(directory);
    if packages.is_empty() {
        cargo.arg("--workspace");
    }
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo
}

/// Builds what `cargo_test` would run, all but the doctests.
pub(crate) fn build_tests(mut cargo_test: Command) -> Result<((), String)> {
    let status = cargo_test.arg("--no-run").status()?;
    ensure!(status.success(), "cargo test --no-run: {status}");
    Ok(((), "built".to_owned()))
}

/// Which tests take long.
fn announcement(long: &[(&str, &str)]) -> Option<String> {
    let tests = long.iter();
    let tests: Vec<String> = tests
        .map(|(name, time)| format!("{name} (about {time})"))
        .collect();
    (!tests.is_empty()).then(|| {
        format!(
            "some tests take long, and on a busy machine libtest says so of them: {}",
            tests.join(", ")
        )
    })
}

/// Runs tests and counts them, with their output copied to `out` and each line shown to `look`.
/// Where none ran, something is wrong.
pub(crate) fn count_tests(
    command: Command,
    out: impl Write,
    mut look: impl FnMut(&str),
) -> Result<Outcome> {
    let mut counter = Counter::default();
    let status = console::watch(command, out, |line| {
        counter.line(line);
        look(line);
    })?;
    let tally = counter.finish(status.success());
    Ok(match tally.passed + tally.failed {
        0 => Outcome::Failed("no test ran".to_owned()),
        _ => Outcome::Ran(tally),
    })
}

/// Each kernel in QEMU, several at a time.
fn kernels(
    suite: &mut Suite,
    machine: &MachineArguments,
    built: &BTreeMap<&str, Result<Built, Outcome>>,
) {
    let mut boots: Vec<Boot> = Boot::all().collect();
    // What takes most memory takes longest, and nothing is left to wait for if it begins first.
    boots.sort_by_key(|boot| Reverse(machine.memory(boot.granule).mebibytes()));
    say(format_args!(
        "\n{} kernels, {} at a time: each is shown when it has ended",
        boots.len(),
        side_by_side::at_once().min(boots.len())
    ));
    let may_skip = suite.may_skip;
    side_by_side::run(
        &boots,
        |boot| {
            let built = built.get(boot.kernel.parts().package).cloned();
            let built = built.unwrap_or_else(|| Err(Outcome::Failed("not built".to_owned())));
            let transcript = Transcript::default();
            let tested = built.map(|built| {
                let verdict = qemu::boot(&built, *boot, machine, transcript.clone())?;
                Ok(Outcome::of_verdict(&verdict, may_skip))
            });
            (tested, transcript)
        },
        |boot, (tested, transcript), time| {
            let name = boot.to_string();
            suite.begin(&name);
            say(format_args!("{}", transcript.text().trim_end()));
            suite.tested(&name, tested, time);
        },
    );
}

/// Each kernel that describes its vmemmap, dumped while memory is online with each policy: what the explorer finds in the dump
/// has to be what the kernel says.
fn dumps(
    suite: &mut Suite,
    machine: &MachineArguments,
    built: &BTreeMap<&str, Result<Built, Outcome>>,
    explorer: &Result<PathBuf, Outcome>,
    directory: &Path,
) {
    for boot in Boot::all().filter(|boot| boot.kernel.starts_cpus()) {
        let name = format!("{boot}, dumped");
        let built = built.get(boot.kernel.parts().package).cloned();
        let built = built.unwrap_or_else(|| Err(Outcome::Failed("not built".to_owned())));
        let needed = built.and_then(|built| Ok((built, explorer.clone()?)));
        let may_skip = suite.may_skip;
        suite.test(&name, needed, |(built, explorer)| {
            let file = NamedTempFile::with_prefix_in("dump-", directory)?;
            let out = io::stdout();
            let (verdict, output) = qemu::boot_dumped(&built, boot, machine, file.path(), out)?;
            if let Verdict::Passed(_) = verdict {
                let inspected = Inspected::by(&explorer, file.path())?;
                let pages = inspected.is_what_was_said(&output, qemu::puts_notes(boot.kernel))?;
                // With other memory there are other pages.
                if boot.kernel == Kernel::X86_64 && machine.is_usual() {
                    inspected.is_what_the_book_shows()?;
                }
                say(format_args!(
                    "{pages} pages in the dump are what the kernel says"
                ));
            }
            Ok(Outcome::of_verdict(&verdict, may_skip))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    fn tests_of(script: &str) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        count_tests(command, io::sink(), |_| {}).unwrap()
    }

    #[test]
    fn tests_are_counted_and_none_at_all_are_a_failure() {
        let result =
            "running 2 tests\\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\\n";
        let good = tests_of(&format!("printf '{result}{result}'"));
        assert_eq!(
            good,
            Outcome::Ran(Tally {
                passed: 4,
                failed: 0,
                skipped: 2
            })
        );
        let crashed = tests_of(&format!("printf '{result}running 1 test\\n'; exit 101"));
        assert_eq!(
            crashed,
            Outcome::Ran(Tally {
                passed: 2,
                failed: 1,
                skipped: 1
            })
        );
        assert!(crashed.is_failure());
        for nothing in [
            "true",
            "echo 'test result: ok. 0 passed; 0 failed; 3 ignored'",
        ] {
            assert!(tests_of(nothing).is_failure(), "{nothing}");
        }
    }

    #[test]
    fn kernels_for_one_target_are_built_together_and_each_once() {
        let targets = by_target(Boot::all());
        let built: Vec<_> = targets
            .iter()
            .map(|(parts, packages)| (architecture(parts.target), packages.join(" ")))
            .collect();
        let x86_64 = "kernel-x86_64 embed-x86_64-crate embed-own-table";
        let expected = [
            ("x86_64", x86_64),
            ("aarch64", "kernel-aarch64"),
            ("riscv64gc", "kernel-riscv64"),
        ];
        assert_eq!(
            built,
            expected.map(|(of, packages)| (of, packages.to_owned()))
        );
    }

    #[test]
    fn long_tests_are_announced_where_there_are_any() {
        assert_eq!(announcement(&[]), None);
        assert_eq!(
            announcement(&[("churn", "90 s"), ("scripts", "2 min")]).unwrap(),
            "some tests take long, and on a busy machine libtest says so of them: churn (about 90 s), \
             scripts (about 2 min)"
        );
    }
}
