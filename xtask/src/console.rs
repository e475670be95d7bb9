//! Running a program under a time limit, with its output shown as it comes.

use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use wait_timeout::ChildExt;

/// How much of the output is kept.
const KEPT_BYTES: usize = 16 << 10;

/// How long the rest of the output is waited for when the program has ended.
const REST: Duration = Duration::from_secs(2);

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended; `None` where it was stopped at the time limit.
    pub(crate) status: Option<ExitStatus>,
    /// The end of what it printed.
    pub(crate) output: String,
}

impl Outcome {
    /// The last `count` lines that are not empty.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<&str> {
        let lines = self.output.lines().map(str::trim_end);
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        lines
            .get(lines.len().saturating_sub(count)..)
            .unwrap_or_default()
            .to_vec()
    }
}

/// Runs `command` for at most `limit`, and copies what it prints to standard output.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} does not start"))?;
    let mut child = StoppedOnDrop(child);
    let output = show(child.0.stdout.take());
    let status = child
        .0
        .wait_timeout(limit)
        .with_context(|| format!("{program} cannot be waited for"))?;
    drop(child);
    let output = output.recv_timeout(REST).unwrap_or_default();
    Ok(Outcome {
        status,
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}

/// A program that does not outlive this.
struct StoppedOnDrop(Child);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies `source` to standard output until it ends, and then sends the end of it.
fn show(source: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        let mut source = source;
        while let Some(bytes) = source
            .as_mut()
            .and_then(|source| source.read(&mut buffer).ok())
            .and_then(|count| buffer.get(..count))
            .filter(|bytes| !bytes.is_empty())
        {
            // Nobody to read it is no reason to stop the machine.
            let mut out = io::stdout().lock();
            let _ = out.write_all(bytes).and_then(|()| out.flush());
            kept.extend_from_slice(bytes);
            let excess = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..excess);
        }
        // Nobody waits for it any more, perhaps.
        let _ = sender.send(kept);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, limit).unwrap()
    }

    #[test]
    fn the_end_of_the_output_and_the_status_are_kept() {
        let outcome = shell("echo one; echo; echo two; exit 35", Duration::from_secs(10));
        assert_eq!(outcome.status.and_then(|status| status.code()), Some(35));
        assert_eq!(outcome.last_lines(1), ["two"]);
        assert_eq!(outcome.last_lines(9), ["one", "two"]);
    }

    #[test]
    fn a_program_that_hangs_is_stopped_at_the_limit() {
        let start = Instant::now();
        let outcome = shell("echo last words; exec sleep 60", Duration::from_millis(300));
        assert!(outcome.status.is_none());
        assert_eq!(outcome.last_lines(3), ["last words"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
