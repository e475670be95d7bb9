//! `fold` brings memory online in base pages, folds and unfolds it, and prints what each state costs.

mod altmap;
mod costs;
mod failures;

use crate::geometry::{self, GIB};
use crate::program::run;
use serde_json::{Value, json};

const KEYS: [&str; 29] = [
    "backend",
    "ranges",
    "align",
    "heads",
    "tails",
    "tables",
    "altmap_reserved_bytes",
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
        "│ descriptors ┆ 4,096 ┆ 1,024 ┆ 4,096 │",
        "│ total ┆ 4,098 ┆ 1,034 ┆ 4,098 │",
        "folded 512 compound pages",
        "flushes 18: 17 folding, 1 unfolding",
        "unfolded to the frames of the start",
        "still out 0 frames after offline",
        "audit clean",
    ] {
        // Columns are as wide as what took longest.
        let lines = ran.stdout.lines();
        let mut lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(
            lines.any(|line| line.contains(part)),
            "{part}: {}",
            ran.stdout
        );
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
    for geometry in geometry::all() {
        let [small, _] = geometry.natural;
        let report = fold(&format!("--backend {}", geometry.backend));
        assert_eq!(report["tails"], "per-compound");
        assert_eq!(report["compound_pages"], 16 * GIB / small);
        let ranges = json!([{"start": 24 * GIB, "size": 16 * GIB}]);
        assert_eq!(report["ranges"], ranges);
    }
}
