//! What the vmemmap of compound pages costs and saves, on simulated machines, from the command
//! line.
//!
//! [`run`] is the whole program but for the process: `src/main.rs` hands it the arguments and the
//! two outputs.
//!
//! ```text
//!   args ──▶ request ──▶ need ──▶ simulation ──▶ online ──▶ report ──▶ table | json
//!                    │                       ├─▶ fold ──▶ (report ──▶ text | json)
//!                    │                       ├─▶ reorder ──▶ (report ──▶ text | json)
//!                    │                       └─▶ lazy ──▶ (report ──▶ text | json)
//!                    ├─▶ plan ──▶ (text | json)
//!                    └─▶ live ──▶ look ──▶ picture ──▶ (svg | text)
//!             dump ──────────────▶ look ──▶ (picture | report ──▶ text | json)
//!   survey: online and fold, for each backend, geometry and policy
//!
//!   host, screen: what it runs and prints on      progress: who hears how far it is
//! ```
#![deny(missing_docs)]

pub mod altmap;
pub mod args;
pub mod audit;
pub mod chart;
pub mod counts;
pub mod draw;
pub mod dump;
pub mod failure;
pub mod fold;
pub mod geometry;
pub mod host;
pub mod json;
pub mod lazy;
pub mod live;
pub mod look;
pub mod need;
pub mod notes;
pub mod online;
pub mod packed;
pub mod picture;
pub mod plan;
pub mod progress;
pub mod refusal;
pub mod reorder;
pub mod report;
pub mod request;
pub mod robustness;
pub mod screen;
pub mod simulation;
pub mod size;
pub mod stats;
pub mod survey;
pub mod table;
pub mod usage;

use args::{
    ALIGN_FORM, ChartArgs, Cli, Command, FoldArgs, Format, LazyArgs, OnlineArgs, PlanArgs,
    ReorderArgs, SurveyArgs,
};
use clap::{CommandFactory, FromArgMatches};
use draw::DrawArgs;
use dump::{DumpArgs, InspectArgs};
use failure::Failure;
use fold::FoldRequest;
use geometry::NoPage;
use lazy::LazyRequest;
use need::Limits;
use progress::Progress;
use reorder::ReorderRequest;
use request::Request;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use survey::Selection;

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
    /// Hears how far a run is.
    pub progress: &'c dyn Progress,
    /// How wide help and the survey are at most.
    pub columns: usize,
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
    let stderr = &mut *console.stderr;
    let mut stdout = BufWriter::new(&mut *console.stdout);
    let done = match parse(args, console.columns) {
        Ok(cli) => {
            let mut run = Run {
                limits,
                progress: console.progress,
                columns: console.columns,
                stdout: &mut stdout,
                stderr,
            };
            let done = run.dispatch(cli);
            console.progress.hide();
            done
        }
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

/// Reads `args`, for help in `columns`.
fn parse<I>(args: I, columns: usize) -> Result<Cli, clap::Error>
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let command = Cli::command().term_width(columns);
    let args = args::leave_out_help_of_help(args::attach_negative_values(args));
    Cli::from_arg_matches(&command.try_get_matches_from(args)?)
}

/// A run whose arguments could be read.
struct Run<'r> {
    limits: &'r Limits,
    progress: &'r dyn Progress,
    columns: usize,
    stdout: &'r mut dyn Write,
    stderr: &'r mut dyn Write,
}

impl Run<'_> {
    fn dispatch(&mut self, cli: Cli) -> io::Result<u8> {
        match cli.command {
            None => self.survey(&cli.survey),
            Some(Command::Online(args)) => self.online(args),
            Some(Command::Fold(args)) => self.fold(args),
            Some(Command::Reorder(args)) => self.reorder(args),
            Some(Command::Lazy(args)) => self.lazy(&args),
            Some(Command::Draw(args)) => self.draw(&args),
            Some(Command::Chart(args)) => self.chart(&args),
            Some(Command::Inspect(args)) => self.inspect(&args),
            Some(Command::Dump(args)) => self.dump(&args),
            Some(Command::Plan(args)) => self.plan(args),
        }
    }

    fn survey(&mut self, args: &SurveyArgs) -> io::Result<u8> {
        let selection = match Selection::from_args(args) {
            Ok(selection) => selection,
            Err(no_page) => return Ok(self.bad_align(no_page)),
        };
        let screen = survey::Screen {
            progress: self.progress,
            columns: self.columns,
            out: self.stdout,
            stderr: self.stderr,
        };
        survey::survey(&selection, self.limits, screen).map(exit_code)
    }

    fn online(&mut self, args: OnlineArgs) -> io::Result<u8> {
        let (request, format) = match Request::from_args(args.region) {
            Ok(asked) => asked,
            Err(no_page) => return Ok(self.bad_align(no_page)),
        };
        let report = online::online(&request, self.limits, self.progress);
        self.progress.hide();
        if let Some(failure) = &report.error {
            say(self.stderr, &failure.to_string());
        }
        match format {
            Format::Table => table::print(self.stdout, &report, args.stats)?,
            Format::Json => json::print(self.stdout, &report)?,
        }
        Ok(exit_code(report.is_good()))
    }

    fn fold(&mut self, args: FoldArgs) -> io::Result<u8> {
        let quiesce = !args.no_quiesce;
        let (region, format) = match Request::from_args(args.region) {
            Ok(asked) => asked,
            Err(no_page) => return Ok(self.bad_align(no_page)),
        };
        let request = FoldRequest { region, quiesce };
        let report = fold::fold(&request, self.limits, self.progress);
        self.progress.hide();
        if let Some(failure) = &report.error {
            say(self.stderr, &failure.to_string());
        }
        match format {
            Format::Table => fold::print(self.stdout, &report, args.stats)?,
            Format::Json => json::print(self.stdout, &report)?,
        }
        Ok(exit_code(report.is_good()))
    }

    fn reorder(&mut self, args: ReorderArgs) -> io::Result<u8> {
        let (request, format) = match ReorderRequest::from_args(args) {
            Ok(asked) => asked,
            Err((option, no_page)) => {
                say(self.stderr, &format!("{option} <{ALIGN_FORM}>: {no_page}"));
                return Ok(BAD_ARGUMENTS);
            }
        };
        let report = reorder::reorder(&request, self.limits, self.progress);
        self.progress.hide();
        if let Some(failure) = &report.error {
            say(self.stderr, &failure.to_string());
        }
        match format {
            Format::Table => reorder::print(self.stdout, &report)?,
            Format::Json => json::print(self.stdout, &report)?,
        }
        Ok(exit_code(report.is_good()))
    }

    fn lazy(&mut self, args: &LazyArgs) -> io::Result<u8> {
        let request = LazyRequest::from_args(args);
        let report = lazy::lazy(&request, self.limits, self.progress);
        self.progress.hide();
        if let Some(failure) = &report.error {
            say(self.stderr, &failure.to_string());
        }
        match args.format {
            Format::Table => lazy::print(self.stdout, &report)?,
            Format::Json => json::print(self.stdout, &report)?,
        }
        Ok(exit_code(report.is_good()))
    }

    fn plan(&mut self, args: PlanArgs) -> io::Result<u8> {
        let limit = args.limit;
        let (request, format) = match Request::from_args(args.region) {
            Ok(asked) => asked,
            Err(no_page) => return Ok(self.bad_align(no_page)),
        };
        let style = plan::Style { format, limit };
        let failure = plan::print(&request, self.limits, style, self.stdout)?;
        if let Some(failure) = &failure {
            say(self.stderr, &failure.to_string());
        }
        Ok(exit_code(failure.is_none()))
    }

    fn draw(&mut self, args: &DrawArgs) -> io::Result<u8> {
        let picture = match &args.dump {
            Some(file) => draw::dumped(file),
            None => match args.look.region() {
                Ok(region) => draw::live(&region, self.limits),
                Err(no_page) => return Ok(self.bad_align(no_page)),
            },
        };
        self.write(&args.out, picture.map(String::into_bytes))
    }

    fn chart(&mut self, args: &ChartArgs) -> io::Result<u8> {
        let chart = chart::chart(self.limits, self.progress);
        self.progress.hide();
        let drawn = chart.map(|chart| chart::rows::draw(&chart).into_bytes());
        self.write(&args.out, drawn)
    }

    fn inspect(&mut self, args: &InspectArgs) -> io::Result<u8> {
        match dump::inspect(&args.dump) {
            Ok(report) => {
                dump::print(self.stdout, &report, args.format)?;
                Ok(exit_code(report.findings.is_empty()))
            }
            Err(failure) => Ok(self.failed(&failure)),
        }
    }

    fn dump(&mut self, args: &DumpArgs) -> io::Result<u8> {
        match args.look.region() {
            Ok(region) => {
                let dump = dump::of_simulation(&region, self.limits);
                self.write(&args.out, dump)
            }
            Err(no_page) => Ok(self.bad_align(no_page)),
        }
    }

    /// Writes what was made to `file`, and says so.
    fn write(&mut self, file: &Path, made: Result<Vec<u8>, Failure>) -> io::Result<u8> {
        let written = made.and_then(|bytes| {
            let name = file.display();
            std::fs::write(file, &bytes)
                .map_err(|error| Failure::host(format_args!("{name}: {error}")))?;
            Ok(bytes.len())
        });
        match written {
            Ok(bytes) => {
                let size = size::rounded(bytes as f64);
                writeln!(self.stdout, "{}: {size}", file.display())?;
                Ok(DONE)
            }
            Err(failure) => Ok(self.failed(&failure)),
        }
    }

    fn failed(&mut self, failure: &Failure) -> u8 {
        say(self.stderr, &failure.to_string());
        FAILED
    }

    /// Says what is wrong with `--align`, which only shows once the backend is known.
    fn bad_align(&mut self, no_page: NoPage) -> u8 {
        say(self.stderr, &format!("--align <{ALIGN_FORM}>: {no_page}"));
        BAD_ARGUMENTS
    }
}

const fn exit_code(good: bool) -> u8 {
    if good { DONE } else { FAILED }
}

/// Writes an error to `stderr`. If that cannot be written to either, there is nowhere left to say
/// so.
fn say(stderr: &mut dyn Write, message: &str) {
    let _ = writeln!(stderr, "error: {message}");
}
