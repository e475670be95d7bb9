//! `fold` prints what closed formulas say that memory costs in base pages, folded and unfolded.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod geometry;
mod program;

use explorer::need::Limits;
use geometry::{BACKENDS, GIB, Geometry, MIB, Tables};
use program::{run, run_within};
use serde_json::{Value, json};

const KEYS: [&str; 27] = [
    "backend",
    "ranges",
    "align",
    "tails",
    "tables",
    "compound_pages",
    "frames_base",
    "frames_folded",
    "frames_unfolded",
    "base",
    "folded",
    "unfolded",
    "saved_percent",
    "flushes",
    "flushes_fold",
    "flushes_unfold",
    "stats",
    "notes",
    "audit",
    "online_ns",
    "fold_ns",
    "unfold_ns",
    "offline_ns",
    "after_offline",
    "failed_step",
    "error",
    "after_error",
];

/// What a fold that is done prints.
fn fold(line: &str) -> Value {
    let ran = run(&format!("fold --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let report = ran.json();
    assert_eq!(report["audit"], "clean", "{line}");
    assert_eq!(report["after_offline"]["frames"], 0, "{line}");
    for nothing in ["failed_step", "error", "after_error"] {
        assert_eq!(report[nothing], Value::Null, "{line}");
    }
    let flushes = |key: &str| report[key].as_u64().unwrap();
    let both = flushes("flushes_fold") + flushes("flushes_unfold");
    assert_eq!(flushes("flushes"), both, "{line}");
    for (state, total) in [
        ("base", "frames_base"),
        ("folded", "frames_folded"),
        ("unfolded", "frames_unfolded"),
    ] {
        let total = report[total].as_u64().unwrap();
        assert_eq!(report[state]["total"], total, "{line}");
        assert_stats_agree(&report, state, line);
    }
    report
}

/// The rows of each node come to what was counted in `state`.
fn assert_stats_agree(report: &Value, state: &str, line: &str) {
    let rows = report["stats"].as_array().unwrap();
    let sum = |key: &str| -> u64 {
        let rows = rows.iter().filter(|row| row["state"] == state);
        rows.map(|row| row[key].as_u64().unwrap()).sum()
    };
    let frames = &report[state];
    assert_eq!(frames["descriptors"], sum("descriptor_frames"), "{line}");
    assert_eq!(frames["altmap"], sum("altmap_frames"), "{line}");
    let tables = ["leaf_tables", "upper_tables"].map(|key| frames[key].as_u64().unwrap());
    assert_eq!(tables[0] + tables[1], sum("table_frames"), "{line}");
}

/// What a fold that fails prints.
fn failing(line: &str) -> Value {
    let ran = run(&format!("fold --format json {line}"));
    assert_eq!(ran.code, 1, "{line}");
    assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
    let report = ran.json();
    let nothing_left = json!({"frames": 0, "audit": "clean"});
    assert_eq!(report["after_error"], nothing_left, "{line}");
    assert_eq!(report["audit"], Value::Null, "{line}");
    report
}

fn notes(report: &Value) -> Vec<&str> {
    let notes = report["notes"].as_array().unwrap();
    notes.iter().map(|note| note.as_str().unwrap()).collect()
}

fn totals(report: &Value) -> [u64; 3] {
    ["frames_base", "frames_folded", "frames_unfolded"].map(|key| report[key].as_u64().unwrap())
}

#[test]
fn fold_of_512_compound_pages_of_2m_then_unfold_gives_the_frames_of_the_start() {
    let cases = [
        ("x86_64", "per-compound", [4098, 1034, 4098]),
        ("x86_64", "per-order", [4098, 523, 4098]),
        ("aarch64-4k", "per-compound", [4098, 1034, 4098]),
        ("aarch64-4k", "per-order", [4098, 523, 4098]),
        ("x86_64-la57", "per-compound", [4099, 1035, 4099]),
        ("x86_64-la57", "per-order", [4099, 524, 4099]),
        ("sim", "per-compound", [4096, 1024, 4096]),
        ("sim", "per-order", [4096, 513, 4096]),
    ];
    for (backend, tails, expected) in cases {
        for tables in ["private", "shared"] {
            let line = format!(
                "--backend {backend} --range 24G+1G --align 2M --tails {tails} --tables {tables}"
            );
            let report = fold(&line);
            assert_eq!(totals(&report), expected, "{line}");
            assert_eq!(report["compound_pages"], 512, "{line}");
            // A table cannot be shared where a compound page does not fill one.
            assert_eq!(report["tables"], "private", "{line}");
            assert_eq!(
                notes(&report).len(),
                usize::from(tables == "shared"),
                "{line}"
            );
        }
    }
}

#[test]
fn fold_of_a_compound_page_of_1g_costs_what_one_costs_that_came_online_so() {
    // Descriptor frames and leaf tables.
    let cases = [
        ("per-compound", "private", 2, 8),
        ("per-compound", "shared", 2, 2),
        ("per-order", "private", 2, 8),
        ("per-order", "shared", 2, 2),
    ];
    for (tails, tables, descriptors, leaf_tables) in cases {
        for backend in ["x86_64", "x86_64-la57", "aarch64-4k"] {
            let line = format!(
                "--backend {backend} --range 24G+1G --align 1G --tails {tails} --tables {tables}"
            );
            let report = fold(&line);
            assert_eq!(report["folded"]["descriptors"], descriptors, "{line}");
            assert_eq!(report["folded"]["leaf_tables"], leaf_tables, "{line}");
            assert_eq!(report["unfolded"], report["base"], "{line}");
            assert_eq!(report["tables"], tables, "{line}");
        }
    }
}

/// What a case costs in base pages, and folded.
fn expected(geometry: &Geometry, case: &Case<'_>) -> [Value; 2] {
    let Case {
        tails,
        tables,
        align,
        start,
        bytes,
        piece,
        huge_leaves,
    } = *case;
    let Tables { leaf, upper, whole } = geometry.tables(start, bytes);
    let has_huge_leaves = huge_leaves == "yes" && geometry.huge_leaf_fits(piece);
    let base_tables = if has_huge_leaves { leaf - whole } else { leaf };
    let pages = bytes / align;
    let descriptors = geometry.compound_frames(tails, align, pages).iter().sum();
    let folded_tables = geometry.compound_tables(tails, tables, align, pages, leaf);
    let frames = |descriptors: u64, leaf_tables: u64| {
        let [leaf_tables, upper] = match geometry.has_tables {
            true => [leaf_tables, upper],
            false => [0, 0],
        };
        json!({
            "descriptors": descriptors, "leaf_tables": leaf_tables, "upper_tables": upper,
            "altmap": 0, "total": descriptors + leaf_tables + upper,
        })
    };
    [
        frames(geometry.vmemmap_pages(bytes), base_tables),
        frames(descriptors, folded_tables),
    ]
}

#[derive(Clone, Copy)]
struct Case<'c> {
    tails: &'c str,
    tables: &'c str,
    align: u64,
    start: u64,
    bytes: u64,
    piece: &'c str,
    huge_leaves: &'c str,
}

/// How many changes the radix engine makes for one flush.
const CHANGES_PER_FLUSH: u64 = 32;

/// How often CPUs have to forget when whole leaf tables of base pages are folded: once for each
/// batch of changes, of which there is one for each compound page and each huge leaf.
fn flushes_to_fold(geometry: &Geometry, pages: u64, huge_leaves: u64) -> u64 {
    match geometry.has_tables {
        true => (pages + huge_leaves).div_ceil(CHANGES_PER_FLUSH),
        false => 1,
    }
}

#[test]
fn every_backend_policy_piece_and_leaf_costs_what_its_geometry_says() {
    for geometry in &BACKENDS {
        let [small, large] = geometry.natural;
        // Where the memory is, and how much: whole huge leaves, parts of some, and less than one.
        let describes = geometry.leaf_table_describes();
        let spans = match geometry.page {
            0x1_0000 => vec![(describes - 16 * GIB, 32 * GIB), (48 * GIB, 16 * GIB)],
            _ => vec![
                (3 * describes.max(GIB), 2 * describes.max(GIB)),
                (describes.max(GIB) - GIB, describes.max(GIB) + 2 * GIB),
            ],
        };
        for &(start, bytes) in &spans {
            for align in [small, large] {
                let all = [
                    ("private", "section", "yes"),
                    ("private", "range", "yes"),
                    ("private", "subsection", "yes"),
                    ("shared", "range", "yes"),
                    ("shared", "section", "no"),
                ];
                // Tables are shared with large pages only.
                let policies = if align == small { &all[..3] } else { &all[2..] };
                for tails in ["per-compound", "per-order"] {
                    for &(tables, piece, huge_leaves) in policies {
                        let case = Case {
                            tails,
                            tables,
                            align,
                            start,
                            bytes,
                            piece,
                            huge_leaves,
                        };
                        check_case(geometry, &case);
                    }
                }
            }
        }
    }
}

fn check_case(geometry: &Geometry, case: &Case<'_>) {
    let Case {
        tails,
        tables,
        align,
        start,
        bytes,
        piece,
        huge_leaves,
    } = case;
    let line = format!(
        "--backend {} --range {start}+{bytes} --align {align} --tails {tails} --tables {tables} --piece {piece} --huge-leaves {huge_leaves}",
        geometry.backend
    );
    let report = fold(&line);
    let [base, folded] = expected(geometry, case);
    assert_eq!(report["base"], base, "{line}");
    assert_eq!(report["folded"], folded, "{line}");
    assert_eq!(report["unfolded"], base, "{line}");
    assert_eq!(report["compound_pages"], bytes / align, "{line}");
    let [before, after] = [&base, &folded].map(|frames| frames["total"].as_u64().unwrap());
    let saved = 100.0 * (1.0 - after as f64 / before as f64);
    let printed = report["saved_percent"].as_f64().unwrap();
    assert!((saved - printed).abs() < 1e-4, "{line}: {printed}");
}

#[test]
fn one_flush_is_for_a_batch_of_changes_and_nothing_is_flushed_twice() {
    for geometry in &BACKENDS {
        let [small, _] = geometry.natural;
        for tails in ["per-compound", "per-order"] {
            for huge_leaves in ["yes", "no"] {
                let bytes = match geometry.page {
                    0x1_0000 => 64 * GIB,
                    _ => 2 * geometry.leaf_table_describes().max(GIB),
                };
                let start = bytes;
                let line = format!(
                    "--backend {} --range {start}+{bytes} --tails {tails} --huge-leaves {huge_leaves} --piece range",
                    geometry.backend
                );
                let report = fold(&line);
                let pages = bytes / small;
                let leaves = match (huge_leaves, geometry.has_tables) {
                    ("yes", true) => geometry.tables(start, bytes).whole,
                    _ => 0,
                };
                let fold = flushes_to_fold(geometry, pages, leaves);
                assert_eq!(report["flushes_fold"], fold, "{line}");
                let unfold = match (geometry.has_tables, leaves) {
                    (false, _) => 1,
                    // A frame for each tail: the first tail page, and a run of the others, unless
                    // all are the same.
                    (true, 0) => (pages * if tails == "per-order" { 1 } else { 2 })
                        .div_ceil(CHANGES_PER_FLUSH),
                    (true, leaves) => leaves.div_ceil(CHANGES_PER_FLUSH),
                };
                assert_eq!(report["flushes_unfold"], unfold, "{line}");
            }
        }
    }
}

#[test]
fn json_has_every_key_in_order_in_success_and_failure() {
    for line in [
        "",
        "--fail-after 3",
        "--fail-after 12",
        "--range 0+0",
        "--range 24G+5",
        "--align 4K",
        "--range 0+16383P",
    ] {
        let ran = run(&format!("fold --format json --range 24G+1G {line}"));
        let top = ran.stdout.lines().filter(|line| line.starts_with("  \""));
        let found: Vec<&str> = top.filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(found, KEYS, "{line}");
        assert_eq!(ran.json().as_object().unwrap().len(), KEYS.len(), "{line}");
        assert!(ran.stdout.ends_with("}\n"));
    }
}

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

/// The note on what an altmap leaves out.
fn left_out(report: &Value) -> &str {
    let notes = notes(report);
    let one = notes.iter().find(|note| note.contains("left out"));
    one.unwrap_or_else(|| panic!("{notes:?}"))
}

#[test]
fn what_an_altmap_reserves_stays_base_pages_and_everything_else_is_folded() {
    for (backend, tails, own, ram_tail) in [
        ("sim", "per-compound", 2, 0),
        ("sim", "per-order", 1, 1),
        ("x86_64", "per-compound", 2, 0),
        ("x86_64", "per-order", 1, 1),
        ("x86_64-la57", "per-order", 1, 1),
        ("aarch64-4k", "per-compound", 2, 0),
    ] {
        for (align, altmap, base_mib) in [
            (2 * MIB, "64M", 64),
            (2 * MIB, "auto", 62),
            (GIB, "auto", 1024),
            (256 * MIB, "64M", 256),
        ] {
            let line = format!(
                "--backend {backend} --range 24G+2G --align {align} --tails {tails} --altmap {altmap}"
            );
            let report = fold(&line);
            let pages = (2 * GIB - base_mib * MIB) / align;
            assert_eq!(report["compound_pages"], pages, "{line}");
            let descriptors = |state: &str| {
                let of = |key: &str| report[state][key].as_u64().unwrap();
                (of("descriptors") - of("altmap"), of("altmap"))
            };
            // A vmemmap page is for 256 KiB.
            assert_eq!(descriptors("base"), (0, 8192), "{line}");
            let folded = base_mib * 4 + own * pages;
            assert_eq!(descriptors("folded"), (ram_tail, folded), "{line}");
            assert_eq!(report["unfolded"], report["base"], "{line}");
            let named = format!(
                "24G+{}",
                if base_mib == 1024 {
                    "1G".to_owned()
                } else {
                    format!("{base_mib}M")
                }
            );
            assert!(
                left_out(&report).starts_with(&named),
                "{line}: {}",
                left_out(&report)
            );
        }
    }
}

#[test]
fn an_automatic_altmap_is_the_smallest_that_gives_the_frames_of_the_start() {
    let cases = [
        ("--range 24G+4G --align 2M", 2),
        ("--range 24G+4G --align 2M --tails per-order", 2),
        ("--range 24G+6G --align 1G", 2),
        (
            "--range 24G+6G --align 1G --tails per-order --tables shared",
            2,
        ),
        ("--range 24G+4G --align 2M --huge-leaves no", 2),
        ("--backend aarch64-4k --range 24G+4G --align 512M", 2),
        (
            "--backend aarch64-16k --range 64G+64G --align 32M --piece range",
            4,
        ),
        ("--backend aarch64-64k --range 64G+64G --align 512M", 64),
    ];
    for (line, subsection) in cases {
        let report = fold(&format!("{line} --altmap auto"));
        assert_eq!(report["unfolded"], report["base"], "{line}");
        let said = left_out(&report).split_once("fold: ").unwrap().1;
        let (_, reserved) = said.split_once(' ').unwrap().0.split_once('+').unwrap();
        let mib: u64 = reserved.strip_suffix('M').unwrap().parse().unwrap();
        let less = format!("fold --format json {line} --altmap {}M", mib - subsection);
        let ran = run(&less);
        let report = ran.json();
        assert_eq!(
            report["after_error"]["frames"].as_u64().unwrap_or(0),
            0,
            "{less}"
        );
        assert!(
            ran.code == 1 || report["unfolded"] != report["base"],
            "{less} suffices, too"
        );
    }
}

#[test]
fn an_automatic_altmap_suffices_wherever_ranges_start_and_end() {
    // In units of 2 MiB; a huge leaf is for 64.
    let ends = [0, 1, 31, 63];
    for (index, start) in ends.into_iter().enumerate() {
        for end in ends {
            let (first, second) = (3 * index as u64 + 5, 12 - 2 * index as u64);
            let range = |at: u64, leaves: u64| {
                let bytes = (leaves * 64 + end) * 2;
                format!("--range {}M+{bytes}M", (at * 64 + start) * 2)
            };
            let line = match end {
                1 => range(100, first),
                _ => format!("{} {}", range(100, first), range(200, second)),
            };
            let report = fold(&format!("{line} --align 2M --altmap auto"));
            assert_eq!(report["unfolded"], report["base"], "{line}");
        }
    }
}

#[test]
fn an_altmap_without_blocks_for_huge_leaves_is_noted_and_one_without_frames_refused() {
    let report = fold("--range 24G+1G --altmap 16M");
    assert_ne!(report["unfolded"], report["base"]);
    assert_eq!(report["unfolded"]["descriptors"], 4096);
    let noted = notes(&report)
        .iter()
        .any(|note| note.starts_with("unfold: 7 huge leaves"));
    assert!(noted, "{report}");
    let report = failing("--range 24G+1G --altmap 14M");
    assert_eq!(report["error"]["kind"], "altmap-exhausted");
    assert_eq!(report["failed_step"], "online");
    // RAM is needed for tables only.
    let report = failing("--range 24G+1G --altmap 32M --fail-after 4");
    assert_eq!(report["failed_step"], "fold", "{report}");
}

#[test]
fn aarch64_folds_with_a_quiesce_hook_only_and_others_need_none() {
    for geometry in &BACKENDS {
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
        ("--range 65535G+2G", "out-of-range", "vmemmap"),
        ("--align 2T", "unsupported-order", "largest"),
        ("--range 0+64T", "too-large", "smaller range"),
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
fn each_node_that_has_something_has_a_row_for_each_state() {
    let line = "--range 24G+1G --tails per-order --node 7 --altmap auto";
    let report = fold(line);
    let rows = report["stats"].as_array().unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["state"].as_str().unwrap(),
                row["node"].as_u64().unwrap(),
            )
        })
        .collect();
    // Descriptors in the device's own memory; tables, and the tail frame of all, where RAM is.
    let states = ["base", "folded", "unfolded"];
    assert!(
        found.into_iter().eq(states
            .into_iter()
            .flat_map(|state| [(state, 1), (state, 7)]))
    );
    let remote = rows
        .iter()
        .find(|row| row["state"] == "folded" && row["node"] == 1);
    let figures = |key: &str| remote.unwrap()[key].as_u64().unwrap();
    let keys = [
        "descriptor_frames",
        "tail_frames",
        "altmap_frames",
        "table_frames",
        "mark_frames",
    ];
    assert_eq!(keys.map(figures), [1, 1, 0, 10, 0]);
    assert!(
        run(&format!("fold {line}"))
            .stdout
            .contains("│ folded   ┆    7 ┆")
    );
    let one_node = "fold --range 24G+1G";
    assert!(!run(one_node).stdout.contains("node"));
    assert!(run(&format!("{one_node} --stats")).stdout.contains("node"));
}

#[test]
fn text_shows_the_frames_of_each_state_and_a_failure_what_is_left() {
    let ran = run("fold --range 24G+1G");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "x86_64: fold of 24G+1G in pages of 2M, 1G in all",
        "│ descriptors  ┆      4,096 ┆   1,024 ┆    4,096 │",
        "│ total        ┆      4,098 ┆   1,034 ┆    4,098 │",
        "folded        512 compound pages",
        "flushes       18: 17 folding, 1 unfolding",
        "unfolded to   the frames of the start",
        "still out     0 frames after offline",
        "audit         clean",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    for (line, said) in [
        (
            "--align base",
            "nothing done; frames still out: 0, audit: clean",
        ),
        (
            "--fail-after 3",
            "not online; frames still out: 0, audit: clean",
        ),
        (
            "--range 24G+1G --fail-after 12",
            "the fold failed and has changed nothing; offline again; frames still out: 0, audit: clean",
        ),
        (
            "--range 24G+1G --fail-after 20",
            "the unfold failed and has changed nothing; offline again; frames still out: 0, audit: clean",
        ),
    ] {
        let ran = run(&format!("fold {line}"));
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.starts_with("error: "));
        assert!(ran.stdout.contains(said), "{line}: {}", ran.stdout);
    }
}

#[test]
fn each_backend_has_a_compound_page_and_a_range_of_its_own_if_nothing_is_said() {
    for geometry in &BACKENDS {
        let [small, _] = geometry.natural;
        let report = fold(&format!("--backend {}", geometry.backend));
        assert_eq!(report["tails"], "per-compound");
        assert_eq!(report["compound_pages"], 16 * GIB / small);
        let ranges = json!([{"start": 24 * GIB, "size": 16 * GIB}]);
        assert_eq!(report["ranges"], ranges);
    }
}
