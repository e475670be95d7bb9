//! Every combination of policies on every backend costs what closed formulas say.

use crate::geometry::{self, Geometry};
use crate::program::online;

/// Runs `online` in pages of `align` on the backend of `geometry` and compares with formulas.
fn check_combination(geometry: &Geometry, align: u64, policies: [&str; 4], altmap: bool) {
    let [tails, huge_leaves, tables, piece] = policies;
    // The largest page twice, behind one that is not online.
    let [_, large] = geometry.natural;
    let (start, bytes) = (3 * large, 2 * large);
    let node = if altmap { 3 } else { 1 };
    let mut line = format!(
        "--backend {} --range {start}+{bytes} --align {align} --tails {tails} --huge-leaves {huge_leaves} --tables {tables} --piece {piece} --node {node}",
        geometry.backend
    );
    if altmap {
        line.push_str(" --altmap auto");
    }
    let report = online(&line);
    let [reserved, base] = match altmap {
        true => geometry.smallest_altmap(tails, align, bytes),
        false => [0, 0],
    };
    let counts = match altmap {
        true => geometry.altmap_counts(reserved),
        false => 0,
    };
    let base_frames = geometry.vmemmap_pages(base);
    let pages = (bytes - base) / align;
    let [own, of_all] = geometry.compound_frames(tails, align, pages);
    let frames = &report["frames"];
    let descriptors = base_frames + own + of_all + counts;
    assert_eq!(frames["descriptors"], descriptors, "{line}");
    let in_altmap = if altmap {
        base_frames + own + counts
    } else {
        0
    };
    assert_eq!(frames["altmap"], in_altmap, "{line}");
    let found = geometry.tables(start, bytes);
    let upper = if geometry.has_tables { found.upper } else { 0 };
    assert_eq!(frames["upper_tables"], upper, "{line}");
    let leaf_tables = frames["leaf_tables"].as_u64().unwrap();
    if tails == "none" {
        // An altmap has no block for some of the leaves.
        let huge = huge_leaves == "yes" && geometry.huge_leaf_fits(piece);
        let least = if huge {
            found.leaf - found.whole
        } else {
            found.leaf
        };
        let most = if altmap { found.leaf } else { least };
        let [least, most] =
            [least, most].map(|tables| if geometry.has_tables { tables } else { 0 });
        assert!(
            (least..=most).contains(&leaf_tables),
            "{line}: {leaf_tables}"
        );
    } else {
        let private = found.leaf - base_frames / geometry.entries();
        let of_compound = geometry.compound_tables(tails, tables, align, pages, private);
        let leaf = base_frames / geometry.entries() + of_compound;
        let leaf = if geometry.has_tables { leaf } else { 0 };
        assert_eq!(leaf_tables, leaf, "{line}");
    }
}

#[test]
fn every_combination_of_policies_costs_what_its_geometry_says() {
    for geometry in geometry::all() {
        let [small, large] = geometry.natural;
        for align in [geometry.page, small, large] {
            let tails = [
                ("none", "yes"),
                ("none", "no"),
                ("per-compound", "yes"),
                ("per-order", "yes"),
            ];
            let tails = tails
                .iter()
                .filter(|(tails, _)| align > geometry.page || *tails == "none");
            for (tails, huge_leaves) in tails {
                for tables in ["private", "shared"] {
                    for piece in ["subsection", "section", "range"] {
                        for altmap in [false, true] {
                            let policies = [*tails, *huge_leaves, tables, piece];
                            check_combination(&geometry, align, policies, altmap);
                        }
                    }
                }
            }
        }
    }
}
