//! Folding memory whose descriptors lie in an altmap.

use super::{failing, fold, notes};
use crate::geometry::{GIB, MIB};
use crate::program::run;
use serde_json::Value;

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
        // What is reserved, and what of that is base pages, in MiB.
        for (align, altmap, reserved_mib, base_mib) in [
            (2 * MIB, "64M", 64, 64),
            (2 * MIB, "auto", 64, 64),
            (GIB, "auto", 36, 1024),
            (256 * MIB, "64M", 64, 256),
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
            // A vmemmap page is for 256 KiB, a page of counts for 4 MiB less 64 KiB.
            let counts = reserved_mib / 4 + 1;
            assert_eq!(descriptors("base"), (0, 8192 + counts), "{line}");
            let folded = base_mib * 4 + own * pages + counts;
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
    let report = fold("--range 24G+1G --altmap 18M");
    assert_ne!(report["unfolded"], report["base"]);
    // Of seven leaves. The counts leave five frames of the first section to a block of their own,
    // which are tails, so that a fold frees it.
    // 9 subsections have 5 frames of counts.
    assert_eq!(report["unfolded"]["descriptors"], 4096 + 5);
    let noted = notes(&report)
        .iter()
        .any(|note| note.starts_with("unfold: 6 huge leaves"));
    assert!(noted, "{report}");
    let report = failing("--range 24G+1G --altmap 16M");
    assert_eq!(report["error"]["kind"], "altmap-exhausted");
    assert_eq!(report["failed_step"], "online");
    // RAM is needed for tables only.
    let report = failing("--range 24G+1G --altmap 32M --fail-after 4");
    assert_eq!(report["failed_step"], "fold", "{report}");
}
