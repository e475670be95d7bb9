//! What fuzzing has found, and what it starts from, once more.

use std::fs;
use testkit::script::{self, Tally, Width};

fn every_script_holds(corpus: &str, width: Width) -> Tally {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/");
    let mut done = Tally::default();
    let mut files = 0;
    for entry in fs::read_dir(format!("{folder}{corpus}")).unwrap() {
        let path = entry.unwrap().path();
        match script::run_any(width, &fs::read(&path).unwrap()) {
            Ok(tally) => done += tally,
            Err(error) => panic!("{}: {error}", path.display()),
        }
        files += 1;
    }
    assert!(files >= 10, "the corpus is in {folder}{corpus}");
    done
}

#[test]
fn every_wide_script_of_the_corpus_holds() {
    let done = every_script_holds("operations_wide", Width::Wide);
    assert!(done.online >= 20, "{done:?}");
}

#[test]
fn every_narrow_script_of_the_corpus_holds() {
    let done = every_script_holds("operations", Width::Narrow);
    let rare = [
        done.joined,
        done.split,
        done.shared,
        done.split_offline,
        done.marks_kept,
        done.exhausted,
    ];
    assert!(rare.iter().all(|count| *count > 0), "{done:?}");
}
