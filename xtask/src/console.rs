//! Running a program with its output shown as it comes: under a time limit, or line by line.

use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
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

/// Runs `command` for at most `limit`, and copies what it prints to `out`.
pub(crate) fn run(
    command: Command,
    limit: Duration,
    out: impl Write + Send + 'static,
) -> Result<Outcome> {
    run_with_pause(command, limit, out, None)
}

/// What is done while a program waits for a line of input.
pub(crate) struct Pause<'p> {
    /// What the program prints when it waits.
    pub(crate) line: &'static str,
    /// What is done then.
    pub(crate) work: Box<dyn FnOnce() -> Result<()> + Send + 'p>,
}

/// As [`run`], with a pause, if there is one. What that comes to is printed where it is an error; the program goes on anyway.
pub(crate) fn run_with_pause(
    mut command: Command,
    limit: Duration,
    out: impl Write + Send + 'static,
    pause: Option<Pause<'static>>,
) -> Result<Outcome> {
    command.stdin(match pause {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    });
    let (program, mut child) = start(command)?;
    let pause = pause.zip(child.0.stdin.take());
    let output = keep_end(child.0.stdout.take(), out, pause);
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

/// Runs `command` until it ends, copies what it prints to `out`, and shows `look` each line.
pub(crate) fn watch(
    mut command: Command,
    out: impl Write,
    mut look: impl FnMut(&str),
) -> Result<ExitStatus> {
    command.stdin(Stdio::null());
    let (program, mut child) = start(command)?;
    let mut line = Vec::new();
    copy(child.0.stdout.take(), out, |bytes| {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                look(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
        }
    });
    look(String::from_utf8_lossy(&line).trim_end());
    let status = child.0.wait();
    status.with_context(|| format!("{program} cannot be waited for"))
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

/// Starts `command`; its name and the program.
fn start(mut command: Command) -> Result<(String, StoppedOnDrop)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} does not start"))?;
    Ok((program, StoppedOnDrop(child)))
}

/// Copies `source` to `out` until it ends, and then sends the end of it. Where there is a pause, it is made, and the program's
/// input has a line then.
fn keep_end(
    source: Option<impl Read + Send + 'static>,
    out: impl Write + Send + 'static,
    mut pause: Option<(Pause<'static>, ChildStdin)>,
) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        copy(source, out, |bytes| {
            kept.extend_from_slice(bytes);
            let excess = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..excess);
            if let Some((pause, input)) = pause.take_if(|(pause, _)| has_line(&kept, pause.line))
                && let Err(error) = (pause.work)().and_then(|()| go_on(input))
            {
                eprintln!("error: {error:#}");
            }
        });
        // Nobody waits for it any more, perhaps.
        let _ = sender.send(kept);
    });
    receiver
}

/// Whether `printed` has `line`, to its end.
fn has_line(printed: &[u8], line: &str) -> bool {
    let mut lines = printed.split_inclusive(|&byte| byte == b'\n');
    lines.any(|one| one.ends_with(b"\n") && one.trim_ascii_end() == line.as_bytes())
}

/// Lets a program go on that waits for input.
fn go_on(mut input: ChildStdin) -> Result<()> {
    input.write_all(b"\n")?;
    // An end of its input would be something else.
    std::mem::forget(input);
    Ok(())
}

/// Copies `source` to `out` until it ends, piece by piece as it comes.
fn copy(mut source: Option<impl Read>, mut out: impl Write, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 4096];
    while let Some(source) = source.as_mut() {
        let bytes = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.ok().and_then(|count| buffer.get(..count)),
        };
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        // Nobody to read it is no reason to stop the program.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
        look(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn run_for(script: &str, limit: Duration) -> Outcome {
        run(shell(script), limit, io::sink()).unwrap()
    }

    #[test]
    fn the_end_of_the_output_and_the_status_are_kept() {
        let outcome = run_for("echo one; echo; echo two; exit 35", Duration::from_secs(10));
        assert_eq!(outcome.status.and_then(|status| status.code()), Some(35));
        assert_eq!(outcome.last_lines(1), ["two"]);
        assert_eq!(outcome.last_lines(9), ["one", "two"]);
    }

    #[test]
    fn a_program_that_waits_goes_on_when_all_is_done() {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = done.clone();
        let pause = Pause {
            line: "ready",
            work: Box::new(move || {
                told.store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            }),
        };
        let script = shell("echo not ready; echo ready; read line; echo went on; exit 7");
        let outcome = run_with_pause(script, Duration::from_secs(10), io::sink(), Some(pause));
        let outcome = outcome.unwrap();
        assert_eq!(outcome.status.and_then(|status| status.code()), Some(7));
        assert_eq!(outcome.last_lines(1), ["went on"]);
        assert!(done.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn a_program_that_hangs_is_stopped_at_the_limit() {
        let start = Instant::now();
        let outcome = run_for("echo last words; exec sleep 60", Duration::from_millis(300));
        assert!(outcome.status.is_none());
        assert_eq!(outcome.last_lines(3), ["last words"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn lines_that_come_in_pieces_are_seen_whole_and_the_output_is_as_it_was() {
        let script = "printf 'one '; sleep 0.1; printf 'line\\r\\n\\ntwo'; exit 3";
        let (mut out, mut lines) = (Vec::new(), Vec::new());
        let status = watch(shell(script), &mut out, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(lines, ["one line", "", "two"]);
        assert_eq!(out, b"one line\r\n\ntwo");
    }
}
