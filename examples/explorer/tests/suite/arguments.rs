//! Bad arguments are told in one line, and no arguments make the program panic.

use crate::program::{run, run_within};
use explorer::Console;
use explorer::need::Limits;
use explorer::progress::Silent;
use explorer::screen::USUAL_COLUMNS;
use hosted::BackendKind;
use proptest::prelude::*;
use serde_json::Value;
use std::io::{self, ErrorKind, Write};

#[test]
fn a_bad_argument_is_named_in_one_line_with_what_it_takes() {
    let cases = [
        ("online --range", "--range", "START+SIZE"),
        ("online --range 24G", "--range", "START+SIZE"),
        (
            "online --range 24G+lots",
            "--range",
            "suffix K, M, G, T or P",
        ),
        (
            "online --range 99999999999999999999+1",
            "--range",
            "64 bits",
        ),
        ("online --range 24G+99999P", "--range", "64 bits"),
        ("online --range １G+１G", "--range", "a number of bytes"),
        ("online --range +", "--range", "a number of bytes"),
        ("online --align", "--align", "base|SIZE"),
        ("online --align huge", "--align", "or base for base pages"),
        ("online --align -2M", "--align", "or base for base pages"),
        ("online --align 3M", "--align", "a power of two up to 1T"),
        ("online --align 0", "--align", "a power of two up to 1T"),
        ("online --align 2T", "--align", "pages of 2T do not exist"),
        ("fold --align 2T", "--align", "a power of two up to 1T"),
        ("plan --align 8192P", "--align", "a power of two up to 1T"),
        (
            "online --backend sim --align 2T",
            "--align",
            "a power of two up to 1T",
        ),
        (
            "online --backend aarch64-16k --align 2T",
            "--align",
            "a power of two up to 1T",
        ),
        (
            "online --backend aarch64-64k --align 8192P",
            "--align",
            "a power of two up to 1T",
        ),
        ("plan --align 2K", "--align", "base or 4K for base pages"),
        (
            "online --backend aarch64-16k --align 4K",
            "--align",
            "base or 16K for base pages, or a power of two up to 1T, like 32M",
        ),
        (
            "plan --align 4K --backend aarch64-64k --format json",
            "--align",
            "base or 64K for base pages, or a power of two up to 1T, like 512M",
        ),
        ("online --backend", "--backend", "sim, x86_64"),
        (
            "online --backend arm",
            "--backend",
            "sim, x86_64, x86_64-la57, aarch64-4k, aarch64-16k, aarch64-64k, riscv64-sv39, riscv64-sv48, riscv64-sv57",
        ),
        (
            "online --tails all",
            "--tails",
            "none, per-compound, per-order",
        ),
        ("online --tables all", "--tables", "private, shared"),
        ("online --heads all", "--heads", "in-place, packed"),
        ("reorder --heads", "--heads", "in-place, packed"),
        ("lazy --heads packed", "--heads", ""),
        ("online --piece 1G", "--piece", "subsection, section, range"),
        ("online --huge-leaves maybe", "--huge-leaves", "yes, no"),
        ("online --format xml", "--format", "table, json"),
        ("online --node 64", "--node", "0 to 63"),
        ("online --node -1", "--node", "0 to 63"),
        ("online --range -1", "--range", "START+SIZE"),
        ("online --range -1G+2G", "--range", "a number of bytes"),
        ("online --altmap -1G", "--altmap", "a number of bytes"),
        ("online --fail-after -1x", "--fail-after", "whole number"),
        ("online --range --align 2M", "--range", "START+SIZE"),
        ("online --node one", "--node", "0 to 63"),
        ("online --fail-after x", "--fail-after", "whole number"),
        ("online --altmap ten", "--altmap", "a number of bytes"),
        ("plan --limit all", "--limit", "whole number"),
        ("online --align 2M --align 4K", "--align", "once"),
        ("online --what 5", "--what", ""),
        ("online stray", "stray", ""),
        ("fold --align 3M", "--align", "a power of two up to 1T"),
        ("fold --range 24G", "--range", "START+SIZE"),
        ("fold --no-quiesce yes", "yes", ""),
        ("fold --no-quiesce --no-quiesce", "--no-quiesce", "once"),
        ("plan --no-quiesce", "--no-quiesce", ""),
        ("fold --json", "--json", ""),
        ("fold --limit 3", "--limit", ""),
        (
            "offline",
            "offline",
            "online, fold, reorder, lazy, draw, chart, inspect, dump, plan or help",
        ),
        ("onlin", "onlin", "did you mean 'online'?"),
        ("help fodl", "fodl", "did you mean 'fold'?"),
        (
            "help offline",
            "offline",
            "online, fold, reorder, lazy, draw, chart, inspect, dump, plan or help",
        ),
        ("online --aling 2M", "--aling", "did you mean '--align'?"),
        (
            "fold --no-quiese",
            "--no-quiese",
            "did you mean '--no-quiesce'?",
        ),
        ("--bakend sim", "--bakend", "did you mean '--backend'?"),
        ("--backend x86-64", "--backend", "did you mean 'x86_64'?"),
        (
            "online --backend x86-64",
            "x86-64",
            "did you mean 'x86_64'?",
        ),
        (
            "online --tails per-ordr",
            "per-ordr",
            "did you mean 'per-order'?",
        ),
        ("--backend", "--backend", "sim, x86_64, x86_64-la57"),
        ("--backend arm", "'arm'", "sim, x86_64, x86_64-la57"),
        ("--backend sim online", "online", "behind it"),
        ("--align", "--align", "base|SIZE"),
        ("--align huge", "--align", "or base for base pages"),
        ("--align 2T", "--align", "a power of two up to 1T"),
        (
            "--backend aarch64-16k --backend aarch64-64k --align 4K",
            "--align",
            "pages of 4K do not exist on aarch64-16k",
        ),
        ("--range 24G+1G", "--range", ""),
        ("online --format json --range 24G", "--range", "START+SIZE"),
    ];
    for (line, argument, takes) in cases {
        let ran = run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}");
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(argument), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(takes), "{line}: {}", ran.stderr);
    }
}

#[test]
fn help_and_version_are_on_standard_output() {
    for line in [
        "--help",
        "-h",
        "online --help",
        "fold --help",
        "plan --help",
        "--version",
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(ran.stdout.contains("explorer"), "{line}");
    }
    for line in [
        "--help",
        "online --help",
        "fold --help",
        "reorder --help",
        "lazy --help",
        "plan --help",
    ] {
        let help = run(line).stdout;
        assert!(help.contains("Examples:"), "{line}");
        let exit = help.find("Exit status: 0 done; 1 not done").unwrap();
        assert!(exit < help.find("Examples:").unwrap(), "{line}");
    }
    assert!(run("--help").stdout.contains("prints two tables for"));
}

/// The examples of each help, but for the survey, which takes as long as it takes.
#[test]
fn what_help_gives_as_examples_works() {
    for line in [
        "--help",
        "online --help",
        "fold --help",
        "reorder --help",
        "lazy --help",
        "plan --help",
    ] {
        let help = run(line).stdout;
        let examples = help.split("Examples:\n").nth(1).unwrap();
        let examples: Vec<&str> = examples
            .lines()
            .filter_map(|line| line.strip_prefix("  explorer "))
            .collect();
        assert!(examples.len() >= 4, "{line}: {examples:?}");
        for example in examples {
            // Those that show a failure.
            let fails = example.contains("--fail-after") || example.contains("--no-quiesce");
            let ran = run(example);
            assert_eq!(ran.code, u8::from(fails), "{example}: {}", ran.stderr);
        }
    }
}

/// What the examples of `dump` write, those of `inspect` and `draw` read.
#[test]
fn what_help_gives_as_examples_of_dumps_and_pictures_works() {
    for line in [
        "dump --help",
        "inspect --help",
        "draw --help",
        "chart --help",
    ] {
        let help = run(line).stdout;
        let examples = help.split("Examples:\n").nth(1).unwrap();
        let examples = examples
            .lines()
            .filter_map(|line| line.strip_prefix("  explorer "));
        let examples: Vec<&str> = examples.collect();
        assert!(!examples.is_empty(), "{line}");
        for example in examples {
            let ran = run(example);
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{example}");
        }
    }
}

/// Takes some bytes and breaks.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => self.0 = left,
            None => return Err(ErrorKind::BrokenPipe.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_a_long_plan_quietly() {
    for format in ["table", "json"] {
        let mut stderr = Vec::new();
        let args = ["explorer", "plan", "--range", "0+64T", "--format", format];
        let mut console = Console {
            stdout: &mut Pipe(1 << 16),
            stderr: &mut stderr,
            progress: &Silent,
            columns: USUAL_COLUMNS,
        };
        assert_eq!(explorer::run(args, &Limits::default(), &mut console), 0);
        assert_eq!(stderr, b"");
    }
}

fn size() -> impl Strategy<Value = String> {
    let exact = prop_oneof![
        4 => (0_u64..64).prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| format!("{n:#x}")),
    ];
    let suffix = prop_oneof![
        1 => Just("".to_owned()),
        6 => "[KMGTPkmgtp](iB|B)?",
        1 => ".{0,3}",
    ];
    (exact, suffix).prop_map(|(number, suffix)| number + &suffix)
}

fn option() -> impl Strategy<Value = Vec<String>> {
    let choice = |name: &'static str, values: &'static [&'static str]| {
        prop::sample::select(values).prop_map(move |value| vec![name.to_owned(), value.to_owned()])
    };
    let number = |name: &'static str| {
        prop_oneof![(0_u64..70).boxed(), any::<u64>().boxed()]
            .prop_map(move |value| vec![name.to_owned(), value.to_string()])
    };
    prop_oneof![
        6 => (0_u64..66, prop::sample::select(&["2M", "32M", "128M", "1G", "3G"][..]))
            .prop_map(|(start, size)| vec!["--range".to_owned(), format!("{start}G+{size}")]),
        1 => (size(), size()).prop_map(|(start, size)| vec!["--range".to_owned(), format!("{start}+{size}")]),
        2 => prop::sample::select(&BackendKind::ALL[..])
            .prop_map(|kind| vec!["--backend".to_owned(), kind.name().to_owned()]),
        2 => choice("--align", &["base", "4K", "2M", "1G", "1g", "8K", "16K", "32M", "16G", "2T"]),
        1 => (0_u32..64).prop_map(|bits| vec!["--align".to_owned(), (1_u64 << bits).to_string()]),
        1 => size().prop_map(|size| vec!["--align".to_owned(), size]),
        1 => choice("--tails", &["none", "per-compound", "per-order"]),
        1 => choice("--tables", &["private", "shared"]),
        1 => choice("--piece", &["subsection", "section", "range"]),
        1 => choice("--huge-leaves", &["yes", "no"]),
        1 => size().prop_map(|size| vec!["--altmap".to_owned(), size]),
        1 => choice("--altmap", &["auto", "2M", "64M", "1G"]),
        1 => number("--node"),
        1 => number("--fail-after"),
        1 => Just(vec!["--stats".to_owned()]),
        1 => Just(vec!["--no-quiesce".to_owned()]),
    ]
}

/// Options, and now and then something that is none.
fn options() -> impl Strategy<Value = Vec<Vec<String>>> {
    let good = || prop::collection::vec(option(), 0..5);
    let stray = ".{0,8}".prop_map(|text| vec![vec![text]]);
    prop_oneof![
        9 => good(),
        1 => (good(), stray, good()).prop_map(|(a, b, c)| [a, b, c].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_end_in_one_of_three_ways(
        command in prop::sample::select(&["online", "fold", "plan"][..]),
        options in options(),
    ) {
        let limits = Limits { host_bytes: 64 << 20, planned_runs: 1 << 14, ..Limits::default() };
        let mut args = vec![command.to_owned(), "--format".to_owned(), "json".to_owned()];
        args.extend(options.into_iter().flatten());
        // These answer otherwise, and are tested above.
        prop_assume!(!args.iter().any(|arg| arg.starts_with("-h") || arg.starts_with("--h")));
        let ran = run_within(&limits, &args);
        match ran.code {
            0 => {
                let report = ran.json();
                prop_assert_eq!(&report["error"], &Value::Null);
                if command == "fold" {
                    let lacked = report["notes"].to_string().contains("not possible");
                    prop_assert!(lacked || report["unfolded"] == report["base"]);
                }
                prop_assert_eq!(ran.stderr, "");
            }
            1 => {
                let report = ran.json();
                prop_assert!(report["error"]["kind"].is_string());
                prop_assert_eq!(ran.stderr.lines().count(), 1);
                if command != "plan" {
                    prop_assert_eq!(&report["after_error"]["frames"], 0);
                    prop_assert_eq!(&report["after_error"]["audit"], "clean");
                }
            }
            2 => {
                prop_assert_eq!(&ran.stdout, "");
                prop_assert_eq!(ran.stderr.lines().count(), 1);
            }
            code => prop_assert!(false, "{code}"),
        }
    }
}
