//! Every command of the documents that calls the explorer does what it says there.

use crate::program::Watch;
use std::fs;
use std::path::Path;

/// How they call it; a test of `xtask` refuses any other way.
const PROGRAM: &str = "cargo run --release -p explorer";

/// The project's Markdown files.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directories = ["", "docs", "docs/book", "examples/kernels"];
    let files = directories.iter().flat_map(|directory| {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

/// The arguments of each call in `document`: up to the end of the line, of the code or before a comment.
fn calls(document: &str) -> Vec<&str> {
    let lines = document.lines();
    let behind = lines.flat_map(|line| line.split(PROGRAM).skip(1));
    let calls = behind.filter_map(|rest| rest.split(['`', '#']).next());
    calls
        .map(|rest| rest.trim().trim_start_matches("--").trim_start())
        .collect()
}

#[test]
fn every_call_in_the_documents_succeeds() {
    let documents = documents();
    let calls: Vec<&str> = documents.iter().flat_map(|text| calls(text)).collect();
    assert!(calls.len() >= 7, "{calls:?}");
    for call in calls {
        let ran = Watch::default().run(call);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "explorer {call}");
        assert!(!ran.stdout.is_empty(), "explorer {call}");
    }
}

#[test]
fn calls_are_found_in_blocks_and_in_sentences() {
    let text =
        format!("$ {PROGRAM}\n$ {PROGRAM} -- online --help # all\nSee `{PROGRAM} -- plan` too");
    assert_eq!(calls(&text), ["", "online --help", "plan"]);
}
