//! What can turn out otherwise than it must.

use crate::Fault;
use core::fmt;
use mm_core::addr::{Order, Pfn};
use mm_core::pagemap::PagemapError;
use mm_core::vmemmap::{Finding, FoldError, OfflineError, OnlineError};

/// Why a check failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrong {
    /// The page of a frame is another.
    Page {
        frame: Pfn,
        found: (Pfn, Order),
    },
    /// A head has another stamp than its owner's.
    Stamp {
        first: Pfn,
        found: u64,
        expected: u64,
    },
    /// What a reader has stored in a head is not there any more.
    Store {
        first: Pfn,
        found: u8,
        expected: u8,
    },
    /// The page has come online again while there was a reference to it.
    CameAgain {
        first: Pfn,
    },
    /// A reader had the last reference, which is the owner's.
    Last {
        first: Pfn,
    },
    /// As the kernel was told.
    Lost {
        pages: u64,
    },
    /// A head has not one reference when all have given theirs back.
    References {
        first: Pfn,
        found: Option<u32>,
    },
    NotFound {
        frame: Pfn,
    },
    StillFound {
        frame: Pfn,
    },
    Fault(Fault),
    /// A CPU does nothing any more, so this was not tried.
    GivenUp,
    TooBusy,
    /// Fewer rounds than there have to be.
    Rounds {
        done: u64,
    },
    Kept(u64),
    Left,
    Online(OnlineError),
    Offline(OfflineError),
    Fold(FoldError),
    Pagemap(PagemapError),
    Audit(Finding),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page {
                frame,
                found: (first, order),
            } => write!(
                f,
                "frame {frame} is said to be of a page of order {} at {first}",
                order.get()
            ),
            Self::Stamp {
                first,
                found,
                expected,
            } => write!(
                f,
                "the stamp of page {first} is {found:#x}, not {expected:#x}"
            ),
            Self::Store {
                first,
                found,
                expected,
            } => write!(
                f,
                "a reader has stored {expected} in the head of page {first}, and finds {found}"
            ),
            Self::CameAgain { first } => {
                write!(f, "page {first} went offline, with a reference to it")
            }
            Self::Last { first } => write!(f, "the last reference to page {first} was given back"),
            Self::Lost { pages } => write!(f, "{pages} pages have lost their owner"),
            Self::References { first, found } => match found {
                Some(found) => write!(f, "page {first} has {found} references, not 1"),
                None => write!(f, "page {first} is frozen"),
            },
            Self::NotFound { frame } => write!(f, "frame {frame} is not found"),
            Self::StillFound { frame } => write!(f, "frame {frame} is still found"),
            Self::Fault(fault) => fault.fmt(f),
            Self::GivenUp => f.write_str("given up, since another CPU has faulted"),
            Self::TooBusy => f.write_str("others have had references for too long"),
            Self::Rounds { done } => write!(f, "{done} rounds only"),
            Self::Kept(frames) => write!(f, "{frames} frames stay online"),
            Self::Left => f.write_str("more or fewer frames are in use than before"),
            Self::Online(error) => error.fmt(f),
            Self::Offline(error) => error.fmt(f),
            Self::Fold(error) => error.fmt(f),
            Self::Pagemap(error) => error.fmt(f),
            Self::Audit(finding) => finding.fmt(f),
        }
    }
}
