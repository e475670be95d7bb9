//! What fuzzing has found, and what it starts from, once more.

use explorer::{BAD_ARGUMENTS, DONE, FAILED};
use std::fs;

#[test]
fn no_arguments_of_the_corpus_make_the_program_misbehave() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/explorer_arguments"
    );
    let mut codes = Vec::new();
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        match explorer::robustness::check(&fs::read(&path).unwrap()) {
            Ok(code) => codes.extend(code),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    for code in [DONE, FAILED, BAD_ARGUMENTS] {
        let answers = codes.iter().filter(|found| **found == code);
        assert!(answers.count() >= 2, "{codes:?} from {corpus}");
    }
}

#[test]
fn no_dump_of_the_corpus_makes_the_program_misbehave() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/dumps");
    let mut read = [0, 0];
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        match explorer::dump::robustness::check(&fs::read(&path).unwrap()) {
            Ok(good) => read[usize::from(good)] += 1,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(read.iter().all(|count| *count >= 2), "{read:?}");
}
