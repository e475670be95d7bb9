//! Running the program without a process.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use explorer::Console;
use explorer::need::Limits;
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
            progress: &|_, _, _| {},
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
