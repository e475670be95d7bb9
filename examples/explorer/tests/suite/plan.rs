//! `plan` prints runs that come to what `online` takes.

use crate::program::run;
use hosted::BackendKind;
use serde_json::{Value, json};

fn plan(line: &str) -> Value {
    let ran = run(&format!("plan --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    ran.json()
}

#[test]
fn a_compound_page_is_a_head_frame_and_a_tail_frame() {
    let plan = plan("--range 24G+2M");
    assert_eq!(
        plan["runs"],
        json!([
            {
                "address": "0xffffea0018000000", "pages": 1, "first_frame": 0x60_0000,
                "frames": 64, "mapped_to": "own", "head": null,
            },
            {
                "address": "0xffffea0018001000", "pages": 7, "first_frame": 0x60_0040,
                "frames": 448, "mapped_to": "tail", "head": 0x60_0000,
            },
        ])
    );
    assert_eq!(plan["error"], Value::Null);
}

#[test]
fn totals_are_what_online_takes() {
    for backend in BackendKind::ALL {
        for align in ["base", "2M", "32M", "1G"] {
            for piece in ["subsection", "section", "range"] {
                for more in [
                    "",
                    "--altmap 64M",
                    "--altmap auto",
                    "--tails per-order --tables shared",
                    "--heads packed --tables shared",
                ] {
                    agree(&format!(
                        "--backend {} --align {align} --piece {piece} --range 30G+2G --range 24G+1G {more}",
                        backend.name()
                    ));
                }
            }
        }
    }
    agree("--align 2M --tails none --huge-leaves no --range 24G+130M");
    agree(
        "--backend aarch64-16k --align 32M --tails none --huge-leaves no --range 24G+8G --piece range",
    );
    for piece in ["section", "range"] {
        agree(&format!(
            "--backend aarch64-16k --align base --range 20G+20G --piece {piece}"
        ));
        agree(&format!(
            "--backend aarch64-64k --align 16G --range 16G+32G --tables shared --piece {piece}"
        ));
    }
}

/// A plan says what `online` then does and reports.
fn agree(line: &str) {
    let plan = plan(line);
    let online = run(&format!("online --format json {line}")).json();
    let totals = &plan["totals"];
    let frames = &online["frames"]["descriptors"];
    assert_eq!(totals["descriptor_frames"], *frames, "{line}");
    assert_eq!(totals["head_frames"], online["frames"]["heads"], "{line}");
    assert_eq!(totals["vmemmap_pages"], online["flat_frames"], "{line}");
    let runs = plan["runs"].as_array().unwrap();
    assert_eq!(totals["runs"], runs.len(), "{line}");
    for key in [
        "backend", "ranges", "align", "heads", "tails", "tables", "notes",
    ] {
        assert_eq!(plan[key], online[key], "{line}: {key}");
    }
}

#[test]
fn huge_leaves_are_those_of_the_backend() {
    for (backend, range, size) in [
        ("x86_64", "24G+128M", "2M"),
        ("aarch64-4k", "24G+128M", "2M"),
        ("aarch64-16k", "24G+8G", "32M"),
        ("aarch64-64k", "512G+512G", "512M"),
    ] {
        let line = format!("--backend {backend} --align base --range {range} --piece range");
        let text = run(&format!("plan {line}")).stdout;
        assert!(text.contains(&format!("1 huge leaf of {size}\n")), "{text}");
        assert_eq!(plan(&line)["totals"]["huge_leaves"], 1, "{line}");
    }
    let sections = plan("--backend aarch64-64k --align base --range 512G+512G");
    assert_eq!(sections["totals"]["huge_leaves"], 0);
    assert_eq!(sections["notes"].as_array().unwrap().len(), 1, "{sections}");
    // No range holds what a huge leaf describes, so the size of the pieces changes nothing.
    for piece in ["section", "range"] {
        let small = plan(&format!(
            "--backend aarch64-64k --align base --range 24G+16G --piece {piece}"
        ));
        assert_eq!(small["totals"]["huge_leaves"], 0, "{small}");
        assert_eq!(small["notes"], json!([]), "{small}");
    }
}

#[test]
fn text_has_a_line_for_each_run_up_to_the_limit() {
    let ran = run("plan --range 24G+8M");
    let lines = |text: &str| text.lines().filter(|line| line.starts_with("0x")).count();
    assert_eq!((ran.code, lines(&ran.stdout)), (0, 8));
    let ran = run("plan --range 24G+1T --align 1G --limit 5");
    assert_eq!((ran.code, lines(&ran.stdout)), (0, 5));
    assert!(
        ran.stdout.contains("... and 9,211 more runs"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("2,048 descriptor frames"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_request_that_is_refused_is_an_error_with_all_keys() {
    let ran = run("plan --format json --range 24G+1M");
    let object = ran.json();
    assert_eq!(ran.code, 1);
    assert_eq!(object["error"]["kind"], "misaligned");
    assert_eq!(
        (&object["runs"], &object["totals"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(object["counts"], Value::Null);
    assert_eq!(object.as_object().unwrap().len(), 13);
    let ran = run("plan --range 24G+1M");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn an_altmap_is_too_small_for_a_plan_where_it_is_for_online() {
    let lines = [
        "--align 2M",
        "--align 2M --tails per-order",
        "--align 2M --tails per-order --node 1 --piece subsection",
        "--align base --piece range",
        "--align base --huge-leaves no",
        "--align 64M --tables shared",
        "--align 256K",
        "--align 2M --range 40G+1G",
        "--backend aarch64-16k --align base",
        "--backend aarch64-16k --align 32M --tails none",
    ];
    let mut refused = 0;
    for line in lines {
        for mib in (2..=40).step_by(2) {
            let line = format!("--format json --range 24G+1G {line} --altmap {mib}M");
            let [plan, online] =
                ["plan", "online"].map(|command| run(&format!("{command} {line}")));
            assert_eq!(plan.code, online.code, "{line}");
            assert_eq!(plan.stderr, online.stderr, "{line}");
            let (plan, online) = (plan.json(), online.json());
            assert_eq!(plan["altmap_reserved_bytes"], mib << 20, "{line}");
            assert_eq!(online["altmap_reserved_bytes"], mib << 20, "{line}");
            assert_eq!(plan["error"], online["error"], "{line}");
            if plan["error"]["kind"] == "altmap-exhausted" {
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn what_an_altmap_reserves_and_uses_is_shown() {
    let line = "--range 24G+1G --align 2M --altmap auto";
    assert_eq!(plan(line)["altmap_reserved_bytes"], 6 << 20);
    let text = run(&format!("plan {line}")).stdout;
    let said =
        "altmap: 24G+6M is reserved; 1,044 of its 1,536 frames hold descriptors and counts\n";
    assert!(text.contains(said), "{text}");
    assert_eq!(plan("--range 24G+1G")["altmap_reserved_bytes"], Value::Null);
    let text = run("plan --range 24G+1G").stdout;
    assert!(!text.contains("altmap"), "{text}");
}

#[test]
fn one_of_a_thing_is_counted_in_the_singular() {
    let text = run("plan --range 24G+2M --limit 1").stdout;
    assert!(text.contains("... and 1 more run\n"), "{text}");
    let text = run("plan --range 24G+2M --tails none").stdout;
    assert!(text.contains("total: 1 run, 8 vmemmap pages,"), "{text}");
    let line = "--range 24G+1G --align 256K";
    let notes = plan(line)["notes"].to_string();
    assert!(
        notes.contains("compound page of 256K fill 1 vmemmap page,"),
        "{notes}"
    );
}

#[test]
fn a_plan_fits_a_screen_of_80_columns() {
    for line in [
        "--range 24G+2G --align 1G",
        "--range 24G+2G --align 1G --tails per-order --tables shared --piece range",
        "--range 24G+16M --align 2M --altmap auto",
        "--range 15T+2T --align 1G --limit 20",
        "--range 63T+1T --align 1G --limit 20",
        "--range 24G+1G --align base --huge-leaves no",
        "--range 16T+1T --align base --limit 20",
    ] {
        let ran = run(&format!("plan {line}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        let wide = ran.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{line}");
    }
}
