//! Why a pagemap cannot be.

use crate::addr::{Order, PfnRange, RangeError};
use crate::error::ErrorKind;
use core::fmt;

/// Why a [`DevPagemap`](super::DevPagemap) is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PagemapError {
    /// There are no ranges.
    NoRanges,
    /// A range is not whole subsections, or not whole compound pages.
    Misaligned {
        /// The range.
        range: PfnRange,
        /// The order that start and length have to be multiples of.
        order: Order,
        /// The part of the range that could be brought online.
        aligned: Option<PfnRange>,
    },
    /// Two ranges have frames in common.
    Overlap {
        /// One range.
        first: PfnRange,
        /// The other.
        second: PfnRange,
    },
    /// The vmemmap has no room for a range.
    OutOfModel {
        /// The range.
        range: PfnRange,
        /// The frames that there is room for.
        room: PfnRange,
    },
    /// Compound pages larger than the model's largest.
    UnsupportedOrder {
        /// Their order.
        order: Order,
        /// The largest.
        max: Order,
    },
    /// The reserved part of an altmap is not the start of the first range.
    AltmapElsewhere {
        /// The reserved part.
        reserved: PfnRange,
        /// The first range.
        range: PfnRange,
    },
    /// The altmap, and what lies between it and the next multiple of the compound size, fill the
    /// first range.
    NoCompoundPage {
        /// How many frames are reserved.
        reserved: u64,
        /// The first range.
        range: PfnRange,
    },
    /// The first range is too small for an altmap.
    AltmapTooLarge {
        /// How many frames have to be reserved.
        reserved: u64,
        /// The first range.
        range: PfnRange,
    },
}

impl PagemapError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRanges => ErrorKind::Empty,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
            Self::Overlap { .. } => ErrorKind::Overlap,
            Self::OutOfModel { .. } => ErrorKind::OutOfRange,
            Self::UnsupportedOrder { .. } => ErrorKind::UnsupportedOrder,
            Self::AltmapElsewhere { .. } | Self::AltmapTooLarge { .. } => ErrorKind::OutOfRange,
            Self::NoCompoundPage { .. } => ErrorKind::NoCompoundPage,
        }
    }
}

impl fmt::Display for PagemapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRanges => f.write_str("no ranges; give at least one"),
            Self::Misaligned {
                range,
                order,
                aligned,
            } => {
                let frames = order.frames();
                write!(
                    f,
                    "{range} do not start and end at multiples of {frames:#x} frames; "
                )?;
                match aligned {
                    Some(part) => write!(f, "the aligned part is {part}"),
                    None => f.write_str("no part of them does"),
                }
            }
            Self::Overlap { first, second } => {
                write!(f, "{first} and {second} overlap; give each frame once")
            }
            Self::OutOfModel { range, room } => {
                write!(f, "{range} are outside the vmemmap, which is for {room}")
            }
            Self::UnsupportedOrder { order, max } => write!(
                f,
                "compound pages of order {order} are larger than the model's largest, order {max}"
            ),
            Self::AltmapElsewhere { reserved, range } => write!(
                f,
                "{reserved}, reserved for the altmap, are not the start of the first range, {range}"
            ),
            Self::NoCompoundPage { reserved, range } => write!(
                f,
                "an altmap of {reserved:#x} frames leaves no whole compound page of {range}; make the range larger or the compound pages smaller"
            ),
            Self::AltmapTooLarge { reserved, range } => write!(
                f,
                "an altmap of {reserved:#x} frames is larger than the first range, {range}"
            ),
        }
    }
}

impl core::error::Error for PagemapError {}

impl RangeError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Empty,
            Self::Overflow => ErrorKind::OutOfRange,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
        }
    }
}
