//! What comes of a check.

use core::fmt;
use mm_core::addr::VirtAddr;
use mm_core::frame::{AcquireError, OutOfFrames};
use mm_core::pagemap::PagemapError;
use mm_core::paging::MapError;
use mm_core::vmemmap::{Finding, FoldError, MarkError, OfflineError, OnlineError};

/// What the library, the allocator or the page table said when it should have done otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// What an audit has found.
    Audit(Finding),
    /// Why memory did not come online.
    Online(OnlineError),
    /// Why memory did not go offline.
    Offline(OfflineError),
    /// Why memory was not folded or unfolded.
    Fold(FoldError),
    /// Why a frame was not marked.
    Mark(MarkError),
    /// Why memory could not be described by a pagemap.
    Pagemap(PagemapError),
    /// Why a leaf was not entered.
    Map(MapError),
    /// What was asked of the allocator, and could not be had.
    Frames(OutOfFrames),
    /// Why references were not added.
    Acquire(AcquireError),
}

macro_rules! causes {
    ($($name:ident($error:ty))*) => {
        $(impl From<$error> for Cause {
            fn from(error: $error) -> Self {
                Self::$name(error)
            }
        })*

        impl fmt::Display for Cause {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(error) => error.fmt(f),)*
                }
            }
        }
    };
}

causes! {
    Audit(Finding)
    Online(OnlineError)
    Offline(OfflineError)
    Fold(FoldError)
    Mark(MarkError)
    Pagemap(PagemapError)
    Map(MapError)
    Frames(OutOfFrames)
    Acquire(AcquireError)
}

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
    /// Why, in the words of what was asked.
    pub cause: Option<Cause>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(at) = self.at {
            write!(f, " at {at}")?;
        }
        match self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => write!(
                f,
                ": expected {:#x}, found {:#x}",
                self.expected, self.found
            ),
        }
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
    /// What a check has answered, and why.
    pub(crate) fn of(verdict: Verdict, cause: Option<Cause>) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Stop::Failed(fault)) => Self::Failed(fault.because(cause)),
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

/// A failure on its way up. Its cause, which is larger, waits at the bench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) what: &'static str,
    pub(crate) at: Option<VirtAddr>,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Fault {
    /// The failure, with its cause.
    pub(crate) fn because(self, cause: Option<Cause>) -> Failure {
        let Self {
            what,
            at,
            expected,
            found,
        } = self;
        Failure {
            what,
            at,
            expected,
            found,
            cause,
        }
    }
}

/// Why a check ends before its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Failed(Fault),
    Skipped(&'static str),
}

/// What a check answers.
pub(crate) type Verdict = Result<(), Stop>;

/// A failure without numbers.
pub(crate) fn fail<T>(what: &'static str) -> Result<T, Stop> {
    Err(Stop::Failed(Fault {
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
    Err(Stop::Failed(Fault {
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
    Err(Stop::Failed(Fault {
        what,
        at: Some(at),
        expected,
        found,
    }))
}
