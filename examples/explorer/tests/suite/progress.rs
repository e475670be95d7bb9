//! Long runs say how far they are.

use crate::program::Watch;
use explorer::progress::Progress;
use std::cell::RefCell;

/// Remembers what it hears; `None` where everything is taken away.
#[derive(Default)]
struct Heard(RefCell<Vec<Option<(String, usize, usize)>>>);

impl Progress for Heard {
    fn step(&self, what: &str, done: usize, all: usize) {
        self.0.borrow_mut().push(Some((what.to_owned(), done, all)));
    }

    fn hide(&self) {
        self.0.borrow_mut().push(None);
    }
}

/// What was heard of `line` up to the end of what is shown.
fn heard(line: &str, code: u8) -> Vec<String> {
    let heard = Heard::default();
    let watch = Watch {
        progress: &heard,
        ..Watch::default()
    };
    assert_eq!(watch.run(line).code, code, "{line}");
    let all = heard.0.into_inner();
    assert_eq!(all.last(), Some(&None), "{line}: {all:?}");
    let steps: Vec<_> = all.into_iter().flatten().collect();
    let told = steps.iter().map(|(what, ..)| what.clone()).collect();
    for (index, (_, done, of)) in steps.iter().enumerate() {
        assert_eq!(index, *done, "{line}");
        assert!(done < of, "{line}");
        assert_eq!(*of, steps[0].2, "{line}");
    }
    if code == 0 {
        assert_eq!(steps.len(), steps[0].2, "{line}");
    }
    told
}

#[test]
fn each_step_is_told_and_taken_away_at_the_end() {
    assert_eq!(
        heard("online --range 24G+1G", 0),
        [
            "making the machine",
            "bringing memory online",
            "recounting",
            "taking it offline"
        ]
    );
    assert_eq!(
        heard("fold --range 24G+1G", 0),
        [
            "making the machine",
            "bringing memory online",
            "folding",
            "unfolding",
            "taking it offline"
        ]
    );
}

#[test]
fn what_fails_is_taken_away_too() {
    let online = heard("online --range 24G+1G --fail-after 3", 1);
    assert_eq!(online.last().unwrap(), "bringing memory online");
    let fold = heard("fold --backend aarch64-4k --no-quiesce --range 24G+1G", 1);
    assert_eq!(fold.last().unwrap(), "folding");
    assert!(heard("online --range 24G+5", 1).is_empty());
}

#[test]
fn a_survey_counts_its_rows() {
    let rows = heard("--backend x86_64 --align 2M", 0);
    assert_eq!(rows[0], "x86_64 at 2M");
    // With and without an altmap, two with packed heads, and two that are folded.
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[7], "fold on x86_64 at 2M");
}
