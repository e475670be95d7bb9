//! `reorder` changes the size of pages there and back, and prints what each state costs.

use crate::program::run;
use serde_json::{Value, json};

const KEYS: [&str; 20] = [
    "backend",
    "ranges",
    "from",
    "to",
    "part",
    "heads",
    "tails",
    "tables",
    "frames_before",
    "frames_after",
    "frames_back",
    "reserve",
    "flushes",
    "allocator_calls",
    "notes",
    "audit",
    "there_ns",
    "back_ns",
    "frames_left",
    "error",
];

/// What a change of orders that is done prints.
fn reorder(line: &str) -> Value {
    let ran = run(&format!("reorder --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let report = ran.json();
    assert_eq!(report["audit"], "clean", "{line}");
    assert_eq!(report["frames_left"], 0, "{line}");
    assert_eq!(report["allocator_calls"], 0, "{line}");
    assert_eq!(report["error"], Value::Null, "{line}");
    assert_eq!(report["frames_back"], report["frames_before"], "{line}");
    report
}

fn frames(report: &Value) -> [u64; 2] {
    ["frames_before", "frames_after"].map(|key| report[key].as_u64().unwrap())
}

/// A page of 1 GiB: a head, a tail frame, a private leaf table and a shared one, and those above. Pages
/// of 2 MiB: 512 heads, a tail frame and eight leaf tables.
#[test]
fn a_gib_costs_what_the_design_says_there_and_back() {
    for (backend, above) in [("x86_64", 2), ("aarch64-4k", 2), ("x86_64-la57", 3)] {
        let shared = "--range 24G+1G --from 1G --to 2M --tails per-order --tables shared";
        let report = reorder(&format!("--backend {backend} {shared}"));
        assert_eq!(frames(&report), [4 + above, 521 + above], "{backend}");
        assert_eq!(report["flushes"], 2, "{backend}");
        // 511 heads and a tail frame more, and eight tables.
        assert_eq!(
            report["reserve"],
            json!({"needed": 520, "used": 517}),
            "{backend}"
        );
    }
}

#[test]
fn keys_are_always_the_same_and_in_order() {
    for line in [
        "--range 24G+1G",
        "--range 24G+1G --part 24G+2M",
        "--range 24G+1G --part 24G+1M",
        "--range 24G+1M",
    ] {
        let ran = run(&format!("reorder --format json {line}"));
        let report = ran.json();
        let mut keys: Vec<&str> = KEYS.to_vec();
        let place = |key: &&str| ran.stdout.find(&format!("\"{key}\""));
        assert!(keys.is_sorted_by_key(place), "{line}: {}", ran.stdout);
        keys.sort_unstable();
        let found: Vec<&String> = report.as_object().unwrap().keys().collect();
        assert_eq!(found, keys, "{line}");
    }
}

/// One page of 2 MiB, and the largest that fit: 2M, 4M, ... 512M. Eleven pages have a head, those from
/// 1M on a tail frame of their order; the span of 128 MiB that is divided, and the first of each larger
/// page, have a leaf table.
#[test]
fn the_rest_of_a_page_becomes_the_largest_that_fit() {
    let line = "--range 24G+1G --from 1G --to 2M --tails per-order --tables shared --part 24G+2M";
    let report = reorder(line);
    // Heads and tail frames; tables: one that is divided, 128M, 256M and 512M with a private one each,
    // of which 256M and 512M share one each for the rest; and those above.
    let (heads, tails, tables, above) = (10, 9, 4 + 2, 2);
    assert_eq!(frames(&report)[1], heads + tails + tables + above);
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_left() {
    for (line, kind) in [
        ("--range 24G+1G --part 24G+1M", "misaligned"),
        ("--range 24G+1G --part 40G+2M", "out-of-range"),
        ("--range 24G+1M", "misaligned"),
        ("--range 24G+1G --fail-after 20", "out-of-frames"),
    ] {
        let ran = run(&format!("reorder --format json {line}"));
        assert_eq!(ran.code, 1, "{line}");
        let report = ran.json();
        assert_eq!(report["error"]["kind"], kind, "{line}: {report}");
        if report["frames_left"] != Value::Null {
            assert_eq!(report["frames_left"], 0, "{line}");
        }
    }
    let ran = run("reorder --to 3M");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--to <base|SIZE>"), "{}", ran.stderr);
}

#[test]
fn people_read_the_same_figures() {
    let ran = run("reorder --range 24G+1G --tails per-order --tables shared");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for text in [
        "from pages of 1G to pages of 2M",
        "523",
        "520 frames needed",
        "clean",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
}
