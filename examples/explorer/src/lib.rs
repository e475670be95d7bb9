//! What the vmemmap of compound pages costs and saves, on simulated machines, from the command
//! line.
//!
//! [`run`] is the whole program but for the process: `src/main.rs` hands it the arguments and the
//! two outputs.
//!
//! ```text
//!   args ──▶ request ──▶ need ──▶ simulation ──▶ online ──▶ report ──▶ table | json
//!                    │                       └─▶ fold ──▶ (report ──▶ text | json)
//!                    └─▶ plan ──▶ (text | json)
//!   survey: online and fold, for each backend, geometry and policy
//! ```
#![deny(missing_docs)]

pub mod altmap;
pub mod args;
pub mod audit;
pub mod failure;
pub mod fold;
pub mod geometry;
pub mod json;
pub mod need;
pub mod notes;
pub mod online;
pub mod plan;
pub mod refusal;
pub mod report;
pub mod request;
pub mod robustness;
pub mod simulation;
pub mod size;
pub mod stats;
pub mod survey;
pub mod table;
pub mod usage;

use args::{ALIGN_FORM, Cli, Command, FoldArgs, Format, OnlineArgs, PlanArgs};
use clap::Parser;
use fold::FoldRequest;
use geometry::NoPage;
use need::Limits;
use request::Request;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use survey::Progress;

/// It was done.
pub const DONE: u8 = 0;

/// The operation failed.
pub const FAILED: u8 = 1;

/// The arguments were bad.
pub const BAD_ARGUMENTS: u8 = 2;

/// Where a run writes to.
pub struct Console<'c> {
    /// Results.
    pub stdout: &'c mut dyn Write,
    /// Messages.
    pub stderr: &'c mut dyn Write,
    /// Hears how far a long run is.
    pub progress: Progress<'c>,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

/// Runs the program with `args`, of which the first is its name, and says what it exits with:
/// [`DONE`], [`FAILED`] or [`BAD_ARGUMENTS`].
pub fn run<I>(args: I, limits: &Limits, console: &mut Console<'_>) -> u8
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let (progress, stderr) = (console.progress, &mut *console.stderr);
    let mut stdout = BufWriter::new(&mut *console.stdout);
    let done = match Cli::try_parse_from(args::attach_negative_values(args)) {
        Ok(cli) => dispatch(cli, limits, progress, &mut stdout, stderr),
        Err(error) if error.use_stderr() => {
            say(stderr, &usage::one_line(&error));
            return BAD_ARGUMENTS;
        }
        // Help and version.
        Err(text) => write!(stdout, "{}", text.render()).map(|()| DONE),
    };
    match done.and_then(|code| stdout.flush().map(|()| code)) {
        Ok(code) => code,
        // Who reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            say(stderr, &format!("cannot write the result: {error}"));
            FAILED
        }
    }
}

fn dispatch(
    cli: Cli,
    limits: &Limits,
    progress: Progress<'_>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    match cli.command {
        None => survey::survey(limits, progress, stdout, stderr).map(exit_code),
        Some(Command::Online(args)) => online(args, limits, stdout, stderr),
        Some(Command::Fold(args)) => fold(args, limits, stdout, stderr),
        Some(Command::Plan(args)) => plan(args, limits, stdout, stderr),
    }
}

fn online(
    args: OnlineArgs,
    limits: &Limits,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let (request, format) = match Request::from_args(args.region) {
        Ok(asked) => asked,
        Err(no_page) => return Ok(bad_align(stderr, no_page)),
    };
    let report = online::online(&request, limits);
    if let Some(failure) = &report.error {
        say(stderr, &failure.to_string());
    }
    match format {
        Format::Table => table::print(stdout, &report, args.stats)?,
        Format::Json => json::print(stdout, &report)?,
    }
    Ok(exit_code(report.is_good()))
}

fn fold(
    args: FoldArgs,
    limits: &Limits,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let quiesce = !args.no_quiesce;
    let (region, format) = match Request::from_args(args.region) {
        Ok(asked) => asked,
        Err(no_page) => return Ok(bad_align(stderr, no_page)),
    };
    let report = fold::fold(&FoldRequest { region, quiesce }, limits);
    if let Some(failure) = &report.error {
        say(stderr, &failure.to_string());
    }
    match format {
        Format::Table => fold::print(stdout, &report, args.stats)?,
        Format::Json => json::print(stdout, &report)?,
    }
    Ok(exit_code(report.is_good()))
}

fn plan(
    args: PlanArgs,
    limits: &Limits,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<u8> {
    let limit = args.limit;
    let (request, format) = match Request::from_args(args.region) {
        Ok(asked) => asked,
        Err(no_page) => return Ok(bad_align(stderr, no_page)),
    };
    let failure = plan::print(&request, limits, plan::Style { format, limit }, stdout)?;
    if let Some(failure) = &failure {
        say(stderr, &failure.to_string());
    }
    Ok(exit_code(failure.is_none()))
}

/// Says what is wrong with `--align`, which only shows once the backend is known.
fn bad_align(stderr: &mut dyn Write, no_page: NoPage) -> u8 {
    say(stderr, &format!("--align <{ALIGN_FORM}>: {no_page}"));
    BAD_ARGUMENTS
}

const fn exit_code(good: bool) -> u8 {
    if good { DONE } else { FAILED }
}

/// Writes an error to `stderr`. If that cannot be written to either, there is nowhere left to say
/// so.
fn say(stderr: &mut dyn Write, message: &str) {
    let _ = writeln!(stderr, "error: {message}");
}
