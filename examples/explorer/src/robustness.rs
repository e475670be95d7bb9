//! What must hold for any arguments: shared by fuzzing and the tests that replay its corpus.

use crate::need::Limits;
use crate::progress::Silent;
use crate::report::CLEAN;
use crate::screen::USUAL_COLUMNS;
use crate::{BAD_ARGUMENTS, Console, DONE};
use serde_json::{Value, json};

/// So little that any request is answered at once.
const LIMITS: Limits = Limits {
    host_bytes: 128 << 20,
    available_bytes: None,
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
    if !matches!(args.first(), Some(&("online" | "fold" | "plan"))) {
        return Ok(None);
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console = Console {
        stdout: &mut stdout,
        stderr: &mut stderr,
        progress: &Silent,
        columns: USUAL_COLUMNS,
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
        let object = match serde_json::from_slice::<Value>(&stdout) {
            Ok(object @ Value::Object(_)) => object,
            _ => return wrong("standard output is not one JSON object"),
        };
        if let Some(what) = what_is_left(&object, code) {
            return wrong(&what);
        }
    }
    Ok(Some(code))
}

/// What `object`, the answer with `code`, says that is not as it must be: nothing is left behind,
/// whether it was done or not.
fn what_is_left(object: &Value, code: u8) -> Option<String> {
    let expected = match (code, object.get("after_error")) {
        // A plan leaves nothing.
        (_, None) => return None,
        (DONE, Some(_)) => [
            ("error", Value::Null),
            ("audit", CLEAN.into()),
            ("after_offline", json!({ "frames": 0 })),
        ]
        .to_vec(),
        _ => vec![("after_error", json!({ "frames": 0, "audit": CLEAN }))],
    };
    let mut wrong = expected
        .into_iter()
        .filter(|(key, value)| object.get(key) != Some(value));
    wrong
        .next()
        .map(|(key, value)| format!("{key} is not {value} in {object}"))
}
