//! Help fits the terminal, and is found under the names that people try.

use crate::program::{Watch, run};
use std::process::{Command, Output};

const HELPS: [&str; 10] = [
    "--help",
    "online --help",
    "fold --help",
    "reorder --help",
    "lazy --help",
    "draw --help",
    "chart --help",
    "inspect --help",
    "dump --help",
    "plan --help",
];

fn widest(text: &str) -> usize {
    text.lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0)
}

#[test]
fn help_is_no_wider_than_the_terminal() {
    for columns in [60, 80, 90] {
        let watch = Watch {
            columns,
            ..Watch::default()
        };
        for line in HELPS {
            let help = watch.run(line).stdout;
            let (options, examples) = help.split_once("Examples:").unwrap();
            assert!(widest(options) <= columns, "{line}: {options}");
            // Lines are filled, not cut short.
            assert!(widest(options) > columns - 10, "{line}: {options}");
            // At 80 columns an example is one line, to be copied.
            if columns >= 80 {
                let mut lines = examples.lines().skip(1);
                assert!(lines.all(|line| line.starts_with("  explorer")), "{help}");
            }
        }
    }
}

#[test]
fn help_is_a_command_too() {
    for (command, option) in [
        ("help", "--help"),
        ("help --help", "--help"),
        ("help online -h", "online --help"),
        ("help online", "online --help"),
        ("help fold", "fold --help"),
        ("help reorder", "reorder --help"),
        ("help lazy", "lazy --help"),
        ("help draw", "draw --help"),
        ("help chart", "chart --help"),
        ("help inspect", "inspect --help"),
        ("help dump", "dump --help"),
        ("help plan", "plan --help"),
    ] {
        let ran = run(command);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command}");
        assert_eq!(ran.stdout, run(option).stdout, "{command}");
    }
}

#[test]
fn help_says_what_a_simulation_takes_at_most() {
    for line in [
        "online --help",
        "fold --help",
        "reorder --help",
        "lazy --help",
    ] {
        // Wherever lines break.
        let help: Vec<String> = run(line)
            .stdout
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let said = "needs more than 8 GiB, or more than the machine has free, is refused";
        assert!(help.join(" ").contains(said), "{line}");
    }
}

/// The program itself, with `columns` in its environment.
fn process(columns: &str, line: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_explorer"));
    program.args(line.split(' ')).env("COLUMNS", columns);
    program.output().unwrap()
}

#[test]
fn the_program_takes_its_width_from_the_environment_up_to_a_maximum() {
    for (columns, most) in [("60", 60), ("80", 80), ("300", 90)] {
        let help = process(columns, "online --help").stdout;
        let help = String::from_utf8(help).unwrap();
        let widest = widest(help.split("Examples:").next().unwrap());
        assert!((most - 10..=most).contains(&widest), "{widest}: {help}");
    }
}

#[test]
fn nothing_is_on_standard_error_where_that_is_no_terminal() {
    for line in [
        "--backend sim --align 2M",
        "online --range 24G+1G",
        "fold --range 24G+1G",
    ] {
        let output = process("80", line);
        assert!(output.status.success(), "{line}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{line}");
        assert!(!output.stdout.contains(&b'\r'), "{line}");
        assert!(!output.stdout.contains(&b'\x1b'), "{line}");
    }
}
