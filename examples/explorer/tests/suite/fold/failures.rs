//! What is refused, and memory that runs out in any step.

use super::{failing, fold, notes, totals};
use crate::geometry;
use crate::program::{run, run_within};
use explorer::need::Limits;
use serde_json::Value;

/// The step at which each number of allocations fails.
fn failed_steps(line: &str) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        let line = format!("{line} --fail-after {}", steps.len());
        if run(&format!("fold {line}")).code == 0 {
            fold(&line);
            return steps;
        }
        let report = failing(&line);
        assert_eq!(report["error"]["kind"], "out-of-frames", "{line}");
        let step = report["failed_step"].as_str().unwrap().to_owned();
        // What was done before is known, and nothing else.
        let known = ["frames_base", "frames_folded", "frames_unfolded"];
        let done = ["online", "fold", "unfold"]
            .iter()
            .position(|name| *name == step);
        for (index, key) in known.iter().enumerate() {
            assert_eq!(report[key].is_u64(), index < done.unwrap(), "{line}");
        }
        steps.push(step);
    }
}

#[test]
fn memory_that_runs_out_in_any_step_leaves_everything_as_before_it() {
    // 64 compound pages within a huge leaf, or 8 within a leaf table. Allocations of each step, and
    // of which step one is for a table below the upper ones.
    let cases = [
        ("128M", "per-compound", [1, 1, 1], "fold"),
        ("128M", "per-order", [1, 2, 1], "fold"),
        ("16M", "per-compound", [64 + 1, 0, 8 * 6], "online"),
        ("16M", "per-order", [64 + 1, 1, 8 * 7], "online"),
    ];
    for (size, tails, allocations, with_table) in cases {
        for (backend, upper) in [
            ("sim", None),
            ("x86_64", Some(2)),
            ("x86_64-la57", Some(3)),
            ("aarch64-4k", Some(2)),
        ] {
            let line = format!("--backend {backend} --range 24G+{size} --tails {tails}");
            let steps = failed_steps(&line);
            let expected: Vec<&str> = ["online", "fold", "unfold"]
                .into_iter()
                .zip(allocations)
                .flat_map(|(step, allocations)| {
                    let upper_tables = if step == "online" {
                        upper.unwrap_or(0)
                    } else {
                        0
                    };
                    let no_table = usize::from(upper.is_none() && step == with_table);
                    vec![step; allocations + upper_tables - no_table]
                })
                .collect();
            assert_eq!(steps, expected, "{line}");
        }
    }
}

#[test]
fn the_host_has_to_hold_the_blocks_that_unfolding_takes_too() {
    let host_bytes = 24 << 20;
    let limits = Limits {
        host_bytes,
        ..Limits::default()
    };
    // 16 MiB of descriptors, and as much again for the huge leaves that come back.
    for (huge_leaves, code) in [("no", 0), ("yes", 1)] {
        let args = ["fold", "--range", "24G+1G", "--huge-leaves", huge_leaves];
        let ran = run_within(&limits, &args);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert_eq!(ran.stderr.starts_with("error: too-large"), code == 1);
    }
}

#[test]
fn a_range_whose_turn_comes_later_fails_alone_and_is_named() {
    // A block for each of 16 huge leaves and 2 tables for all; a table for each of 8 huge leaves of
    // the first range, then of the second.
    let line = "--range 24G+1G --range 40G+1G --fail-after";
    let online = 16 + 2;
    for (allocations, named) in [
        (online, "24G+1G"),
        (online + 8, "40G+1G"),
        (online + 15, "40G+1G"),
    ] {
        let report = failing(&format!("{line} {allocations}"));
        assert_eq!(report["failed_step"], "fold", "{report}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("folding {named}: ")),
            "{message}"
        );
    }
    let report = failing(&format!("{line} {}", online + 16 + 8));
    assert_eq!(report["failed_step"], "unfold");
    assert!(
        report["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("unfolding 40G+1G: ")
    );
    let report = fold("--range 40G+1G --range 24G+1G");
    assert_eq!(report["compound_pages"], 1024);
    assert_eq!(totals(&report), [8194, 2048 + 16 + 2, 8194]);
}

#[test]
fn aarch64_folds_with_a_quiesce_hook_only_and_others_need_none() {
    for geometry in geometry::all() {
        let [align, _] = geometry.natural;
        let line = format!(
            "--backend {} --range {}+{}",
            geometry.backend,
            64 * align,
            4 * align
        );
        fold(&line);
        let line = format!("{line} --no-quiesce");
        if geometry.backend.starts_with("aarch64") {
            let report = failing(&line);
            assert_eq!(report["error"]["kind"], "unsupported", "{line}");
            assert_eq!(report["failed_step"], "fold", "{line}");
            assert!(report["frames_base"].is_u64(), "{line}");
            let message = report["error"]["message"].as_str().unwrap();
            assert!(message.contains("keep CPUs"), "{message}");
        } else {
            let report = fold(&line);
            assert!(notes(&report)[0].contains("no quiesce hook"), "{report}");
        }
    }
}

#[test]
fn what_cannot_be_folded_is_refused_with_what_to_do() {
    let cases = [
        (
            "--align 4K",
            "unsupported",
            "a larger --align, like 2M or 1G",
        ),
        (
            "--align base",
            "unsupported",
            "a larger --align, like 2M or 1G",
        ),
        (
            "--align base --tails per-order",
            "unsupported",
            "a larger --align",
        ),
        (
            "--align 512K",
            "unsupported",
            "a larger --align, like 2M or 1G",
        ),
        (
            "--align 256K --tails per-order",
            "unsupported",
            "a larger --align",
        ),
        (
            "--tails none",
            "unsupported",
            "--tails per-compound or per-order",
        ),
        (
            "--backend aarch64-64k --align 64K",
            "unsupported",
            "like 512M or 16G",
        ),
        (
            "--range 24G+1025M",
            "misaligned",
            "the aligned part is 24G+1G",
        ),
        (
            "--align 1G --range 512M+2G",
            "misaligned",
            "multiples of 1G; the aligned part is 1G+1G",
        ),
        (
            "--align 1G --range 512M+1G",
            "misaligned",
            "no part of it does",
        ),
        (
            "--backend aarch64-16k --range 24G+33M",
            "misaligned",
            "multiples of 32M",
        ),
        ("--range 24G+0", "empty", "24G+0"),
        ("--range 1G+1G --range 1G+2M", "overlap", "once"),
        (
            "--align 1T",
            "too-large",
            "a smaller --align, like 1G, and with it a smaller --range",
        ),
        (
            "--range 24G+256G",
            "too-large",
            "takes 8.03 GiB of host memory (half of it for unfolding into huge leaves, which may take as much again), more than the limit of 8.00 GiB; bring a smaller --range online, or take --huge-leaves no",
        ),
        (
            "--backend sim --range 24G+256G",
            "too-large",
            "1,048,576 descriptor frames takes 8.1 GiB",
        ),
        ("--range 65535G+2G", "out-of-range", "vmemmap"),
        ("--range 0+64T", "too-large", "smaller --range"),
        (
            "--range 24G+1G --align 1G --altmap auto",
            "no-compound-page",
            "larger",
        ),
        (
            "--range 24G+1G --align 1G --altmap 2M",
            "no-compound-page",
            "larger",
        ),
        ("--range 24G+2M --altmap auto", "no-compound-page", "larger"),
        ("--range 24G+64M --altmap 3M", "misaligned", "subsections"),
        (
            "--range 24G+64M --altmap 128M",
            "out-of-range",
            "larger than the range",
        ),
    ];
    for (line, kind, advice) in cases {
        let report = failing(line);
        assert_eq!(report["error"]["kind"], kind, "{line}: {report}");
        assert_eq!(report["failed_step"], Value::Null, "{line}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(advice), "{line}: {message}");
    }
}

#[test]
fn who_makes_memory_run_out_is_said_and_that_it_does_not() {
    let report = failing("--range 24G+1G --fail-after 12");
    let message = report["error"]["message"].as_str().unwrap();
    assert!(message.contains("as --fail-after 12 demands"), "{message}");
    let report = fold("--range 24G+1G --fail-after 1000000");
    let noted = notes(&report);
    let noted = noted
        .iter()
        .any(|note| note.starts_with("--fail-after 1000000 made nothing fail"));
    assert!(noted, "{report}");
}
