//! `plan` prints runs that come to what `online` takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod program;

use program::run;
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
    for backend in ["sim", "x86_64", "x86_64-la57"] {
        for align in ["4K", "2M", "1G"] {
            for piece in ["subsection", "section", "range"] {
                for more in ["", "--altmap 64M"] {
                    let line = format!(
                        "--backend {backend} --align {align} --piece {piece} --range 30G+1G --range 24G+2G {more}"
                    );
                    let plan = plan(&line);
                    let online = run(&format!("online --format json {line}")).json();
                    let totals = &plan["totals"];
                    let frames = &online["frames"]["descriptors"];
                    assert_eq!(totals["descriptor_frames"], *frames, "{line}");
                    assert_eq!(totals["vmemmap_pages"], online["flat_frames"], "{line}");
                    let runs = plan["runs"].as_array().unwrap();
                    assert_eq!(totals["runs"], runs.len(), "{line}");
                    assert_eq!(plan["tails"], online["tails"], "{line}");
                }
            }
        }
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
    assert_eq!(object.as_object().unwrap().len(), 10);
    let ran = run("plan --range 24G+1M");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(ran.stderr.lines().count(), 1);
}
