//! What each operation does, counted exactly, on every backend: a change that makes one of them write an
//! entry more, call the allocator once more, or flush once more, is seen here.
//!
//! The counts are in a file for each backend, beside this one. Those of entries written are also compared
//! with closed formulas ([`formulas`]), so that a file cannot say anything.
//!
//! Where a count is to change, all files are written anew by
//!
//! ```text
//! COUNTS=renew cargo test -p testkit --test suite counts
//! ```
//!
//! and the difference is to be read before it is committed.

mod formulas;
mod holes;
mod many_pages;
mod operations;

use hosted::BackendKind;
use std::fmt;
use std::path::PathBuf;
use testkit::on_backends;

/// What an operation did. The order is that of the files' columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts([u64; NAMES.len()]);

/// The columns: entries written and looks into tables (see `arch_sim::TableWatch`); calls of the allocator
/// that take frames, add references, and give either back; how often CPUs were made to forget something; and
/// the frames that are out afterwards.
const NAMES: [&str; 7] = [
    "entries", "looks", "allocate", "acquire", "release", "flushes", "frames",
];

/// How many characters of a line are for the row's name.
const NAME_WIDTH: usize = 50;

impl Counts {
    /// All of them but the entries written and the frames that are out.
    const fn but_entries_and_frames(&self) -> [u64; 5] {
        let [_, rest @ .., _] = self.0;
        rest
    }
}

/// An operation and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    geometry: String,
    operation: &'static str,
    counts: Counts,
}

impl Row {
    fn name(&self) -> String {
        format!("{}: {}", self.geometry, self.operation)
    }
}

/// As a line of a file.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<NAME_WIDTH$}", self.name())?;
        let counts = self.counts.0.iter();
        counts
            .zip(NAMES)
            .try_for_each(|(count, _)| write!(f, " {count:>9}"))
    }
}

/// A file with `rows`.
fn written(rows: &[Row]) -> String {
    let mut file = " ".repeat(NAME_WIDTH);
    for name in NAMES {
        file.push_str(&format!(" {name:>9}"));
    }
    for row in rows {
        file.push_str(&format!("\n{row}"));
    }
    file + "\n"
}

/// What a file says: the names of its rows, and their counts.
fn read(file: &str) -> Vec<(String, Counts)> {
    let rows = file.lines().skip(1).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, counts) = words.split_at(words.len() - NAMES.len());
        let counts = Counts(std::array::from_fn(|index| counts[index].parse().unwrap()));
        (name.join(" "), counts)
    });
    rows.collect()
}

/// What differs, in words.
fn differences(backend: &str, expected: &[(String, Counts)], rows: &[Row]) -> Vec<String> {
    let mut all = Vec::new();
    for (name, _) in expected {
        if !rows.iter().any(|row| row.name() == *name) {
            all.push(format!("{backend}, {name}: was not done"));
        }
    }
    for row in rows {
        let name = row.name();
        let Some((_, expected)) = expected.iter().find(|(known, _)| *known == name) else {
            all.push(format!("{backend}, {name}: is not in the file"));
            continue;
        };
        for ((is, was), of) in row.counts.0.iter().zip(expected.0).zip(NAMES) {
            if *is != was {
                all.push(format!("{backend}, {name}: {of} {is}, expected {was}"));
            }
        }
    }
    all
}

fn counts_are_those_of_the_file(kind: BackendKind) {
    let rows = operations::rows(kind);
    let backend = kind.name();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/counts");
    let path = folder.join(format!("{backend}.txt"));
    if std::env::var("COUNTS").is_ok_and(|word| word == "renew") {
        std::fs::write(&path, written(&rows)).unwrap();
    }
    let expected = read(&std::fs::read_to_string(&path).unwrap());
    let differences = differences(backend, &expected, &rows);
    assert!(
        differences.is_empty(),
        "\n{}\nIf that is meant: COUNTS=renew cargo test -p testkit --test suite counts",
        differences.join("\n")
    );
}

on_backends!(all: counts_are_those_of_the_file);

#[test]
fn a_count_that_differs_is_named_with_both_numbers() {
    let row = |operation, entries| Row {
        geometry: "1G per order".to_owned(),
        operation,
        counts: Counts([entries, 2, 3, 4, 5, 6, 7]),
    };
    let expected = read(&written(&[row("fold", 8), row("unfold", 9)]));
    assert_eq!(
        differences("b", &expected, &[row("fold", 8), row("unfold", 9)]),
        [""; 0]
    );
    assert_eq!(
        differences("b", &expected, &[row("fold", 10), row("offline", 1)]),
        [
            "b, 1G per order: unfold: was not done",
            "b, 1G per order: fold: entries 10, expected 8",
            "b, 1G per order: offline: is not in the file",
        ]
    );
}
