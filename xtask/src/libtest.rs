//! Counting tests in what `cargo test` prints, line by line.
//!
//! Each test program, and each set of doctests, says `running 3 tests` and then, unless it crashes,
//! `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; …`.

use crate::tally::{Tally, numbered};

/// What was counted so far.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    tally: Tally,
    /// Whether a program has begun and not yet said how it went.
    running: bool,
}

impl Counter {
    /// Takes note of the next line.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(tally) = result(line) {
            self.tally += tally;
            self.running = false;
        } else if is_beginning(line) {
            self.end_program();
            self.running = true;
        }
    }

    /// The sum of all programs. One that ended without a result counts as a failure, and so does a
    /// status of `cargo test` that nothing explains: a program that did not begin, or that
    /// crashed after its result.
    pub(crate) fn finish(mut self, success: bool) -> Tally {
        self.end_program();
        if !success && self.tally.failed == 0 {
            self.tally.failed = 1;
        }
        self.tally
    }

    fn end_program(&mut self) {
        if self.running {
            self.tally.failed += 1;
            self.running = false;
        }
    }
}

fn is_beginning(line: &str) -> bool {
    let count = line.strip_prefix("running ").unwrap_or_default();
    numbered(count, "tests")
        .or_else(|| numbered(count, "test"))
        .is_some()
}

/// What a line of results says. Tests that were left out by their names are skipped like those that
/// are ignored.
fn result(line: &str) -> Option<Tally> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word| numbers.split(';').find_map(|text| numbered(text, word));
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")? + count("filtered out").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str, success: bool) -> Tally {
        let mut counter = Counter::default();
        output.lines().for_each(|line| counter.line(line));
        counter.finish(success)
    }

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    const OK: &str = "
running 2 tests
test one ... ok
test two ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.14s
";

    const FILTERED: &str = "
running 1 test
test one ... ok

test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.14s
";

    const IGNORED: &str = "
running 3 tests
test one ... ok
test two ... ignored, takes hours

test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
all doctests ran in 0.52s; merged doctests compilation took 0.43s
";

    const FAILED: &str = "
running 12 tests
test one ... FAILED

failures:

---- one stdout ----
running away; test result: ok

test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.14s
";

    const CRASHED: &str = "
running 1 test
test one ... \n";

    #[test]
    fn programs_that_end_are_added_up() {
        assert_eq!(count(OK, true), tally(2, 0, 0));
        assert_eq!(count(&[OK, IGNORED].concat(), true), tally(3, 0, 2));
        assert_eq!(count(&[OK, FILTERED].concat(), true), tally(3, 0, 7));
        assert_eq!(
            count(&[FAILED, OK, FAILED].concat(), false),
            tally(22, 4, 0)
        );
    }

    #[test]
    fn a_program_without_a_result_is_a_failure() {
        assert_eq!(count(CRASHED, false), tally(0, 1, 0));
        assert_eq!(count(&[CRASHED, OK].concat(), false), tally(2, 1, 0));
        assert_eq!(
            count(&[OK, CRASHED, CRASHED, FAILED].concat(), false),
            tally(12, 4, 0)
        );
        // Such as one in which a test ends the process as if all were well.
        assert_eq!(count(&[OK, CRASHED].concat(), true), tally(2, 1, 0));
    }

    #[test]
    fn a_status_that_nothing_explains_is_a_failure() {
        assert_eq!(count(OK, false), tally(2, 1, 0));
        assert_eq!(count("", false), tally(0, 1, 0));
        assert_eq!(count("", true), tally(0, 0, 0));
    }

    #[test]
    fn results_that_cannot_be_read_are_missed() {
        let cut = "running 1 test\ntest result: ok. 1 passed; 0 failed";
        assert_eq!(count(cut, true), tally(0, 1, 0));
    }
}
