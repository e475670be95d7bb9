//! What memory costs in base pages, folded and unfolded, by closed formulas; and how many flushes it takes.

use super::{fold, notes, totals};
use crate::geometry::{self, GIB, Geometry, Tables};
use serde_json::{Value, json};

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
            "descriptors": descriptors, "heads": 0, "leaf_tables": leaf_tables, "upper_tables": upper,
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
    for geometry in geometry::all() {
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
                        check_case(&geometry, &case);
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
    for geometry in geometry::all() {
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
                let fold = flushes_to_fold(&geometry, pages, leaves);
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
