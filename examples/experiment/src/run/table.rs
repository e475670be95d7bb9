//! The rows that are printed, one for each case.

use crate::padding::pad;
use crate::{Cost, Report};
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

/// The columns of memory that is folded and unfolded: all frames of the vmemmap, tables included.
pub(super) const FOLDS: &str = "page  tails         tables   leaves   range, MiB      base  folded  unfolded   flushes to fold, unfold  checks";

/// What a fold and an unfold cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FoldFigures {
    pub(super) base: Option<Cost>,
    pub(super) folded: Option<Cost>,
    pub(super) unfolded: Option<Cost>,
    pub(super) fold_flushes: u64,
    pub(super) unfold_flushes: u64,
}

impl fmt::Display for FoldFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = |cost: Option<Cost>| cost.map_or(0, |cost| cost.frames());
        write!(
            f,
            "{:>7} {:>7} {:>9} {:>17} {:>7}",
            frames(self.base),
            frames(self.folded),
            frames(self.unfolded),
            self.fold_flushes,
            self.unfold_flushes
        )
    }
}

/// The columns of devices that hold their own descriptors.
pub(super) const ALTMAPS: &str = "page  tails         tables   leaves pieces     range, MiB    reserved, MiB  frames of device  of RAM  checks";

/// What a device that holds its own descriptors costs.
pub(super) struct AltmapFigures(pub(super) Option<Cost>);

impl fmt::Display for AltmapFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cost) => write!(f, "{:>17} {:>7}", cost.altmap_frames, cost.ram_frames()),
            None => f.write_str("               not online"),
        }
    }
}

/// A row's end: what its checks came to.
pub(crate) struct Ending {
    passed: u64,
    failed: u64,
}

impl Ending {
    /// Of the row that `report` is in, which ends.
    pub(crate) fn of(report: &mut Report<'_>) -> Self {
        let (passed, failed) = report.end_row();
        Self { passed, failed }
    }
}

impl fmt::Display for Ending {
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
