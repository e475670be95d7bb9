//! Running the program without a process.

use explorer::Console;
use explorer::need::Limits;
use explorer::progress::{Progress, Silent};
use explorer::screen::USUAL_COLUMNS;
use serde_json::Value;
use std::io::Write;

/// What a run has left behind.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as the one JSON value that it is.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// How a run is watched, and how wide its output is.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'w> {
    pub(crate) limits: Limits,
    pub(crate) progress: &'w dyn Progress,
    pub(crate) columns: usize,
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            progress: &Silent,
            columns: USUAL_COLUMNS,
        }
    }
}

impl Watch<'_> {
    /// Runs `explorer` with `line`, split at spaces.
    pub(crate) fn run(self, line: &str) -> Ran {
        self.run_with(&split(line))
    }

    fn run_with<S: AsRef<str>>(self, args: &[S]) -> Ran {
        let mut stdout = Vec::new();
        let (code, stderr) = self.run_into(&mut stdout, args);
        Ran {
            code,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr,
        }
    }

    /// The same with another standard output. Answers with what it exits with and has said.
    pub(crate) fn run_into<S: AsRef<str>>(
        self,
        stdout: &mut dyn Write,
        args: &[S],
    ) -> (u8, String) {
        let mut stderr = Vec::new();
        let args = args.iter().map(|arg| arg.as_ref().to_owned());
        let code = explorer::run(
            std::iter::once("explorer".to_owned()).chain(args),
            &self.limits,
            &mut Console {
                stdout,
                stderr: &mut stderr,
                progress: self.progress,
                columns: self.columns,
            },
        );
        (code, String::from_utf8(stderr).unwrap())
    }
}

pub(crate) fn split(line: &str) -> Vec<&str> {
    line.split(' ').filter(|arg| !arg.is_empty()).collect()
}

pub(crate) fn run_within<S: AsRef<str>>(limits: &Limits, args: &[S]) -> Ran {
    let watch = Watch {
        limits: *limits,
        ..Watch::default()
    };
    watch.run_with(args)
}

/// Runs `explorer` with `line`, split at spaces.
pub(crate) fn run(line: &str) -> Ran {
    Watch::default().run(line)
}

/// What `online` with `line` prints, which is done and leaves nothing behind.
pub(crate) fn online(line: &str) -> Value {
    let ran = run(&format!("online --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let report = ran.json();
    assert_eq!(report["audit"], "clean", "{line}");
    assert_eq!(report["after_offline"]["frames"], 0, "{line}");
    assert_eq!(report["error"], Value::Null, "{line}");
    assert_stats_agree(&report, line);
    report
}

/// The rows of each node come to what was counted.
fn assert_stats_agree(report: &Value, line: &str) {
    let rows = report["stats"].as_array().unwrap();
    let sum = |key: &str| -> u64 { rows.iter().map(|row| row[key].as_u64().unwrap()).sum() };
    let frames = &report["frames"];
    let [leaf, upper] = ["leaf_tables", "upper_tables"].map(|key| frames[key].as_u64().unwrap());
    assert_eq!(sum("descriptor_frames"), frames["descriptors"], "{line}");
    assert_eq!(sum("altmap_frames"), frames["altmap"], "{line}");
    assert_eq!(sum("table_frames"), leaf + upper, "{line}");
    assert_eq!(sum("mark_frames"), 0, "{line}");
    assert_eq!(sum("reused_entries"), report["reused_entries"], "{line}");
}
