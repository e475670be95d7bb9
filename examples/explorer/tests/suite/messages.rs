//! `online` says what is wrong in the units and options of the command line.

use crate::program::{online, run};
use serde_json::Value;

fn failing(line: &str) -> Value {
    let ran = run(&format!("online --format json {line}"));
    assert_eq!(ran.code, 1, "{line}");
    ran.json()
}

#[test]
fn what_is_refused_is_said_in_bytes_with_what_to_do() {
    let cases = [
        (
            "--range 64T+1G",
            "range 64T+1G is not within the memory that the vmemmap has room for, from 0 to 64T; take",
        ),
        (
            "--backend aarch64-64k --range 262144G+1G",
            "range 256T+1G is not within the memory that the vmemmap has room for, from 0 to 256T; take",
        ),
        (
            "--range 1G+1G --range 1G+2M",
            "ranges 1G+1G and 1G+2M overlap; name",
        ),
        ("--range 24G+5", "must be multiples of a base page, 4K"),
        (
            "--backend aarch64-16k --range 24G+4K",
            "must be multiples of a base page, 16K",
        ),
        (
            "--range 24G+1G --altmap 3M",
            "altmap 24G+3M is not whole subsections of 2M; take 4M, or auto",
        ),
        (
            "--range 24G+1G --align 1G --altmap auto",
            "an altmap of 18M leaves no whole compound page of the first range, 24G+1G; make",
        ),
        (
            "--range 24G+2M --range 32G+16G --align 4K --altmap auto",
            "is larger than the first range, 24G+2M; make",
        ),
        (
            "--range 24G+1G --altmap 2M",
            "the altmap of 2M has 512 frames, too few for the descriptors; 6M is enough: take --altmap 6M, or --altmap auto",
        ),
        (
            "--range 24G+2M --range 32G+16G --align 4K --altmap 2M",
            "no altmap in the first range is enough: make that range larger",
        ),
        (
            "--range 24G+1G --fail-after 3",
            "as --fail-after 3 demands; take a larger number",
        ),
    ];
    for (line, said) in cases {
        let report = failing(line);
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{line}: {message}");
        assert!(!message.contains("0x"), "{line}: {message}");
    }
}

#[test]
fn what_an_altmap_reserves_is_shown() {
    let line = "--range 24G+1G --align 2M --altmap auto";
    assert_eq!(online(line)["altmap_reserved_bytes"], 6 << 20);
    let text = run(&format!("online {line}")).stdout;
    let said = "altmap        6M is reserved at the start of 24G+1G\n";
    assert!(text.contains(said), "{text}");
    let report = online("--range 24G+1G");
    assert_eq!(report["altmap_reserved_bytes"], Value::Null);
}

#[test]
fn a_number_of_allocations_that_suffices_is_noted() {
    let line = "--range 24G+1G --fail-after";
    let total = online("--range 24G+1G")["frames"]["total"]
        .as_u64()
        .unwrap();
    for allocations in [total, u64::MAX] {
        let report = online(&format!("{line} {allocations}"));
        let said = format!("--fail-after {allocations} made nothing fail: ");
        assert!(
            report["notes"][0].as_str().unwrap().starts_with(&said),
            "{report}"
        );
    }
    failing(&format!("{line} {}", total - 1));
}
