//! A machine that is dumped while its kernel waits, over QMP (*QEMU Machine Protocol Specification*); and what the
//! explorer finds in the dump, beside what the kernel has said.
//!
//! ```text
//!   kernel: `dump: ready`, waits ▶ stop ▶ dump-guest-memory ▶ cont ▶ a byte of input ▶ the kernel goes on to its end
//! ```

use crate::toolchain::root;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The line by which a kernel says that it waits to be dumped.
pub(crate) const READY: &str = "dump: ready";

/// What shows what is printed of a dump of the x86-64 kernel.
const BOOK: &str = "docs/book/dumps.md";

/// How long a machine may take to write its memory.
const LIMIT: Duration = Duration::from_secs(300);

/// Where a machine listens for QMP, and where its dump goes.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// Goes with the value. The paths of sockets have to be short.
    _directory: TempDir,
    socket: PathBuf,
    file: PathBuf,
}

impl Monitor {
    /// A monitor of a machine that is dumped to `file`.
    pub(crate) fn new(file: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("qmp-").tempdir()?;
        let file = std::path::absolute(file)?;
        let parent = file.parent().context("a dump goes to a file")?;
        ensure!(parent.is_dir(), "{} is no directory", parent.display());
        Ok(Self {
            socket: directory.path().join("qmp"),
            _directory: directory,
            file,
        })
    }

    /// What the emulator is told.
    pub(crate) fn arguments(&self) -> [String; 2] {
        let socket = self.socket.display().to_string().replace(',', ",,");
        [
            "-qmp".to_owned(),
            format!("unix:{socket},server=on,wait=off"),
        ]
    }

    /// Stops the machine, has it write its memory, and lets it go on.
    pub(crate) fn dump(&self) -> Result<()> {
        let stream = UnixStream::connect(&self.socket).context("the machine does not listen")?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp {
            stream,
            answers: &mut answers,
        };
        // Its greeting.
        qmp.line()?;
        qmp.execute(&json!({ "execute": "qmp_capabilities" }))?;
        qmp.execute(&json!({ "execute": "stop" }))?;
        let protocol = format!("file:{}", self.file.display());
        let arguments = json!({ "paging": false, "protocol": protocol });
        qmp.execute(&json!({ "execute": "dump-guest-memory", "arguments": arguments }))?;
        qmp.execute(&json!({ "execute": "cont" }))
    }
}

/// A conversation.
struct Qmp<'q> {
    stream: UnixStream,
    answers: &'q mut BufReader<UnixStream>,
}

impl Qmp<'_> {
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let bytes = self
            .answers
            .read_line(&mut line)
            .context("the machine does not answer")?;
        ensure!(bytes > 0, "the machine has gone");
        serde_json::from_str(&line).with_context(|| format!("no QMP: {line}"))
    }

    /// Has `command` done, and waits for that. What happens meanwhile is said in between.
    fn execute(&mut self, command: &Value) -> Result<()> {
        writeln!(self.stream, "{command}")?;
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }
}

/// What a kernel has said of its memory, or a program has found in a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Start, size, count, heads and tails of pages that are alike.
    pages: Vec<(u64, u64, u64, String, String)>,
    /// Frames with descriptors, leaf tables, and tables above.
    frames: Option<[u64; 3]>,
    /// Whether the kernel has a note in the dump.
    note: bool,
}

impl Seen {
    /// What the kernel has said in `output`.
    pub(crate) fn said(output: &str) -> Result<Self> {
        let mut said = Self::default();
        for line in output
            .lines()
            .filter_map(|line| line.trim_end().strip_prefix("dump: "))
        {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| {
                word.parse::<u64>()
                    .with_context(|| format!("no number in: {line}"))
            };
            match words.as_slice() {
                ["pages", start, size, count, heads, tails] => said.pages.push((
                    number(start)?,
                    number(size)?,
                    number(count)?,
                    (*heads).to_owned(),
                    (*tails).to_owned(),
                )),
                ["frames", descriptors, leaf, upper] => {
                    said.frames = Some([number(descriptors)?, number(leaf)?, number(upper)?]);
                }
                ["note"] => said.note = true,
                _ => {}
            }
        }
        ensure!(
            !said.pages.is_empty() && said.frames.is_some(),
            "the kernel has said nothing of its pages"
        );
        Ok(said)
    }

    /// What `report`, of `explorer inspect`, has.
    fn found(report: &Value) -> Result<Self> {
        let number = |of: &Value, key: &str| of[key].as_u64().with_context(|| format!("no {key}"));
        let text = |of: &Value, key: &str| of[key].as_str().unwrap_or("-").to_owned();
        let pages = report["pages"].as_array().context("no pages")?;
        let pages = pages.iter().map(|run| {
            Ok((
                number(run, "start")?,
                number(run, "size")?,
                number(run, "count")?,
                text(run, "heads"),
                text(run, "tails"),
            ))
        });
        let frames = &report["frames"];
        Ok(Self {
            pages: pages.collect::<Result<_>>()?,
            frames: Some([
                number(frames, "descriptors")?,
                number(frames, "leaf_tables")?,
                number(frames, "upper_tables")?,
            ]),
            note: false,
        })
    }

    /// How many pages there are.
    fn count(&self) -> u64 {
        self.pages.iter().map(|run| run.2).sum()
    }
}

/// What the explorer says of a dump.
#[derive(Debug)]
pub(crate) struct Inspected {
    report: Value,
    /// For people.
    printed: String,
}

impl Inspected {
    /// What the program `explorer` says of the one in `file`.
    pub(crate) fn by(explorer: &Path, file: &Path) -> Result<Self> {
        Ok(Self {
            report: serde_json::from_str(&inspect(explorer, file, "json")?)?,
            printed: inspect(explorer, file, "table")?,
        })
    }

    /// Compares it with what the kernel has said in `output`, page by page, and whether it is described in a note. Says how many
    /// pages there are.
    pub(crate) fn is_what_was_said(&self, output: &str, in_a_note: bool) -> Result<u64> {
        let said = Seen::said(output)?;
        same(&said, &self.report)?;
        let described = self.printed.lines().next().unwrap_or_default();
        let place = match in_a_note {
            true => "described in a note",
            false => "described in the page at",
        };
        ensure!(
            said.note == in_a_note && described.contains(place),
            "it should be {place}: {described}"
        );
        Ok(said.count())
    }

    /// Compares it with what the book shows.
    pub(crate) fn is_what_the_book_shows(&self) -> Result<()> {
        let book = fs::read_to_string(root().join(BOOK)).context(BOOK)?;
        let shown = shown(&book).context("no block of text")?;
        ensure!(
            shown == self.printed,
            "{BOOK} does not show what is printed:\n{}",
            self.printed
        );
        Ok(())
    }
}

/// The first block of text in `document`.
fn shown(document: &str) -> Option<&str> {
    let (_, behind) = document.split_once("```text\n")?;
    Some(behind.split_once("```")?.0)
}

/// What the program `explorer` prints of `file`.
fn inspect(explorer: &Path, file: &Path, format: &str) -> Result<String> {
    let mut inspect = Command::new(explorer);
    inspect.args(["inspect", "--format", format]).arg(file);
    let inspected = inspect
        .output()
        .with_context(|| explorer.display().to_string())?;
    let stderr = String::from_utf8_lossy(&inspected.stderr);
    ensure!(!inspected.stdout.is_empty(), "explorer inspect: {stderr}");
    Ok(String::from_utf8(inspected.stdout)?)
}

/// Whether `report` has what was `said`, and no findings.
fn same(said: &Seen, report: &Value) -> Result<()> {
    let found = Seen::found(report)?;
    for (index, pages) in said.pages.iter().enumerate() {
        let in_dump = found.pages.get(index);
        ensure!(
            in_dump == Some(pages),
            "the kernel has said {pages:?}, in the dump is {in_dump:?}"
        );
    }
    ensure!(
        said.pages.len() == found.pages.len(),
        "more pages are in the dump: {:?}",
        found.pages.last()
    );
    ensure!(
        said.frames == found.frames,
        "the kernel has said frames {:?}, in the dump are {:?}",
        said.frames,
        found.frames
    );
    let findings = report["findings"].as_array().context("no findings")?;
    ensure!(findings.is_empty(), "in the dump was found: {findings:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "a kernel\r\n\
        dump: pages 0 4096 512 - none\r\n\
        dump: pages 2097152 2097152 4 packed per-order\r\n\
        dump: frames 10 2 3\r\n\
        dump: marked 3\r\n\
        dump: note\r\n\
        dump: ready\r\n";

    fn report() -> Value {
        json!({
            "pages": [
                { "start": 0, "size": 4096, "count": 512, "heads": null, "tails": "none" },
                { "start": 2_097_152, "size": 2_097_152, "count": 4, "heads": "packed", "tails": "per-order" },
            ],
            "frames": { "descriptors": 10, "leaf_tables": 2, "upper_tables": 3, "altmap": null, "total": 15 },
            "findings": [],
        })
    }

    #[test]
    fn what_was_found_is_what_was_said() {
        let said = Seen::said(OUTPUT).unwrap();
        assert_eq!(said.count(), 516);
        same(&said, &report()).unwrap();
    }

    #[test]
    fn every_difference_is_told() {
        let said = Seen::said(OUTPUT).unwrap();
        let differences: [fn(&mut Value); 6] = [
            |report| report["pages"][0]["count"] = json!(511),
            |report| report["pages"][1]["heads"] = json!("in-place"),
            |report| report["pages"][1]["tails"] = json!("none"),
            |report| report["frames"]["leaf_tables"] = json!(3),
            |report| report["findings"] = json!(["something"]),
            |report| {
                let more = report["pages"][1].clone();
                report["pages"].as_array_mut().unwrap().push(more);
            },
        ];
        for difference in differences {
            let mut report = report();
            difference(&mut report);
            assert!(same(&said, &report).is_err(), "{report}");
        }
    }

    #[test]
    fn a_dump_has_a_note_and_the_book_shows_what_is_printed() {
        let mut inspected = Inspected {
            report: report(),
            printed: "x86-64, described in a note\n".to_owned(),
        };
        assert_eq!(inspected.is_what_was_said(OUTPUT, true).unwrap(), 516);
        let silent = OUTPUT.replace("dump: note\r\n", "");
        assert!(inspected.is_what_was_said(&silent, true).is_err());
        assert!(inspected.is_what_the_book_shows().is_err());
        let book = fs::read_to_string(root().join(BOOK)).unwrap();
        inspected.printed = shown(&book).unwrap().to_owned();
        inspected.is_what_the_book_shows().unwrap();
        inspected.printed = "x86-64, described in the page at 0x1000\n".to_owned();
        assert!(inspected.is_what_was_said(OUTPUT, true).is_err());
        assert!(inspected.is_what_was_said(OUTPUT, false).is_err());
        assert_eq!(inspected.is_what_was_said(&silent, false).unwrap(), 516);
    }

    #[test]
    fn a_kernel_that_says_nothing_is_told() {
        assert!(Seen::said("a kernel\ndump: ready\n").is_err());
        assert!(Seen::said("dump: pages 0 4096 many - none\ndump: frames 1 1 1\n").is_err());
    }
}
