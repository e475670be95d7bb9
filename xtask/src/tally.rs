//! How many tests or checks passed, failed and were skipped.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Numbers of tests or checks; displayed as a closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// What a kernel's last line says: `7 passed, 0 failed, 1 skipped`.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let [passed, failed, skipped] = ["passed", "failed", "skipped"];
        let mut parts = line.trim().split(", ");
        let mut next = |word| numbered(parts.next()?, word);
        let tally = Self {
            passed: next(passed)?,
            failed: next(failed)?,
            skipped: next(skipped)?,
        };
        parts.next().is_none().then_some(tally)
    }

    /// Whether something was tried and nothing failed.
    pub(crate) const fn is_good(self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

/// The 7 of `7 passed`, for the word `passed`.
pub(crate) fn numbered(text: &str, word: &str) -> Option<u64> {
    let number = text.trim().strip_suffix(word)?.strip_suffix(' ')?;
    number.parse().ok()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_said_where_something_is() {
        let mut tally = Tally {
            passed: 1230,
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "1230 passed, 0 failed");
        tally += tally;
        tally.skipped = 2;
        assert_eq!(tally.to_string(), "2460 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn only_a_whole_closing_line_is_read() {
        let tally = Tally {
            passed: 7,
            failed: 10,
            skipped: 1,
        };
        let line = tally.to_string();
        assert_eq!(Tally::of_line(&line), Some(tally));
        assert_eq!(Tally::of_line(&format!("{line}\r")), Some(tally));
        for wrong in [
            "",
            "PANIC",
            "7 passed, 10 failed",
            "7 passed, 10 failed, 1 skipped, 3 lost",
            "conformance: 7 passed, 10 failed, 1 skipped",
            "-7 passed, 10 failed, 1 skipped",
            "7 failed, 10 passed, 1 skipped",
        ] {
            assert_eq!(Tally::of_line(wrong), None, "{wrong}");
        }
    }
}
