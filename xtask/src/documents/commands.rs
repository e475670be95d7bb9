//! Every command in the documents, and what runs it.

use super::read;
use crate::kernel::Boot;
use crate::toolchain::root;
use crate::{Arguments, Command};
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;

/// What runs a command, or why nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunBy {
    /// The explorer's test `every_call_in_the_documents_succeeds`, all that begin so.
    Explorer,
    /// `.ci/run`, as it is or with more packages.
    Ci,
    /// A part of `cargo xtask test`: it has these tests, or boots this kernel.
    Suite,
    /// Somebody, now and then: too long for a test, or it needs what not every machine has.
    Hand,
}

/// A command, and where it is.
#[derive(Debug)]
struct Said {
    document: String,
    line: usize,
    command: String,
}

/// The Markdown files.
fn documents() -> Vec<String> {
    let names = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"];
    let mut documents: Vec<String> = names.map(str::to_owned).to_vec();
    documents.push("docs/soundness.md".to_owned());
    documents.push("docs/performance.md".to_owned());
    documents.push("examples/kernels/README.md".to_owned());
    let book = fs::read_dir(root().join("docs/book")).unwrap();
    let names = book.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let chapters = names.filter(|name| name.ends_with(".md"));
    documents.extend(chapters.map(|name| format!("docs/book/{name}")));
    documents
}

/// The commands in a line: all of it behind a `$` or an indentation; and spans of code.
fn commands_in(line: &str) -> Vec<&str> {
    let starts = |text: &&str| text.starts_with("cargo ") || text.starts_with(".ci/");
    if let Some(command) = line.strip_prefix("$ ") {
        return vec![command];
    }
    if let Some(command) = line.strip_prefix("    ").filter(starts) {
        return vec![command];
    }
    line.split('`').skip(1).step_by(2).filter(starts).collect()
}

fn all_said() -> Vec<Said> {
    let mut all = Vec::new();
    for document in documents() {
        for (number, line) in read(&document).lines().enumerate() {
            for command in commands_in(line) {
                // Behind what the environment gets, and without a comment.
                let command = command.split('#').next().unwrap_or(command);
                let words = command.split_whitespace();
                let words = words.skip_while(|word| word.contains('=') && !word.starts_with('-'));
                all.push(Said {
                    document: document.clone(),
                    line: number + 1,
                    command: words.collect::<Vec<_>>().join(" "),
                });
            }
        }
    }
    all
}

/// What runs `command`, if it is one that there is.
///
/// # Errors
///
/// Why it is none.
fn run_by(command: &str) -> Result<RunBy, String> {
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["cargo", "run", "--release", "-p", "explorer", ..] => Ok(RunBy::Explorer),
        ["cargo", "xtask", rest @ ..] => {
            let words = ["cargo xtask"].iter().chain(rest);
            match Arguments::try_parse_from(words) {
                Ok(arguments) => Ok(xtask_run_by(&arguments.command)),
                Err(error) => Err(error.to_string()),
            }
        }
        ["cargo", "test", rest @ ..] => has_targets(rest).map(|()| RunBy::Suite),
        // Opened or not, of some packages or all.
        ["cargo", "doc", "--open", rest @ ..] => has_targets(rest).map(|()| RunBy::Ci),
        [".ci/run"] => Ok(RunBy::Ci),
        ["cargo", "fmt" | "clippy", ..] if read(".ci/run").contains(command) => Ok(RunBy::Ci),
        ["cargo", "bench", rest @ ..] => has_targets(rest).map(|()| RunBy::Hand),
        ["cargo", "package" | "publish", "--workspace", ..] => Ok(RunBy::Hand),
        ["cargo", "deny", "check"] => Ok(RunBy::Hand),
        ["cargo", "+nightly", "fuzz", "run", target] => {
            let is_there = root()
                .join(format!("fuzz/fuzz_targets/{target}.rs"))
                .exists();
            is_there
                .then_some(RunBy::Hand)
                .ok_or_else(|| format!("there is no fuzz target {target}"))
        }
        _ => Err("nothing runs it".to_owned()),
    }
}

fn xtask_run_by(command: &Command) -> RunBy {
    match command {
        Command::Test { .. } if read(".ci/run").contains("cargo xtask test") => RunBy::Ci,
        Command::Test { .. } => RunBy::Hand,
        Command::Qemu { icount: true, .. } => RunBy::Hand,
        Command::Qemu {
            kernel, granule, ..
        } => {
            let mut boots = Boot::all();
            let is_booted = boots.any(|boot| (boot.kernel, boot.granule) == (*kernel, *granule));
            if is_booted { RunBy::Suite } else { RunBy::Hand }
        }
        // Tests of this crate, and a part of the suite.
        Command::Soundness | Command::Api { .. } | Command::Oldest => RunBy::Suite,
        Command::Bench { .. } | Command::Size | Command::Sanitize { .. } => RunBy::Hand,
    }
}

/// Whether the packages and benchmarks that are named exist.
fn has_targets(words: &[&str]) -> Result<(), String> {
    for pair in words.windows(2) {
        let there = match pair {
            ["-p", package] => {
                let manifest = format!("[package]\nname = \"{package}\"\n");
                let manifests =
                    ["", "examples/"].map(|above| format!("{above}{package}/Cargo.toml"));
                manifests.iter().any(|file| {
                    fs::read_to_string(root().join(file)).is_ok_and(|text| text.contains(&manifest))
                })
            }
            ["--bench", name] => [format!("{name}.rs"), format!("{name}/main.rs")]
                .iter()
                .any(|file| root().join("benches/benches").join(file).exists()),
            _ => true,
        };
        if !there {
            return Err(format!("there is no {}", pair[1]));
        }
    }
    Ok(())
}

#[test]
fn every_command_in_the_documents_is_one_that_there_is() {
    let all = all_said();
    for said in &all {
        if let Err(why) = run_by(&said.command) {
            panic!("{}:{}: {}: {why}", said.document, said.line, said.command);
        }
    }
    assert!(all.len() >= 40, "{}", all.len());
}

#[test]
fn tests_run_every_command_of_readme_and_book() {
    let mut runs = BTreeSet::new();
    for said in all_said() {
        if said.document == "README.md" || said.document.starts_with("docs/book/") {
            let by = run_by(&said.command);
            let place = format!("{}:{}: {}", said.document, said.line, said.command);
            assert_ne!(by, Ok(RunBy::Hand), "{place}: no test runs it");
            runs.insert(said.command);
        }
    }
    assert!(runs.len() >= 12, "{runs:?}");
}

#[test]
fn commands_are_found_wherever_they_are() {
    assert_eq!(
        commands_in("$ A=1 cargo test # all"),
        ["A=1 cargo test # all"]
    );
    assert_eq!(commands_in("    cargo xtask size"), ["cargo xtask size"]);
    assert_eq!(commands_in("    let cargo = 1;"), [""; 0]);
    assert_eq!(
        commands_in("Run `cargo xtask api` or `.ci/run`, not `cargo`."),
        ["cargo xtask api", ".ci/run"]
    );
}

#[test]
fn what_is_not_there_is_said() {
    for command in [
        "cargo xtask sise",
        "cargo test -p testkid",
        "cargo bench -p benches --bench none",
        "cargo run -p explorer",
        "cargo +nightly fuzz run nothing",
        "make",
    ] {
        assert!(run_by(command).is_err(), "{command}");
    }
}
