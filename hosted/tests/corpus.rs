//! What fuzzing has found, and what it starts from, once more.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;

#[test]
fn every_script_of_the_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/operations");
    let (mut files, mut online) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        match hosted::script::run_any(&fs::read(&path).unwrap()) {
            Ok(tally) => online += tally.online,
            Err(error) => panic!("{}: {error}", path.display()),
        }
        files += 1;
    }
    assert!(files >= 10 && online >= 20, "the corpus is in {corpus}");
}
