//! `lazy` brings RAM online in large pages, and makes them base pages where frames are handed out.

use crate::program::run;
use hosted::BackendKind;
use serde_json::{Value, json};

const KEYS: [&str; 10] = [
    "backend",
    "ram",
    "page",
    "block",
    "used",
    "eager",
    "lazy",
    "audit",
    "frames_left",
    "error",
];

/// What is printed where all is done.
fn lazy(line: &str) -> Value {
    let ran = run(&format!("lazy --format json {line}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let report = ran.json();
    assert_eq!(report["audit"], "clean", "{line}");
    assert_eq!(report["frames_left"], 0, "{line}");
    assert_eq!(report["lazy"]["allocator_calls"], 0, "{line}");
    let place = |key: &&str| ran.stdout.find(&format!("\"{key}\""));
    assert!(KEYS.is_sorted_by_key(place), "{line}: {}", ran.stdout);
    report
}

/// Of two pages of 1 GiB each has a head and a leaf table of its own, and both share a tail frame and a
/// table. A block of 2 MiB in base pages has eight frames; the rest of its page are nine pages, of 2M to
/// 512M, with a head and a tail frame each, and six tables. All of a page in base pages takes 4096 frames
/// and eight tables.
#[test]
fn ram_costs_what_is_used_of_it() {
    for (backend, above) in [("x86_64", 2), ("aarch64-4k", 2), ("x86_64-la57", 3)] {
        let report = lazy(&format!("--backend {backend} --ram 2G --used 1G"));
        let (page, shared) = (2, 2);
        let divided = 8 + 9 * 2 + 6;
        assert_eq!(report["eager"]["frames"], 2 * 4096 + above, "{backend}");
        let figures = ["frames_online", "frames_first", "frames_used", "changes"];
        let figures = figures.map(|key| report["lazy"][key].clone());
        let expected = [
            2 * page + shared + above,
            divided + page + shared + above,
            4096 + 8 + page + shared + above,
            512,
        ];
        assert_eq!(figures, expected.map(|figure| json!(figure)), "{backend}");
    }
}

/// Each frame that is handed out after the first one of its block finds base pages.
#[test]
fn every_backend_changes_a_block_once() {
    for backend in BackendKind::ALL {
        let large = if backend.name() == "aarch64-64k" {
            "16G"
        } else {
            "1G"
        };
        let line = format!("--backend {} --ram {large} --used 1", backend.name());
        let report = lazy(&line);
        assert_eq!(report["page"], large, "{line}");
        assert_eq!(report["lazy"]["changes"], 1, "{line}");
        let same = report["lazy"]["frames_first"] == report["lazy"]["frames_used"];
        assert!(same, "{report}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    for (line, kind) in [
        ("--ram 3000M", "misaligned"),
        ("--ram 1G --used 2G", "out-of-range"),
        ("--ram 1G --used 0", "out-of-range"),
        ("--ram 64T", "too-large"),
    ] {
        let ran = run(&format!("lazy --format json {line}"));
        assert_eq!(ran.code, 1, "{line}");
        assert_eq!(ran.json()["error"]["kind"], kind, "{line}");
    }
}

#[test]
fn people_read_the_same_figures() {
    let ran = run("lazy --ram 1G --used 2M");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for text in ["in pages of 1G", "4,098", "2M used", "1 flushes", "clean"] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
}
