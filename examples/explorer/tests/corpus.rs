//! What fuzzing has found, and what it starts from, once more.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;

#[test]
fn no_arguments_of_the_corpus_make_the_program_misbehave() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/explorer_arguments"
    );
    let mut files = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if let Err(error) = explorer::robustness::check(&fs::read(&path).unwrap()) {
            panic!("{}: {error}", path.display());
        }
        files += 1;
    }
    assert!(files >= 10, "the corpus is in {corpus}");
}
