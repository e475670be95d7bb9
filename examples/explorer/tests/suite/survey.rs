//! What the program does without a command: two tables for each backend.

use crate::program::{Watch, run, split};
use explorer::need::Limits;
use explorer::progress::Progress;
use hosted::BackendKind;
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

/// The lines of a backend, from its title on.
fn block<'t>(survey: &'t str, backend: &str) -> Vec<&'t str> {
    let title = format!("{backend}: ");
    let lines = survey.lines().skip_while(|line| !line.starts_with(&title));
    let mut block: Vec<&str> = Vec::new();
    for line in lines {
        block.push(line);
        if line.starts_with("audit: ") {
            break;
        }
    }
    block
}

/// The rows below the heading that starts with `heading`, cell by cell.
fn rows<'t>(block: &[&'t str], heading: &str) -> Vec<Vec<&'t str>> {
    let below = block.iter().skip_while(|line| !line.starts_with(heading));
    let rows = below
        .skip(1)
        .take_while(|line| !line.is_empty() && !line.starts_with("--"));
    let cells = |line: &&'t str| {
        let cells = line.split("  ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn the_whole_survey_is_clean_explained_and_fits_the_screen() {
    let ran = run("");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for line in ran.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for kind in BackendKind::ALL {
        let block = block(&ran.stdout, kind.name());
        assert!(block[0].contains(kind.about()), "{block:?}");
        let verdict = "audit: clean after each step of every row";
        assert_eq!(block.last(), Some(&verdict), "{}", kind.name());
    }
    let legend = ran.stdout.rsplit("\n\n").next().unwrap();
    for word in [
        "tails",
        "leaves",
        "descr. frames",
        "table frames",
        "left in RAM",
        "altmap",
        "saved",
        "online in",
        "fold",
        "frames before",
        "flushes",
        "audit",
        "oracle",
        "sizes",
    ] {
        let explained = legend.lines().any(|line| line.starts_with(word));
        assert!(explained, "{word}: {legend}");
    }
}

#[test]
fn one_tib_costs_what_is_promised_in_ram_and_in_the_altmap() {
    let survey = run("--backend x86_64 --align 1G").stdout;
    let block = block(&survey, "x86_64");
    let rows = rows(&block, "-- 1T online in pages of 1G");
    // A page has 2 frames, or 1 and 1 for all. A table maps 512 pages of 64 descriptors: 8192 leaf
    // tables, or 1 of tails for all or each and 1 with the head, and 16 and 1 above. With an
    // altmap, 1 page becomes 4096 pages of base pages, and counts take 1 in 1024 of what is
    // reserved. Packed: 64 heads in a frame, and one of stubs; their leaf table and the two above it come on top.
    let figures: Vec<String> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.len(), 8, "{row:?}");
            [&row[..4], &row[4..7]].concat().join(" ")
        })
        .collect();
    assert_eq!(
        figures,
        [
            "per-compound 4K 2,048 8,209 40.1 KiB - 99.76%",
            "per-compound 4K shared 2,048 2,065 16.1 KiB - 99.90%",
            "per-compound 4K 6,149 8,209 32.1 KiB 24.0 KiB 99.66%",
            "per-compound 4K shared 6,149 2,071 8.1 KiB 24.0 KiB 99.80%",
            "per-order 4K 1,025 8,209 36.1 KiB - 99.78%",
            "per-order 4K shared 1,025 1,042 8.1 KiB - 99.95%",
            "per-order 4K 5,126 8,209 32.1 KiB 20.0 KiB 99.68%",
            "per-order 4K shared 5,126 1,049 4.1 KiB 20.0 KiB 99.85%",
            "packed 4K 17 8,212 32.1 KiB - 99.80%",
            "packed 4K shared 17 21 152 B - 99.99%",
        ]
    );
}

#[test]
fn base_pages_save_less_than_nothing_where_tables_come_on_top() {
    let survey = run("--backend x86_64 --align base").stdout;
    let block = block(&survey, "x86_64");
    let rows = rows(&block, "-- 4G online in base pages of 4K");
    // 16,384 frames; 32 leaf tables and 2 above: 0.2075 %; 2 alone: 0.0122 %.
    let saved: Vec<[&str; 4]> = rows
        .iter()
        .map(|row| [row[1], row[2], row[3], row[6]])
        .collect();
    assert_eq!(saved[0], ["4K", "16,384", "34", "-0.21%"]);
    assert_eq!(saved[1], ["2M", "16,384", "2", "-0.01%"]);
    // Nothing of it is folded.
    assert!(!survey.contains("folded to"), "{survey}");
}

#[test]
fn only_what_is_named_is_surveyed() {
    let survey = run("--backend aarch64-64k --backend sim --align 2M --align 512M").stdout;
    let titles = |kind: &BackendKind| !block(&survey, kind.name()).is_empty();
    let shown: Vec<&str> = BackendKind::ALL
        .into_iter()
        .filter(titles)
        .map(BackendKind::name)
        .collect();
    assert_eq!(shown, ["sim", "aarch64-64k"]);
    let headings: Vec<&str> = survey
        .lines()
        .filter(|line| line.starts_with("-- "))
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    // Each size is online, and more of it with packed heads where these take less; and folded. Not where a vmemmap
    // page describes more: 64M with 64K pages.
    assert_eq!(
        headings,
        [
            "2M", "2M", "512M", "2M", "512M", "2M", "512M", "512M", "512M"
        ]
    );
}

#[test]
fn a_backend_without_pages_of_a_size_says_so() {
    let ran = run("--backend x86_64 --backend aarch64-64k --align 4K");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let title = block(&ran.stdout, "aarch64-64k").join(" ");
    assert!(title.contains("no pages of this size"), "{}", ran.stdout);
}

#[test]
fn pages_of_any_size_fit_the_screen() {
    let survey = run("--backend x86_64 --align 64K --align 8M --align 16G --align 1T");
    assert_eq!((survey.code, survey.stderr.as_str()), (0, ""));
    let lines = || survey.stdout.lines();
    assert!(
        lines().all(|line| line.chars().count() <= 80),
        "{}",
        survey.stdout
    );
    assert_eq!(
        lines()
            .filter(|line| line.contains(" online in pages of "))
            .count(),
        // There is more of 8M with packed heads.
        4 + 1
    );
    // It is not there, so it is not explained.
    assert!(!lines().any(|line| line.starts_with("oracle")));
}

#[test]
fn rows_that_fail_are_told_and_fit_the_screen() {
    let watch = Watch {
        limits: Limits {
            host_bytes: 48 << 20,
            ..Limits::default()
        },
        ..Watch::default()
    };
    let ran = watch.run("--backend x86_64");
    assert_eq!(ran.code, 1);
    let rows = ran
        .stdout
        .lines()
        .filter(|line| line.contains(": failed: too-large"));
    assert!(rows.count() >= 5, "{}", ran.stdout);
    assert!(
        ran.stdout.contains("audit: not clean, or rows failed"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80));
    for line in ran.stderr.lines() {
        assert!(line.starts_with("error: "), "{line}");
        assert!(line.contains("x86_64 at "), "{line}");
    }
}

/// What has arrived where people read.
#[derive(Clone, Default)]
struct Read(Rc<RefCell<String>>);

impl Write for Read {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .borrow_mut()
            .push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many backends could be read when each step began.
struct ReadSoFar {
    read: Read,
    seen: RefCell<Vec<(String, usize)>>,
}

impl Progress for ReadSoFar {
    fn step(&self, what: &str, _done: usize, _all: usize) {
        let verdicts = self.read.0.borrow().matches("audit: clean").count();
        self.seen.borrow_mut().push((what.to_owned(), verdicts));
    }

    fn hide(&self) {}
}

#[test]
fn a_backend_can_be_read_when_it_is_done() {
    let mut read = Read::default();
    let progress = ReadSoFar {
        read: read.clone(),
        seen: RefCell::default(),
    };
    let watch = Watch {
        progress: &progress,
        ..Watch::default()
    };
    let line = "--backend x86_64 --backend aarch64-4k --backend aarch64-16k --align 1G";
    let (code, _) = watch.run_into(&mut read, &split(line));
    assert_eq!(code, 0);
    let seen = progress.seen.into_inner();
    for (before, backend) in ["x86_64", "aarch64-4k", "aarch64-16k"].iter().enumerate() {
        let on = format!("{backend} at ");
        let counts = seen.iter().filter(|(what, _)| what.contains(&on));
        let counts: Vec<usize> = counts.map(|(_, count)| *count).collect();
        assert!(counts.len() > 4, "{seen:?}");
        assert!(counts.iter().all(|count| *count == before), "{seen:?}");
    }
}

/// Without how long it took, which is the last cell, or the last two of a row that is folded.
fn without_times(line: &str) -> &str {
    let is_time = |text: &str| [" ms", " µs", " s"].iter().any(|unit| text.ends_with(unit));
    let mut rest = line.trim_end();
    while is_time(rest) {
        let (before, _) = rest.rsplit_once(' ').unwrap();
        rest = before.trim_end().rsplit_once(' ').unwrap().0.trim_end();
    }
    rest
}

#[test]
fn the_readme_shows_what_the_survey_prints() {
    let readme = include_str!("../../../../README.md");
    let command = "$ cargo run --release -p explorer -- --backend x86_64\n";
    let shown = readme.split_once(command).unwrap().1;
    let shown = shown.split_once("```text\n").unwrap().1;
    let shown = shown.split_once("\n```").unwrap().0;
    let survey = run("--backend x86_64").stdout;
    let printed = block(&survey, "x86_64");
    // Widths depend on the times.
    let words = |line: &str| {
        without_times(line)
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let is_rule = |line: &&str| line.starts_with('─');
    let shown: Vec<Vec<String>> = shown
        .lines()
        .filter(|line| !is_rule(line))
        .map(words)
        .collect();
    let printed: Vec<Vec<String>> = printed
        .iter()
        .copied()
        .filter(|line| !is_rule(line))
        .map(words)
        .collect();
    assert_eq!(shown, printed);
}
