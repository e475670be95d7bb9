//! What comes of a check.

use core::fmt;
use mm_core::addr::VirtAddr;

/// What was found instead of what should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What does not hold.
    pub what: &'static str,
    /// Where, if it is about an address.
    pub at: Option<VirtAddr>,
    /// What should have been found.
    pub expected: u64,
    /// What was.
    pub found: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(at) = self.at {
            write!(f, " at {at}")?;
        }
        write!(
            f,
            ": expected {:#x}, found {:#x}",
            self.expected, self.found
        )
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was kept.
    Passed,
    /// It was not.
    Failed(Failure),
    /// The check could not be done here.
    Skipped(&'static str),
}

impl Outcome {
    /// What a check has answered.
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Stop::Failed(failure)) => Self::Failed(failure),
            Err(Stop::Skipped(why)) => Self::Skipped(why),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Why a check ends before its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    Skipped(&'static str),
}

/// What a check answers.
pub(crate) type Verdict = Result<(), Stop>;

/// A failure without numbers.
pub(crate) fn fail<T>(what: &'static str) -> Result<T, Stop> {
    Err(Stop::Failed(Failure {
        what,
        at: None,
        expected: 1,
        found: 0,
    }))
}

/// Skips the rest of a check.
pub(crate) fn skip<T>(why: &'static str) -> Result<T, Stop> {
    Err(Stop::Skipped(why))
}

/// Fails unless `holds`.
pub(crate) fn ensure(holds: bool, what: &'static str) -> Verdict {
    if holds { Ok(()) } else { fail(what) }
}

/// Fails unless `holds`, for an address.
pub(crate) fn ensure_at(holds: bool, what: &'static str, at: VirtAddr) -> Verdict {
    equal_at(1, u64::from(holds), what, at)
}

/// Fails unless the numbers are the same.
pub(crate) fn equal(expected: u64, found: u64, what: &'static str) -> Verdict {
    if expected == found {
        return Ok(());
    }
    Err(Stop::Failed(Failure {
        what,
        at: None,
        expected,
        found,
    }))
}

/// Fails unless the numbers are the same, for an address.
pub(crate) fn equal_at(expected: u64, found: u64, what: &'static str, at: VirtAddr) -> Verdict {
    if expected == found {
        return Ok(());
    }
    Err(Stop::Failed(Failure {
        what,
        at: Some(at),
        expected,
        found,
    }))
}
