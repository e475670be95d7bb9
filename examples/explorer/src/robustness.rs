//! What must hold for any arguments: shared by fuzzing and the tests that replay its corpus.

use crate::need::Limits;
use crate::{BAD_ARGUMENTS, Console};
use serde_json::Value;

/// So little that any request is answered at once.
const LIMITS: Limits = Limits {
    host_bytes: 128 << 20,
    planned_runs: 1 << 12,
};

/// Runs the program with the arguments in `bytes`, separated by white space, and checks how it
/// answers.
///
/// Answers with what the program exits with. Requests without a subcommand are passed over, since a
/// survey takes as long as it takes: `None`.
///
/// # Errors
///
/// What does not hold.
pub fn check(bytes: &[u8]) -> Result<Option<u8>, String> {
    let text = String::from_utf8_lossy(bytes);
    let args: Vec<&str> = text.split_whitespace().collect();
    if !matches!(args.first(), Some(&("online" | "plan"))) {
        return Ok(None);
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console = Console {
        stdout: &mut stdout,
        stderr: &mut stderr,
        progress: &|_, _, _| {},
    };
    let all = std::iter::once("explorer").chain(args.iter().copied());
    let code = crate::run(all, &LIMITS, &mut console);

    let stderr = String::from_utf8(stderr).map_err(|error| error.to_string())?;
    let wrong = |what: &str| Err(format!("{args:?}: {what}, code {code}, {stderr}"));
    if code > BAD_ARGUMENTS {
        return wrong("no such code");
    }
    if code == BAD_ARGUMENTS && (stderr.lines().count() != 1 || !stdout.is_empty()) {
        return wrong("bad arguments are told in one line");
    }
    let asks_for_text = args.iter().any(|arg| {
        let short = arg.starts_with('-') && !arg.starts_with("--");
        short && arg.contains(['h', 'V']) || ["--help", "--version"].contains(arg)
    });
    let json =
        args.windows(2).any(|pair| pair == ["--format", "json"]) || args.contains(&"--format=json");
    if json && !asks_for_text && code != BAD_ARGUMENTS {
        match serde_json::from_slice::<Value>(&stdout) {
            Ok(Value::Object(_)) => {}
            _ => return wrong("standard output is not one JSON object"),
        }
    }
    Ok(Some(code))
}
