//! The ranges of a pagemap: one in the value itself, or any number of the caller's.

use crate::addr::PfnRange;
use core::iter::Copied;
use core::option;
use core::slice;

/// One range, or any number of the caller's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ranges<'p> {
    One(PfnRange),
    Many(&'p [PfnRange]),
}

impl<'p> Ranges<'p> {
    pub(super) const fn as_slice(&self) -> &[PfnRange] {
        match self {
            Self::One(range) => slice::from_ref(range),
            Self::Many(ranges) => ranges,
        }
    }

    /// The ranges, apart from the pagemap.
    pub(super) fn iter(self) -> RangesIter<'p> {
        match self {
            Self::One(range) => RangesIter::One(Some(range).into_iter()),
            Self::Many(ranges) => RangesIter::Many(ranges.iter().copied()),
        }
    }
}

/// The ranges, one after the other.
#[derive(Clone)]
pub(super) enum RangesIter<'p> {
    One(option::IntoIter<PfnRange>),
    Many(Copied<slice::Iter<'p, PfnRange>>),
}

impl Iterator for RangesIter<'_> {
    type Item = PfnRange;

    fn next(&mut self) -> Option<PfnRange> {
        match self {
            Self::One(range) => range.next(),
            Self::Many(ranges) => ranges.next(),
        }
    }
}
