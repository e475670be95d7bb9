//! `online` prints what issue and documentation say that memory costs.

use crate::program::{online, run};
use explorer::size::ByteSize;
use hosted::BackendKind;
use mm_core::addr::Granule;
use serde_json::{Value, json};

/// The backends with 4 KiB pages.
fn backends() -> impl Iterator<Item = &'static str> {
    let all = BackendKind::ALL.into_iter();
    let small = all.filter(|kind| kind.model().granule() == Granule::Size4K);
    small.map(BackendKind::name)
}
const PIECES: [&str; 3] = ["subsection", "section", "range"];

const KEYS: [&str; 20] = [
    "backend",
    "ranges",
    "align",
    "heads",
    "tails",
    "tables",
    "altmap_reserved_bytes",
    "frames",
    "flat_frames",
    "saved_percent",
    "reused_entries",
    "counts",
    "stats",
    "notes",
    "audit",
    "online_ns",
    "offline_ns",
    "after_offline",
    "error",
    "after_error",
];

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
            for backend in ["x86_64", "x86_64-la57", "aarch64-4k"] {
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
            for backend in backends() {
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
                    "riscv64-sv39" => 1,
                    "x86_64-la57" | "riscv64-sv57" => 3,
                    _ => 2,
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
        assert_eq!((nested("frames"), nested("after_offline")), (6, 1));
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
    for backend in ["aarch64-4k", "aarch64-16k", "aarch64-64k"] {
        for range in ["0+1G", "262143G+1G"] {
            for align in ["base", "1G"] {
                online(&format!(
                    "--backend {backend} --align {align} --range {range}"
                ));
            }
        }
    }
}

#[test]
fn any_number_of_allocations_that_succeed_leaves_nothing_behind_when_the_next_fails() {
    for backend in backends() {
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
        ("--backend aarch64-16k --range 24G+2M", "misaligned"),
        (
            "--backend aarch64-64k --align base --range 24G+32M",
            "misaligned",
        ),
        ("--backend aarch64-64k --range 262144G+1G", "out-of-range"),
        ("--altmap 0", "empty"),
        ("--altmap 5", "misaligned"),
        ("--range 24G+2M --altmap 4M", "out-of-range"),
        ("--range 24G+1G --altmap 2M", "altmap-exhausted"),
        ("--range 0+64T --align 4K", "too-large"),
        ("--range 0+64T --backend sim --align 1G", "too-large"),
        ("--backend x86_64-la57 --range 0+4P --align 1G", "too-large"),
        (
            "--backend x86_64-la57 --range 0+4P --align 4K --altmap 4P",
            "too-large",
        ),
        ("--range 24G+2G --align 1G --altmap 2G", "no-compound-page"),
        (
            "--range 24G+1G --align 1G --altmap auto",
            "no-compound-page",
        ),
        ("--range 24G+1G --altmap 4K", "misaligned"),
        (
            "--range 24G+2M --range 32G+16G --align 4K --altmap auto",
            "out-of-range",
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
fn each_node_that_has_something_has_a_row() {
    let cases = [
        // RAM of one node, of the nearest, and an altmap elsewhere. Node, descriptors, of these
        // tails and of the altmap, tables.
        ("--node 0", vec![[0, 1024, 512, 0, 10]]),
        ("--node 63", vec![[1, 1024, 512, 0, 10]]),
        ("--node 1 --tails per-order", vec![[1, 513, 1, 0, 10]]),
        (
            "--node 14 --altmap 64M --tails per-order",
            vec![
                [1, 1, 1, 0, 10],
                [14, 256 + 480 + counts(32), 0, 256 + 480 + counts(32), 0],
            ],
        ),
        // There may be any number of nodes.
        (
            "--node 40 --altmap 64M",
            vec![
                [1, 0, 0, 0, 10],
                [40, 256 + 960 + counts(32), 480, 256 + 960 + counts(32), 0],
            ],
        ),
    ];
    let keys = [
        "node",
        "descriptor_frames",
        "tail_frames",
        "altmap_frames",
        "table_frames",
    ];
    for (line, expected) in cases {
        let line = format!("--range 24G+1G {line}");
        let report = online(&line);
        let rows = report["stats"].as_array().unwrap().iter();
        let found: Vec<[u64; 5]> = rows
            .map(|row| keys.map(|key| row[key].as_u64().unwrap()))
            .collect();
        assert_eq!(found, expected, "{line}");
        let several = expected.len() > 1;
        let text = run(&format!("online {line}")).stdout;
        assert_eq!(text.contains("node ┆"), several, "{text}");
        let wanted = run(&format!("online {line} --stats")).stdout;
        assert!(wanted.contains("node ┆"), "{wanted}");
    }
}

/// How many frames of 4K hold the counts of an altmap of so many subsections of 2M: 64 bytes, and 4
/// for each frame.
const fn counts(subsections: u64) -> u64 {
    (64 + 4 * 512 * subsections).div_ceil(4096)
}

#[test]
fn an_altmap_holds_the_descriptors_of_compound_pages_and_ram_only_tables() {
    // What the altmap holds, and what of the per-order policy is in RAM.
    let cases = [
        ("2M", "per-compound", 16582 + counts(33), 0),
        ("2M", "per-order", 8311 + counts(17), 1),
        ("1G", "per-compound", 4096 + 30 + counts(9), 0),
        ("1G", "per-order", 4096 + 15 + counts(9), 1),
        ("4K", "none", 65536 + counts(129), 0),
    ];
    for (align, tails, in_altmap, in_ram) in cases {
        for piece in PIECES {
            for backend in backends() {
                let report = online(&format!(
                    "--backend {backend} --align {align} --tails {tails} --piece {piece} --altmap auto"
                ));
                let context = format!("{align} {tails} {piece} {backend}");
                let frames = &report["frames"];
                assert_eq!(report["tails"], tails, "{context}");
                assert_eq!(frames["altmap"], in_altmap, "{context}");
                assert_eq!(frames["descriptors"], in_altmap + in_ram, "{context}");
                let gap = notes(&report).iter().any(|note| note.contains("altmap"));
                assert_eq!(gap, align == "1G", "{context}");
            }
        }
    }
    // The first range that was named, not the lowest, has it.
    online("--range 40G+128M --range 24G+128M --altmap 6M --align 4K");
    failing("--range 24G+1G --altmap 18M --align 4K --huge-leaves no --fail-after 5");
    failing("--range 24G+1G --altmap auto --fail-after 5");
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

#[test]
fn aarch64_with_4k_pages_costs_what_x86_64_does() {
    for line in [
        "",
        "--align base --range 24G+1G",
        "--align base --range 24G+1G --huge-leaves no --tails per-order",
        "--align 1G --tails per-order --tables shared",
        "--align 2M --tables shared --range 1G+126M --piece subsection",
        "--align 64K --range 1G+126M",
        "--align 16G --tables shared",
    ] {
        let [x86, arm] = ["x86_64", "aarch64-4k"].map(|backend| {
            let mut report = online(&format!("{line} --backend {backend}"));
            let report = report.as_object_mut().unwrap();
            for other in ["backend", "online_ns", "offline_ns"] {
                report.remove(other).unwrap();
            }
            report.clone()
        });
        assert_eq!(x86, arm, "{line}");
    }
}

/// Vmemmap pages, leaf tables and tables above them for `bytes` bytes at `start` in pages of
/// `page`, all mapped by leaves of base pages on AArch64.
fn flat_costs(page: u64, start: u64, bytes: u64) -> [u64; 3] {
    let offset = |at: u64| at / page * 64;
    let touched = |span: u32| {
        let last = offset(start + bytes) - 1;
        (last >> span) - (offset(start) >> span) + 1
    };
    let index_bits = page.ilog2() - 3;
    let spans = (1..).map(|level| page.ilog2() + level * index_bits);
    let tables: Vec<u64> = spans.take_while(|span| *span < 48).map(touched).collect();
    [offset(bytes) / page, tables[0], tables[1..].iter().sum()]
}

const GIB: u64 = 1 << 30;

#[test]
fn larger_pages_cost_what_their_size_says_for_every_policy_and_piece() {
    // Start and size of the memory in GiB.
    let cases = [
        ("aarch64-16k", 16 << 10, "base", 24, 1),
        ("aarch64-16k", 16 << 10, "16M", 24, 1),
        ("aarch64-16k", 16 << 10, "32M", 31, 2),
        ("aarch64-16k", 16 << 10, "1G", 29, 7),
        ("aarch64-64k", 64 << 10, "base", 24, 4),
        ("aarch64-64k", 64 << 10, "256M", 24, 1),
        ("aarch64-64k", 64 << 10, "512M", 511, 2),
        ("aarch64-64k", 64 << 10, "16G", 496, 32),
    ];
    for (backend, page, align, start, gib) in cases {
        let [flat, leaf_tables, upper_tables] = flat_costs(page, start * GIB, gib * GIB);
        for tails in ["none", "per-compound", "per-order"] {
            for piece in PIECES {
                let context = format!(
                    "--backend {backend} --align {align} --tails {tails} --piece {piece} --range {start}G+{gib}G"
                );
                let report = online(&context);
                let bytes: u64 = match align {
                    "base" => page,
                    align => align.parse::<ByteSize>().unwrap().0,
                };
                let pages = gib * GIB / bytes;
                let descriptors = match (align, tails) {
                    ("base", _) | (_, "none") => flat,
                    (_, "per-compound") => 2 * pages,
                    _ => pages + 1,
                };
                let total = descriptors + leaf_tables + upper_tables;
                let frames = json!({
                    "descriptors": descriptors, "heads": 0, "leaf_tables": leaf_tables, "upper_tables": upper_tables,
                    "altmap": 0, "total": total,
                });
                assert_eq!(report["frames"], frames, "{context}");
                assert_eq!(report["flat_frames"], flat, "{context}");
                assert_eq!(report["reused_entries"], flat - descriptors, "{context}");
                let saved = 100.0 * (1.0 - total as f64 / flat as f64);
                let printed = report["saved_percent"].as_f64().unwrap();
                assert!((saved - printed).abs() < 1e-4, "{context}: {printed}");
                let (used, noted) = match (align, tails) {
                    ("base", "none") => ("none", 0),
                    ("base", _) => ("none", 1),
                    _ => (tails, 0),
                };
                assert_eq!(report["tails"], used, "{context}");
                assert_eq!(notes(&report).len(), noted, "{context}");
            }
        }
    }
}

#[test]
fn huge_leaves_of_16k_pages_need_the_range_in_one_go() {
    let line = "--backend aarch64-16k --align base --range 24G+8G";
    let whole = online(&format!("{line} --piece range"));
    assert_eq!(whole["frames"]["leaf_tables"], 0);
    assert_eq!(notes(&whole), [""; 0]);
    let sections = online(line);
    assert_eq!(sections["frames"]["leaf_tables"], 1);
    assert!(notes(&sections)[0].contains("pieces"), "{sections}");
}

#[test]
fn each_backend_has_a_page_size_and_a_range_of_its_own_if_nothing_is_said() {
    for (backend, base, natural, large) in [
        ("sim", "4K", "2M", "1G"),
        ("x86_64", "4K", "2M", "1G"),
        ("x86_64-la57", "4K", "2M", "1G"),
        ("aarch64-4k", "4K", "2M", "1G"),
        ("aarch64-16k", "16K", "32M", "1G"),
        ("aarch64-64k", "64K", "512M", "16G"),
    ] {
        let report = online(&format!("--backend {backend}"));
        assert_eq!(
            (&report["align"], &report["tails"]),
            (&json!(natural), &json!("per-compound"))
        );
        let report = online(&format!("--backend {backend} --align {large}"));
        assert_eq!(
            (&report["align"], &report["tails"]),
            (&json!(large), &json!("per-compound"))
        );
        // Base pages are named by their size, however they were asked for.
        for align in ["base", base] {
            let line = format!("--backend {backend} --align {align} --range 24G+1G");
            let report = online(&line);
            assert_eq!(
                (&report["align"], &report["tails"]),
                (&json!(base), &json!("none"))
            );
            assert_eq!(report["flat_frames"], report["frames"]["descriptors"]);
        }
    }
    // The first whole page from 24 GiB on, where a page is larger than 16 GiB.
    let report = online("--align 64G");
    let start = json!([{"start": 64 * GIB, "size": 64 * GIB}]);
    assert_eq!(report["ranges"], start);
    assert_eq!(report["frames"]["descriptors"], 2);
}

#[test]
fn pages_with_too_few_descriptors_are_populated_as_base_pages_and_noted() {
    for (backend, align) in [
        ("x86_64", "64K"),
        ("x86_64", "512K"),
        ("aarch64-16k", "8M"),
        ("aarch64-64k", "128M"),
    ] {
        let report = online(&format!(
            "--backend {backend} --align {align} --range 24G+1G --huge-leaves no"
        ));
        assert_eq!(report["tails"], "none");
        assert_eq!(report["frames"]["descriptors"], report["flat_frames"]);
        assert!(notes(&report)[0].contains("too few"), "{report}");
    }
}

#[test]
fn text_counts_frames_of_the_granule() {
    let ran = run("online --backend aarch64-64k --range 24G+16G");
    for part in [
        "aarch64-64k: 24G+16G in pages of 512M",
        "│ descriptors  ┆     64 ┆  4.0 MiB ┆ 256.0 KiB │",
        "│ flat array   ┆    256 ┆ 16.0 MiB ┆   1.0 MiB │",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}
