//! What the host does not have is not asked of it.

use crate::program::{Watch, run_within, split};
use explorer::need::Limits;
use serde_json::json;

/// A host with so much to spare.
fn with_free(bytes: u64) -> Limits {
    Limits {
        available_bytes: Some(bytes),
        ..Limits::default()
    }
}

/// What is said of `line` on a host with `bytes` to spare; `None` if it is done.
fn refused(bytes: u64, line: &str) -> Option<String> {
    let ran = run_within(&with_free(bytes), &split(line));
    match ran.code {
        0 => None,
        _ => {
            assert_eq!(ran.code, 1, "{line}");
            assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
            Some(ran.stderr)
        }
    }
}

#[test]
fn a_request_that_the_host_has_no_room_for_is_refused_before_anything_is_done() {
    // 65,536 frames of descriptors are 256 MiB.
    let line = "online --range 24G+16G --align base";
    let said = refused(200 << 20, line).unwrap();
    let parts = [
        "error: too-large: simulating 65,536 descriptor frames",
        "of host memory, more than the 200.0 MiB that this host has free",
        "bring a smaller --range online",
    ];
    for part in parts {
        assert!(said.contains(part), "{said}");
    }
    assert!(refused(256 << 20, line).is_some());
    assert_eq!(refused(260 << 20, line), None);

    let ran = run_within(
        &with_free(1 << 20),
        &split("online --range 24G+1G --format json"),
    );
    let report = ran.json();
    assert_eq!(report["error"]["kind"], "too-large");
    assert_eq!(
        report["after_error"],
        json!({"frames": 0, "audit": "clean"})
    );
    assert_eq!(report["online_ns"], json!(null));
}

#[test]
fn a_fold_without_room_for_huge_leaves_says_what_does_without() {
    // 16 MiB, and as much again for huge leaves.
    let line = "fold --range 24G+1G --align 2M";
    let said = refused(24 << 20, line).unwrap();
    assert!(said.contains("24.0 MiB that this host has free"), "{said}");
    assert!(said.contains("or take --huge-leaves no"), "{said}");
    assert_eq!(refused(24 << 20, &format!("{line} --huge-leaves no")), None);
    assert_eq!(refused(40 << 20, line), None);
}

#[test]
fn a_host_with_more_than_the_limit_is_told_the_limit() {
    let line = "online --range 64G+1T --align base";
    for free in [None, Some(64 << 30)] {
        let limits = Limits {
            available_bytes: free,
            ..Limits::default()
        };
        let watch = Watch {
            limits,
            ..Watch::default()
        };
        let said = watch.run(line).stderr;
        assert!(said.contains("more than the limit of 8.0 GiB"), "{said}");
    }
    let said = refused(1 << 30, line).unwrap();
    assert!(
        said.contains("the 1.0 GiB that this host has free"),
        "{said}"
    );
}
