//! What reference counts take is said before and after memory comes online.

use crate::program::{online, run};
use serde_json::{Value, json};

/// Shared frames, and bytes for their counts and for a count of each frame.
fn counts(shared_frames: u64, bytes_per_gib_of_ram: u64) -> Value {
    json!({
        "shared_frames": shared_frames,
        "shared_bytes": 16 * shared_frames,
        "bytes_per_gib_of_ram": bytes_per_gib_of_ram,
    })
}

#[test]
fn online_and_plan_say_what_counts_take() {
    // 4 bytes for each frame of 4 or 64 KiB. A frame of tails for each page or for all, and as many
    // tables where these are shared.
    let (small, large) = (1 << 20, 1 << 16);
    let cases = [
        ("--range 24G+1G --align base", counts(0, small)),
        ("--range 24G+1G --align 2M", counts(512, small)),
        (
            "--range 24G+1G --align 2M --tails per-order",
            counts(1, small),
        ),
        (
            "--range 24G+4G --align 1G --tables shared",
            counts(8, small),
        ),
        (
            "--range 24G+4G --align 1G --tails per-order --tables shared",
            counts(2, small),
        ),
        // Those of the altmap are counted there.
        ("--range 24G+1G --align 2M --altmap auto", counts(0, small)),
        (
            "--backend aarch64-64k --range 64G+16G --align 512M",
            counts(32, large),
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(online(line)["counts"], expected, "{line}");
        let plan = run(&format!("plan --format json {line}")).json();
        assert_eq!(plan["counts"], expected, "{line}");
    }
}

#[test]
fn people_are_told_in_one_line() {
    let said = "8.0 KiB for 512 shared frames; for all, 1.0 MiB per GiB of RAM";
    let line = "--range 24G+1G --align 2M";
    let online = run(&format!("online {line}")).stdout;
    let expected = format!("counts        {said}");
    assert!(online.lines().any(|line| line == expected), "{online}");
    let plan = run(&format!("plan {line} --limit 1")).stdout;
    let expected = format!("counts: {said}");
    assert!(plan.lines().any(|line| line == expected), "{plan}");
    // Nothing is known of what was not done.
    let failed = run(&format!("online {line} --fail-after 3"));
    assert!(!failed.stdout.contains("counts"), "{}", failed.stdout);
}

#[test]
fn the_book_says_what_counts_of_a_tebibyte_take() {
    let book = include_str!("../../../../docs/book/embedding.md");
    let says = "1 TiB in pages of 2 MiB: 16 bytes with tails per order, 8 MiB with tails per compound page";
    assert!(book.contains(says));
    for (tails, takes) in [("per-order", "16 B"), ("per-compound", "8.0 MiB")] {
        let line = format!("plan --range 24G+1T --align 2M --tails {tails} --limit 1");
        let plan = run(&line).stdout;
        let expected = format!("counts: {takes} for ");
        assert!(
            plan.lines().any(|line| line.starts_with(&expected)),
            "{plan}"
        );
    }
}
