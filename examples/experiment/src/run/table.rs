//! The rows that are printed, one for each case.

use crate::Cost;
use crate::padding::pad;
use core::fmt;

/// The columns of memory in each geometry and policy.
pub(super) const CASES: &str = "page  tails         tables   leaves pieces     memory  range, MiB   descriptors leaf tables  upper   saved  checks";

/// A row's middle part.
pub(super) struct Figures {
    /// `None` where the case is not online.
    pub(super) used: Option<Cost>,
    /// How many pages the flat array has.
    pub(super) pages: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Cost {
            descriptor_frames,
            leaf_tables,
            upper_tables,
            ..
        }) = self.used
        else {
            return f.pad("                           not online  ");
        };
        let saved = Tenths::of(self.pages, descriptor_frames + leaf_tables);
        write!(
            f,
            "{descriptor_frames:>11} {leaf_tables:>11} {upper_tables:>6} {saved:>7}"
        )
    }
}

/// A row's end.
pub(super) struct Verdict {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        let all = self.passed + self.failed;
        write!(f, "{word} ({} of {all})", self.passed)
    }
}

/// A share of the flat array, in tenths of a percent; below zero where more is used than by the
/// flat array.
struct Tenths(i64);

impl Tenths {
    fn of(pages: u64, used: u64) -> Self {
        let (pages, used) = (pages as i64, used as i64);
        Self((pages - used) * 1000 / pages.max(1))
    }
}

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let tenths = self.0.unsigned_abs();
        pad(f, format_args!("{sign}{}.{}%", tenths / 10, tenths % 10))
    }
}
