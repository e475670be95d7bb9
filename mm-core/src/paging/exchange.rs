//! Exchanging entries that are in use for others.

use super::{Leaf, Run};
use crate::addr::{Block, Order, VirtAddr};
use crate::frame::OutOfFrames;
use core::fmt;

/// How an entry that CPUs translate by may be exchanged for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replacement {
    /// Not at all: the architecture asks for break-before-make, and the kernel has no way to keep
    /// CPUs from the addresses in between.
    #[default]
    Refused,
    /// By one store, at any time. What the old one pointed at is used until the flush (x86-64).
    Direct,
    /// Invalid first, then the flush, then valid again, while the kernel keeps all accesses away
    /// (AArch64). FEAT_BBM spares this for changes of a block's *size* only; the exchanges of this
    /// library change where an address leads.
    BreakBeforeMake,
}

/// What [`PageTable::replace`](super::PageTable::replace) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// How many flushes it took.
    pub flushes: u64,
}

/// Why entries could not be exchanged. All are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceError {
    /// There was no frame for a table that the exchange needs.
    OutOfFrames(OutOfFrames),
    /// The page table cannot exchange entries in use: see [`Replacement::Refused`].
    Refused,
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(error) => write!(f, "no frame for a page table: {error}"),
            Self::Refused => f.write_str(
                "the page table cannot exchange entries in use; give its MMU a way to keep CPUs from them",
            ),
        }
    }
}

impl core::error::Error for ReplaceError {}

/// What takes the place of entries in use.
///
/// The page table asks, from the first address of a range to its last. It asks only when nothing
/// can fail any more, and may do so for a part of the range, make CPUs forget that part, and go on.
pub trait Exchange {
    /// Whether the huge leaf `leaf` at `at` is to become leaves of base pages, which are exchanged
    /// then; or a shared table of nothing but `leaf` one of its own. Else they stay.
    ///
    /// Answers the same whenever it is asked.
    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        let _ = (at, leaf);
        false
    }

    /// A huge leaf of `block` becomes leaves of its frames, each of which owns a reference of its
    /// own from now on.
    fn split(&mut self, block: Block) {
        let _ = block;
    }

    /// Takes a reference for each leaf of `run`, which is mapped in a shared table and is about to
    /// be copied. Says whether there are so many; if not, what the table maps stays.
    fn acquire_for_copy(&mut self, run: Run) -> bool {
        let _ = run;
        false
    }

    /// A huge leaf of `order` for all that base pages map from `at` on; `None` to be asked page by
    /// page.
    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        let _ = (at, order);
        None
    }

    /// The leaf that `join` gave last takes the place of `old` at `at`, among others. CPUs still
    /// read by the old leaves, or by the new one already.
    fn joined(&mut self, at: VirtAddr, old: Run) {
        let _ = (at, old);
    }

    /// What takes the place of `old`, base pages at `at`: a run of base pages, not longer. If it is
    /// shorter, what is left is asked for again. `old` itself, or the start of it, stays as it
    /// is.
    ///
    /// The references that the new entries will own come with it.
    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run;

    /// Takes the references of `run`, entries that were exchanged and by which no CPU translates
    /// any more.
    fn released(&mut self, run: Run);
}
