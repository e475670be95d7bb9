//! What can turn out otherwise than it must.

use super::usage::Usage;
use crate::{Cost, Fault};
use core::fmt;
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::pagemap::PagemapError;
use mm_core::vmemmap::{Finding, FoldError, MarkError, NodeStats, Note, OfflineError, OnlineError};

/// Why a check failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Problem {
    /// An access faulted that should not have.
    Fault(Fault),
    /// An access did not fault that should have.
    NoFault {
        at: VirtAddr,
    },
    /// A fault was seen that is not the one of this access, or more than one, or none.
    OtherFault {
        at: VirtAddr,
        fault: Fault,
        seen: u64,
    },
    /// A word is not what it should be.
    Word {
        at: VirtAddr,
        found: u64,
        expected: u64,
    },
    /// A frame's head is another, or none.
    Head {
        frame: Pfn,
        found: Option<Pfn>,
    },
    /// A descriptor says that it is a tail and should not, or the other way round.
    Part {
        frame: Pfn,
    },
    NotOnline {
        frame: Pfn,
    },
    Online(OnlineError),
    Offline(OfflineError),
    Fold(FoldError),
    Mark(MarkError),
    ShouldRefuse,
    /// A number is another.
    Number {
        what: &'static str,
        found: u64,
        expected: u64,
    },
    /// A frame is marked and should not be, or the other way round.
    Marked {
        frame: Pfn,
        marked: bool,
    },
    /// The counters of a node are others.
    Stats {
        found: NodeStats,
        expected: NodeStats,
    },
    /// There was no place for somebody else's mapping.
    NotPlanted {
        at: VirtAddr,
    },
    /// The tables lead to another frame than they should.
    Holder {
        frame: Pfn,
        holder: Option<Pfn>,
    },
    Note(Note),
    Cost {
        found: Option<Cost>,
        expected: Cost,
    },
    Taken {
        out: u64,
        expected: u64,
    },
    Changed {
        before: Usage,
        now: Usage,
    },
    Audit(Finding),
    Pagemap(PagemapError),
}

/// Whether `found` is what it should be.
pub(super) fn equal(what: &'static str, found: u64, expected: u64) -> Result<(), Problem> {
    let outcome = (found == expected).then_some(());
    outcome.ok_or(Problem::Number {
        what,
        found,
        expected,
    })
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::NoFault { at } => write!(f, "no fault at {at}"),
            Self::OtherFault { at, fault, seen } => write!(
                f,
                "{seen} faults seen for one access to {at}, the last one: {fault}"
            ),
            Self::Word {
                at,
                found,
                expected,
            } => write!(f, "{found:#x} at {at}, not {expected:#x}"),
            Self::Head {
                frame,
                found: Some(found),
            } => write!(f, "the head of frame {frame} is said to be {found}"),
            Self::Head { frame, found: None } => write!(f, "frame {frame} has no head"),
            Self::Part { frame } => {
                write!(f, "the descriptor of frame {frame} confuses head and tail")
            }
            Self::NotOnline { frame } => write!(f, "frame {frame} has no descriptor"),
            Self::Online(error) => error.fmt(f),
            Self::Offline(error) => error.fmt(f),
            Self::Fold(error) => error.fmt(f),
            Self::Mark(error) => error.fmt(f),
            Self::ShouldRefuse => f.write_str("done, and should have been refused"),
            Self::Number {
                what,
                found,
                expected,
            } => write!(f, "{found} {what}, not {expected}"),
            Self::Stats { found, expected } => write!(f, "{found}; should be {expected}"),
            Self::NotPlanted { at } => write!(f, "nobody else can map anything at {at}"),
            Self::Marked { frame, marked } => {
                let word = if *marked { "" } else { "not " };
                write!(f, "frame {frame} is {word}marked")
            }
            Self::Holder {
                frame,
                holder: Some(holder),
            } => write!(f, "the descriptor of frame {frame} is in frame {holder}"),
            Self::Holder {
                frame,
                holder: None,
            } => write!(f, "the descriptor of frame {frame} is in no frame"),
            Self::Note(note) => note.fmt(f),
            Self::Cost {
                found: Some(found),
                expected,
            } => write!(f, "{found}; should be {expected}"),
            Self::Cost {
                found: None,
                expected,
            } => write!(f, "fewer than before; should be {expected} more"),
            Self::Taken { out, expected } => {
                write!(f, "{out} frames taken, should be {expected}")
            }
            Self::Changed { before, now } => write!(
                f,
                "before: {}, {} frames free; now: {}, {} frames free",
                before.used, before.free, now.used, now.free
            ),
            Self::Audit(finding) => finding.fmt(f),
            Self::Pagemap(error) => error.fmt(f),
        }
    }
}
