//! Running the program without a process.

use explorer::Console;
use explorer::need::Limits;
use explorer::progress::Silent;
use explorer::screen::USUAL_COLUMNS;
use serde_json::Value;

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

pub(crate) fn run_within<S: AsRef<str>>(limits: &Limits, args: &[S]) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let args = args.iter().map(|arg| arg.as_ref().to_owned());
    let code = explorer::run(
        std::iter::once("explorer".to_owned()).chain(args),
        limits,
        &mut Console {
            stdout: &mut stdout,
            stderr: &mut stderr,
            progress: &Silent,
            columns: USUAL_COLUMNS,
        },
    );
    Ran {
        code,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Runs `explorer` with `line`, split at spaces.
pub(crate) fn run(line: &str) -> Ran {
    let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
    run_within(&Limits::default(), &args)
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
