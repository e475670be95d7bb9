//! `online` prints what issue and documentation say that memory costs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod program;

use program::run;
use serde_json::{Value, json};

const BACKENDS: [&str; 3] = ["sim", "x86_64", "x86_64-la57"];
const PIECES: [&str; 3] = ["subsection", "section", "range"];

const KEYS: [&str; 16] = [
    "backend",
    "ranges",
    "align",
    "tails",
    "tables",
    "frames",
    "flat_frames",
    "saved_percent",
    "reused_entries",
    "notes",
    "audit",
    "online_ns",
    "offline_ns",
    "after_offline",
    "error",
    "after_error",
];

fn online(line: &str) -> Value {
    let ran = run(&format!("online --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let report = ran.json();
    assert_eq!(report["audit"], "clean", "{line}");
    assert_eq!(report["after_offline"]["frames"], 0, "{line}");
    assert_eq!(report["error"], Value::Null, "{line}");
    report
}

fn failing(line: &str) -> Value {
    let ran = run(&format!("online --format json {line}"));
    assert_eq!(ran.code, 1, "{line}");
    assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
    let report = ran.json();
    assert_eq!(
        report["after_error"],
        json!({"frames": 0, "audit": "clean"}),
        "{line}"
    );
    report
}

fn notes(report: &Value) -> Vec<&str> {
    let notes = report["notes"].as_array().unwrap();
    notes.iter().map(|note| note.as_str().unwrap()).collect()
}

#[test]
fn one_gib_costs_what_each_policy_promises_for_every_piece() {
    let cases = [
        ("1G", "per-compound", "private", 2, 8),
        ("1G", "per-compound", "shared", 2, 2),
        ("1G", "per-order", "private", 2, 8),
        ("1G", "per-order", "shared", 2, 2),
        ("2M", "per-compound", "private", 1024, 8),
        ("2M", "per-order", "private", 513, 8),
    ];
    for (align, tails, tables, descriptors, leaf_tables) in cases {
        for piece in PIECES {
            for backend in ["x86_64", "x86_64-la57"] {
                let report = online(&format!(
                    "--align {align} --tails {tails} --tables {tables} --piece {piece} --backend {backend} --range 24G+1G"
                ));
                let context = format!("{align} {tails} {tables} {piece} {backend}");
                assert_eq!(report["frames"]["descriptors"], descriptors, "{context}");
                assert_eq!(report["frames"]["leaf_tables"], leaf_tables, "{context}");
                assert_eq!(report["tails"], tails, "{context}");
                assert_eq!(report["tables"], tables, "{context}");
                assert_eq!(report["audit"], "clean", "{context}");
                assert_eq!(report["after_offline"]["frames"], 0, "{context}");
            }
        }
    }
}

/// Keys in the order of the text, which a map does not keep.
fn keys_in_order(text: &str) -> Vec<&str> {
    let top = text.lines().filter(|line| line.starts_with("  \""));
    top.filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn sixteen_gib_cost_what_is_documented_on_every_backend_for_every_piece() {
    let cases = [
        ("4K", "none", 65536, 0),
        ("2M", "per-compound", 16384, 128),
        ("1G", "per-compound", 32, 128),
    ];
    for (align, tails, descriptors, tables) in cases {
        for piece in PIECES {
            for backend in BACKENDS {
                let report = online(&format!(
                    "--align {align} --piece {piece} --backend {backend}"
                ));
                let small_leaves = align == "4K" && piece == "subsection";
                let leaf_tables = match (backend, small_leaves) {
                    ("sim", _) => 0,
                    (_, true) => 128,
                    (_, false) => tables,
                };
                let context = format!("{align} {piece} {backend}");
                let frames = &report["frames"];
                assert_eq!(report["tails"], tails, "{context}");
                assert_eq!(frames["descriptors"], descriptors, "{context}");
                assert_eq!(frames["leaf_tables"], leaf_tables, "{context}");
                let upper = match backend {
                    "sim" => 0,
                    "x86_64" => 2,
                    _ => 3,
                };
                assert_eq!(frames["upper_tables"], upper, "{context}");
                let total = descriptors + leaf_tables + upper;
                assert_eq!(frames["total"], total, "{context}");
                assert_eq!(frames["altmap"], 0, "{context}");
                assert_eq!(report["flat_frames"], 65536, "{context}");
                assert_eq!(report["reused_entries"], 65536 - descriptors, "{context}");
                let saved = 100.0 * (1.0 - total as f64 / 65536.0);
                let printed = report["saved_percent"].as_f64().unwrap();
                assert!((saved - printed).abs() < 1e-4, "{context}: {printed}");
            }
        }
    }
}

#[test]
fn json_has_every_key_in_order_in_success_and_failure() {
    for line in [
        "",
        "--fail-after 3",
        "--range 0+0",
        "--range 24G+5",
        "--range 0+16383P",
    ] {
        let ran = run(&format!("online --format json --range 24G+1G {line}"));
        let report = ran.json();
        assert_eq!(keys_in_order(&ran.stdout), KEYS, "{line}");
        assert_eq!(report.as_object().unwrap().len(), KEYS.len(), "{line}");
        let nested = |key: &str| report[key].as_object().unwrap().len();
        assert_eq!((nested("frames"), nested("after_offline")), (5, 1));
        assert!(ran.stdout.ends_with("}\n"));
    }
}

#[test]
fn defaults_are_those_of_the_help() {
    let report = online("");
    assert_eq!(report["backend"], "x86_64");
    assert_eq!(report["align"], "2M");
    assert_eq!(report["tables"], "private");
    assert_eq!(
        report["ranges"],
        json!([{"start": 24_u64 << 30, "size": 16_u64 << 30}])
    );
    assert_eq!(notes(&report), [""; 0]);
}

#[test]
fn ranges_come_in_any_order_and_are_printed_as_given() {
    let report = online("--align 1G --range 40G+2G --range 0x600000000+0x40000000");
    assert_eq!(
        report["ranges"],
        json!([
            {"start": 40_u64 << 30, "size": 2_u64 << 30},
            {"start": 24_u64 << 30, "size": 1_u64 << 30},
        ])
    );
    assert_eq!(report["frames"]["descriptors"], 6);
    assert_eq!(report["frames"]["leaf_tables"], 24);
}

#[test]
fn frame_zero_and_the_last_frame_of_the_model_come_online() {
    for line in ["--range 0+1G", "--range 65535G+1G"] {
        for align in ["4K", "2M", "1G"] {
            online(&format!("{line} --align {align}"));
        }
    }
    online("--backend x86_64-la57 --align 1G --range 4194303G+1G");
    online("--backend x86_64-la57 --align 1G --range 0+1G");
}

#[test]
fn any_number_of_allocations_that_succeed_leaves_nothing_behind_when_the_next_fails() {
    for backend in BACKENDS {
        for (align, range) in [("1G", "24G+1G"), ("2M", "24G+32M"), ("4K", "24G+8M")] {
            let line = format!("--backend {backend} --align {align} --range {range}");
            let total = online(&line)["frames"]["total"].as_u64().unwrap();
            for allocations in 0..total {
                let report = failing(&format!("{line} --fail-after {allocations}"));
                assert_eq!(report["error"]["kind"], "out-of-frames");
                assert_eq!(report["frames"]["total"], Value::Null);
            }
            online(&format!("{line} --fail-after {total}"));
        }
    }
}

#[test]
fn what_the_library_refuses_is_a_failure_with_its_kind() {
    let cases = [
        ("--range 24G+0", "empty"),
        ("--range 24G+5", "misaligned"),
        ("--range 1+2M", "misaligned"),
        ("--range 24G+4K", "misaligned"),
        ("--align 1G --range 512M+1G", "misaligned"),
        ("--align 4K --range 24G+3M", "misaligned"),
        ("--range 1G+1G --range 1G+2M", "overlap"),
        ("--range 1G+1G --range 1G+1G", "overlap"),
        ("--range 65535G+2G", "out-of-range"),
        ("--range 18446744073709547520+2M", "out-of-range"),
        ("--altmap 0", "empty"),
        ("--altmap 5", "misaligned"),
        ("--range 24G+2M --altmap 4M", "out-of-range"),
        ("--range 24G+1G --altmap 2M", "altmap-exhausted"),
        ("--range 0+64T --align 4K", "too-large"),
        ("--range 0+64T --backend sim --align 1G", "too-large"),
        ("--backend x86_64-la57 --range 0+4P --align 1G", "too-large"),
        (
            "--backend x86_64-la57 --range 0+4P --altmap 4P",
            "too-large",
        ),
    ];
    for (line, kind) in cases {
        let report = failing(line);
        assert_eq!(report["error"]["kind"], kind, "{line}");
        assert_ne!(report["error"]["message"], "", "{line}");
    }
}

#[test]
fn frames_of_a_node_without_ram_are_reported_as_remote() {
    for (node, remote) in [(0, false), (1, false), (2, true), (63, true)] {
        let report = online(&format!("--align 1G --range 24G+2G --node {node}"));
        let said = notes(&report).iter().any(|note| note.contains("remote"));
        assert_eq!(said, remote, "node {node}: {report}");
    }
}

#[test]
fn an_altmap_holds_the_descriptors_and_falls_back_to_base_pages() {
    for backend in BACKENDS {
        let report = online(&format!("--backend {backend} --range 24G+1G --altmap 16M"));
        assert_eq!(report["frames"]["descriptors"], 4096);
        assert_eq!(report["frames"]["altmap"], 4096);
        assert_eq!(report["tails"], "none");
        assert!(notes(&report)[0].contains("altmap"), "{report}");
        let report = online(&format!(
            "--backend {backend} --range 24G+1G --align 4K --altmap 32M"
        ));
        assert_eq!(notes(&report), [""; 0]);
    }
    // The first range that was named, not the lowest, has it.
    online("--range 40G+128M --range 24G+128M --altmap 4M --align 4K");
    failing("--range 24G+1G --altmap 16M --align 4K --huge-leaves no --fail-after 5");
}

#[test]
fn a_policy_that_cannot_apply_is_noted_not_refused() {
    let report = online("--align 4K --tails per-compound --range 24G+1G");
    assert_eq!(report["tails"], "none");
    assert_eq!(notes(&report).len(), 1);
    let report = online("--align 1G --tails none --range 24G+1G --huge-leaves no");
    assert_eq!(report["frames"]["descriptors"], 4096);
    assert_eq!(report["frames"]["leaf_tables"], 8);
}

#[test]
fn text_shows_cost_and_audit_and_a_failure_what_is_left() {
    let ran = run("online --align 1G");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for part in [
        "x86_64: 24G+16G in pages of 1G",
        "40.5 KiB",
        "99.7528 %",
        "clean",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let ran = run("online --fail-after 3");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("error: out-of-frames: "));
    assert!(ran.stdout.contains("frames still out: 0, audit: clean"));
}
