//! What fuzzing has found, and what it starts from, once more.

use std::fs;
use testkit::churn;
use testkit::script::{self, Tally, Width};

/// Runs each file of a corpus, and says how many there are.
fn run_all(corpus: &str, mut run: impl FnMut(&[u8]) -> Result<(), String>) -> usize {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/");
    let mut files = 0;
    for entry in fs::read_dir(format!("{folder}{corpus}")).unwrap() {
        let path = entry.unwrap().path();
        if let Err(error) = run(&fs::read(&path).unwrap()) {
            panic!("{}: {error}", path.display());
        }
        files += 1;
    }
    files
}

fn every_script_holds(corpus: &str, width: Width) -> Tally {
    let mut done = Tally::default();
    let files = run_all(corpus, |bytes| {
        done += script::run_any(width, bytes)?;
        Ok(())
    });
    assert!(files >= 10, "the corpus of {corpus} is larger");
    done
}

#[test]
fn every_world_of_the_corpus_holds() {
    let mut operations = 0;
    let files = run_all("churn", |bytes| {
        operations += churn::run_any(bytes)?.operations;
        Ok(())
    });
    assert!(operations >= 256 * files as u64 && files > 0);
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
