//! Packed heads: what they cost by closed formulas, on every backend, and what is refused.

use crate::geometry::{self, Geometry};
use crate::program::{online, run};
use serde_json::{Value, json};

/// Brings whole leaf tables of pages online, behind what is not online, and compares.
fn check(geometry: &Geometry, align: u64, tables: &str, piece: &str) {
    let [_, large] = geometry.natural;
    let bytes = (4 * large).max(geometry.leaf_table_describes());
    let start = 2 * bytes;
    let line = format!(
        "--backend {} --range {start}+{bytes} --align {align} --heads packed --tables {tables} --piece {piece}",
        geometry.backend
    );
    let report = online(&line);
    let (is_asked, can_be) = (tables == "shared", geometry.has_tables);
    let used = if is_asked && can_be {
        "shared"
    } else {
        "private"
    };
    assert_eq!(report["tables"], used, "{line}");
    let costs = geometry.packed(start, bytes, align, is_asked && can_be);
    let frames = &report["frames"];
    // One frame of stubs.
    assert_eq!(frames["descriptors"], costs.heads + 1, "{line}");
    assert_eq!(frames["heads"], costs.heads, "{line}");
    assert_eq!(frames["leaf_tables"], costs.leaf_tables, "{line}");
    assert_eq!(frames["upper_tables"], costs.upper_tables, "{line}");
    assert_eq!(report["heads"], "packed", "{line}");
    assert_eq!(report["tails"], "per-order", "{line}");
    let notes = report["notes"].as_array().unwrap().len();
    assert_eq!(notes, usize::from(is_asked && !can_be), "{line}");
    // The flat array has no heads beside it.
    let flat = geometry.vmemmap_pages(bytes);
    assert_eq!(report["flat_frames"], flat, "{line}");
    assert_eq!(report["reused_entries"], flat - 1, "{line}");
}

#[test]
fn pages_with_packed_heads_cost_what_their_geometry_says_on_every_backend() {
    for geometry in geometry::all() {
        for align in geometry.natural {
            for tables in ["private", "shared"] {
                for piece in ["subsection", "section", "range"] {
                    check(&geometry, align, tables, piece);
                }
            }
        }
    }
}

/// What is promised: 8300 frames for 2 MiB pages and 40 for 1 GiB pages at most, with four levels. The vmemmap of 1 TiB
/// has 16 tables above its leaf tables, and heads have a slot of the root to themselves.
#[test]
fn one_tib_costs_32_mib_in_small_pages_and_152_kib_in_large_ones() {
    for (align, heads, leaf_tables, promised) in [("2M", 8192, 16 + 1, 8300), ("1G", 16, 1 + 1, 40)]
    {
        for (backend, levels) in [
            ("x86_64", 4),
            ("aarch64-4k", 4),
            ("riscv64-sv48", 4),
            ("x86_64-la57", 5),
            ("riscv64-sv57", 5),
        ] {
            let line = format!(
                "--backend {backend} --range 1T+1T --align {align} --heads packed --tables shared --piece range"
            );
            let report = online(&line);
            let frames = &report["frames"];
            let upper = 16 + (levels - 3) + (levels - 2);
            let total = heads + 1 + leaf_tables + upper;
            assert_eq!(frames["heads"], heads, "{line}");
            assert_eq!(frames["leaf_tables"], leaf_tables, "{line}");
            assert_eq!(frames["upper_tables"], upper, "{line}");
            assert_eq!(frames["total"], total, "{line}");
            assert!(levels > 4 || total <= promised, "{line}: {total}");
        }
    }
}

/// Two ranges whose heads meet in one page.
#[test]
fn neighbours_share_a_page_of_heads_in_the_plan_as_online() {
    for lines in ["--range 24G+2M --range 25G+2M", "--range 24G+2M"] {
        // 24 GiB and 25 GiB are 512 places apart, which is 8 pages of 64.
        let pages = lines.matches("--range").count();
        let line = format!("--format json {lines} --align 2M --heads packed");
        let plan = run(&format!("plan {line}")).json();
        assert_eq!(plan["totals"]["head_frames"], pages, "{line}");
    }
    let line = "--format json --range 24G+2M --range 24580M+2M --align 2M --heads packed";
    let plan = run(&format!("plan {line}")).json();
    let online = run(&format!("online {line}")).json();
    assert_eq!(plan["totals"]["head_frames"], 1);
    assert_eq!(online["frames"]["heads"], 1);
    assert_eq!(
        plan["totals"]["descriptor_frames"],
        online["frames"]["descriptors"]
    );
}

#[test]
fn people_read_how_many_frames_hold_heads() {
    let line = "--range 24G+1G --align 2M --heads packed";
    let online = run(&format!("online {line}")).stdout;
    assert!(online.contains("heads: packed, tails: per-order, tables: private\n"));
    let row = online.lines().find(|line| line.contains("packed heads"));
    assert!(row.is_some_and(|row| row.contains(" 8 ")), "{online}");
    let plan = run(&format!("plan {line}")).stdout;
    assert!(
        plan.contains("heads: 8 descriptor frames of these, packed\n"),
        "{plan}"
    );
    assert!(plan.contains("frame of stubs of all\n"), "{plan}");
    // Where they are in place there is nothing to say of them.
    for command in ["online", "plan"] {
        let text = run(&format!("{command} --range 24G+1G --heads in-place")).stdout;
        assert!(!text.contains("heads"), "{text}");
    }
}

#[test]
fn what_has_no_heads_to_pack_has_them_in_place_and_a_note_says_why() {
    for (align, why) in [
        ("base", "base pages have no heads to pack"),
        ("64K", "a compound page of 64K do not fill a vmemmap page"),
    ] {
        for command in ["online", "plan"] {
            let line =
                format!("{command} --format json --range 24G+1G --align {align} --heads packed");
            let report = run(&line).json();
            assert_eq!(report["heads"], "in-place", "{line}");
            let notes = report["notes"].to_string();
            assert!(notes.contains(why), "{line}: {notes}");
        }
    }
}

/// Folding is a change of order: it costs what coming online so costs, and unfolding brings back what there was.
#[test]
fn base_pages_fold_into_pages_with_packed_heads_and_back() {
    for region in [
        "--range 24G+1G",
        "--range 24G+1G --range 40G+512M --align 4M --tables shared",
        "--range 24G+2G --align 1G --tables private --huge-leaves no",
        "--range 24G+1G --backend aarch64-4k --node 1",
        "--range 24G+1G --backend riscv64-sv39 --align 32M",
        "--range 24G+1G --backend sim",
    ] {
        let line = format!("fold {region} --heads packed --format json");
        let ran = run(&line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        let report = ran.json();
        assert_eq!(report["heads"], "packed", "{line}");
        assert_eq!(report["audit"], "clean", "{line}: {report}");
        assert_eq!(report["frames_unfolded"], report["frames_base"], "{line}");
        assert_eq!(report["after_offline"]["frames"], 0, "{line}");
        let online = online(&format!("{region} --heads packed --piece range"));
        assert_eq!(report["frames_folded"], online["frames"]["total"], "{line}");
    }
}

/// What the library refuses is said in its own words, in one line, and nothing is left.
#[test]
fn what_is_refused_of_packed_heads_is_said_in_one_line() {
    let line = "fold --range 24G+1G --altmap auto";
    let ran = run(&format!("{line} --heads packed --format json"));
    assert_eq!(ran.code, 1, "{line}");
    assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
    let why = "leave out --altmap, or take --heads in-place";
    assert!(ran.stderr.contains(why), "{line}: {}", ran.stderr);
    let report = ran.json();
    assert_eq!(report["error"]["kind"], "unsupported", "{line}");
    let left = match &report["frames_left"] {
        Value::Null => &report["after_error"]["frames"],
        left => left,
    };
    assert!(left.is_null() || *left == 0, "{line}: {report}");
    let audit = [&report["audit"], &report["after_error"]["audit"]];
    let found = audit.into_iter().find(|found| !found.is_null());
    assert!(found.is_none_or(|found| *found == "clean"), "{line}");
}

/// 16896 pages of 2 MiB from a multiple of 64 on: 264 pages of heads. The reserved part takes the first of them, so 263
/// have no others and are in the altmap, with the 8 frames of base pages and one of counts.
#[test]
fn packed_heads_lie_in_the_altmap_where_their_page_has_no_others() {
    let line = "--range 24G+33G --align 2M --altmap auto --heads packed";
    let report = online(line);
    assert_eq!(report["altmap_reserved_bytes"], 2 << 20);
    assert_eq!(report["frames"]["heads"], 264);
    assert_eq!(report["frames"]["altmap"], 8 + 263 + 1);
    // One page of heads and one of stubs in RAM.
    assert_eq!(report["frames"]["descriptors"], 8 + 263 + 1 + 2);
    let plan = run(&format!("plan {line}"));
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let says = "272 of its 512 frames hold descriptors and counts";
    assert!(plan.stdout.contains(says), "{}", plan.stdout);
}

#[test]
fn packed_pages_change_their_order_there_and_back() {
    for line in [
        "reorder --range 24G+1G",
        "reorder --range 24G+1G --to base",
        "reorder --range 24G+1G --from base --to 2M",
        "reorder --range 24G+1G --to 4M --part 24G+512M",
        "reorder --range 24G+1G --tails per-compound --tables shared",
    ] {
        for heads in ["packed", "in-place"] {
            let ran = run(&format!("{line} --heads {heads} --format json"));
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
            let report = ran.json();
            assert_eq!(report["audit"], "clean", "{line}: {report}");
            assert_eq!(report["allocator_calls"], 0, "{line}");
            assert_eq!(report["frames_back"], report["frames_before"], "{line}");
            assert_eq!(report["frames_left"], 0, "{line}");
        }
    }
}

#[test]
fn heads_in_place_are_what_there_is_if_nothing_is_said() {
    let [said, unsaid] = ["--heads in-place", ""].map(|heads| {
        let mut report = online(&format!("--range 24G+1G --align 2M {heads}"));
        let times = ["online_ns", "offline_ns"];
        let object = report.as_object_mut().unwrap();
        object.retain(|key, _| !times.contains(&key.as_str()));
        report
    });
    assert_eq!(said, unsaid);
    assert_eq!(said["frames"]["heads"], 0);
    assert_eq!(said["heads"], json!("in-place"));
}
