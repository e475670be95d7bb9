//! The benchmarks' report: what `benches/benches/report` prints and writes.

use crate::requirement::Requirement;
use crate::toolchain::cargo;
use crate::{MachineArguments, icount};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// All of them, and nothing else, on standard output.
    Json,
}

/// What is measured, and what becomes of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Fewer rounds and sizes: done within four minutes once it is built
    #[arg(long)]
    quick: bool,
    /// How figures are printed
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        ignore_case = true
    )]
    format: Format,
    /// Write figures.json, figures.md and plots as SVG into this folder as well, which is made if need be
    ///
    /// Without --quick, also kernel.txt: what `qemu x86_64 --icount` prints.
    #[arg(long, value_name = "FOLDER", value_parser = folder)]
    out: Option<PathBuf>,
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    match path {
        _ if text.is_empty() => Err("a folder has a name; `.` is this one".to_owned()),
        _ if path.exists() && !path.is_dir() => Err(format!("{text} is a file, not a folder")),
        _ => Ok(path.to_path_buf()),
    }
}

impl Wanted {
    /// What the report is told, with `out` as it is from everywhere.
    fn words(&self, out: Option<&Path>) -> Vec<String> {
        let mut words = Vec::new();
        if self.quick {
            words.push("--quick".to_owned());
        }
        if self.format == Format::Json {
            words.push("--json".to_owned());
        }
        if let Some(out) = out {
            words.extend(["--out".to_owned(), out.display().to_string()]);
        }
        words
    }
}

/// Builds the report and runs it.
///
/// # Errors
///
/// Where the folder cannot be made, or cargo does not start.
pub(crate) fn run(wanted: &Wanted) -> Result<ExitCode> {
    let out = match &wanted.out {
        None => None,
        Some(out) => {
            fs::create_dir_all(out)
                .with_context(|| format!("the folder {} cannot be made", out.display()))?;
            Some(
                out.canonicalize()
                    .with_context(|| out.display().to_string())?,
            )
        }
    };
    let status = cargo()
        .args([
            "bench",
            "--locked",
            "--package",
            "benches",
            "--bench",
            "report",
            "--",
        ])
        .args(wanted.words(out.as_deref()))
        .status()
        .context("cargo does not start")?;
    ensure!(
        status.success(),
        "the benchmarks stopped ({status}); what they say is above"
    );
    if let Some(out) = out.filter(|_| !wanted.quick) {
        write_kernel(&out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what the kernel that counts its instructions says, where it can be built and booted.
fn write_kernel(out: &Path) -> Result<()> {
    let (verdict, text) = match icount::counted(&MachineArguments::usual()) {
        Err(error) if error.is::<Requirement>() => {
            eprintln!("the kernel's instructions are not counted: {error:#}");
            return Ok(());
        }
        counted => counted?,
    };
    ensure!(
        verdict.status() == 0,
        "kernel count-x86_64: {verdict}\n{text}"
    );
    let file = out.join("kernel.txt");
    fs::write(&file, text).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Command};
    use clap::Parser;

    fn wanted(arguments: &str) -> Result<Wanted, String> {
        let words = ["xtask", "bench"].into_iter();
        match Arguments::try_parse_from(words.chain(arguments.split_whitespace())) {
            Ok(arguments) => match arguments.command {
                Command::Bench { wanted } => Ok(wanted),
                _ => panic!("{}", "another command"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_report_is_told_what_was_asked_for() {
        let words = |arguments| {
            let wanted = wanted(arguments).unwrap();
            wanted.words(wanted.out.as_deref()).join(" ")
        };
        assert_eq!(words(""), "");
        assert_eq!(words("--format table"), "");
        assert_eq!(words("--quick --format JSON"), "--quick --json");
        assert_eq!(words("--out a/b --quick"), "--quick --out a/b");
    }

    #[test]
    fn wrong_arguments_say_what_is_right() {
        for (arguments, why) in [
            ("--format yaml", "possible values: table, json"),
            ("--format", "a value is required for '--format <FORMAT>'"),
            ("--out=", "a folder has a name"),
            ("--out Cargo.toml", "Cargo.toml is a file, not a folder"),
            ("--quik", "unexpected argument '--quik'"),
            ("entries", "unexpected argument 'entries'"),
        ] {
            let refusal = wanted(arguments).unwrap_err();
            assert!(refusal.contains(why), "{arguments}: {refusal}");
        }
    }
}
