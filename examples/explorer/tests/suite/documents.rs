//! Every command of README and book that calls the explorer does what it says there.

use crate::program::Watch;

const DOCUMENTS: [&str; 5] = [
    include_str!("../../../../README.md"),
    include_str!("../../../../CONTRIBUTING.md"),
    include_str!("../../../../docs/book/boot.md"),
    include_str!("../../../../docs/book/embedding.md"),
    include_str!("../../../../docs/book/policies.md"),
];

/// The arguments of each call, in the documents' order.
fn calls() -> Vec<&'static str> {
    let program = "$ cargo run --release -p explorer";
    let lines = DOCUMENTS.iter().flat_map(|document| document.lines());
    let calls = lines.filter_map(|line| line.strip_prefix(program));
    calls
        .map(|rest| rest.trim_start().trim_start_matches("-- "))
        .collect()
}

#[test]
fn every_call_in_the_documents_succeeds() {
    let calls = calls();
    assert!(calls.len() >= 4, "{calls:?}");
    for call in calls {
        let ran = Watch::default().run(call);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "explorer {call}");
        assert!(!ran.stdout.is_empty(), "explorer {call}");
    }
}
