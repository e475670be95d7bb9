//! Exchanging entries that are in use for others.

use super::{FrameOutOfReach, Groups, Leaf, Run};
use crate::addr::{Block, Order, VirtAddr};
use crate::frame::OutOfFrames;
use core::fmt;

/// How an entry that CPUs translate by may be exchanged for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replacement {
    /// Not at all. The architecture requires break-before-make, and the kernel has no way to keep
    /// CPUs from the addresses in between.
    #[default]
    Refused,
    /// By one store, at any time. What the old entry pointed at may be used until the flush
    /// (x86-64).
    ///
    /// Some processors do not bear it that a page changes its *size* by one store, as when a huge leaf
    /// is split or joined: they may cache both and take a machine check. AMD family 10h, erratum 383
    /// ("CPU Core May Machine Check When System Software Changes Page Tables Dynamically", Revision
    /// Guide for AMD Family 10h Processors, 41322): the entry has to be invalidated and flushed from all
    /// TLBs before. On these, `Mmu::replacement` is `BreakBeforeMake` where the kernel has a way to keep
    /// CPUs from the addresses, and `Refused` otherwise (`arch_x86_64::Tlb::without_replacement`). (Intel's "Machine Check Error on Page Size
    /// Change" is about instruction fetches, and nothing here is executable.)
    Direct,
    /// The entry is made invalid, then flushed, then made valid again. Meanwhile the kernel keeps
    /// all accesses away (AArch64). FEAT_BBM spares this only for changes of a block's *size*. The
    /// exchanges of this library change where an address leads.
    BreakBeforeMake,
}

/// The result of [`InUse::replace`](super::InUse::replace).
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
    /// An allocator gave a frame for a table that no entry can hold. It went back.
    FrameOutOfReach(FrameOutOfReach),
    /// The page table cannot exchange entries in use: see [`Replacement::Refused`].
    Refused,
    /// It can, and cannot split the huge leaf that maps an address: see
    /// [`Replace::RESIZES`](super::Replace::RESIZES).
    SplitsHugeLeaf {
        /// The first address of the leaf.
        at: VirtAddr,
    },
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(error) => write!(f, "no frame for a page table: {error}"),
            Self::FrameOutOfReach(error) => error.fmt(f),
            Self::Refused => f.write_str(
                "the page table cannot exchange entries in use; give its MMU a way to keep CPUs from them (`Mmu::replacement`, `Mmu::quiesce`), or, for a page table of your own, implement `ExchangeLeaf` and name `Direct` or `BreakBeforeMake` as its `PageTable::Replace`",
            ),
            Self::SplitsHugeLeaf { at } => write!(
                f,
                "the huge leaf at {at} would have to be split, which `PageTable::Replace` does not do; map the vmemmap by base pages, or implement `Replace`"
            ),
        }
    }
}

impl core::error::Error for ReplaceError {}

/// What becomes of all addresses that one entry of a leaf table's link translates, where all of them are
/// in the range: a *span*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The page table asks [`Exchange::should_split`], and then for each entry.
    Entries,
    /// Every page gets a frame of its own. A huge leaf stays. Otherwise a table is built aside and linked
    /// in place of what is there.
    Own,
    /// Some pages are mapped to tails, or no huge leaf is wanted. A table is built aside.
    Mixed,
    /// All pages are mapped to one tail frame, [`Exchange::tail_at`], by a table that may be shared.
    Tails,
    /// The same, to the tail frame that all pages of the span before it are mapped to.
    MoreTails,
}

/// Says what replaces entries in use.
///
/// The page table asks about a range from its first address to its last. It asks only when nothing
/// can fail any more. It may do so for a part of the range, flush that part, and go on.
pub trait Exchange {
    /// Whether [`span`](Self::span) is to be asked. Where it is not, what it would take is not compiled.
    fn has_spans() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// What becomes of the span that starts at `at`. The answer is the same each time.
    fn span(&self, at: VirtAddr) -> Span {
        let _ = at;
        Span::Entries
    }

    /// The leaf for all pages of the span at `at`, which are to be [`Span::Tails`] or [`Span::MoreTails`].
    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        let _ = at;
        None
    }

    /// Whether to split `leaf` at `at`. A huge leaf becomes leaves of base pages, which are then
    /// exchanged. A shared table, which holds only `leaf`, becomes a private one. If it is not
    /// split, it stays.
    ///
    /// The answer is the same each time.
    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        let _ = (at, leaf);
        false
    }

    /// A huge leaf of `block` becomes leaves of its frames. From now on each of them owns a
    /// reference of its own.
    fn split(&mut self, block: Block) {
        let _ = block;
    }

    /// Takes a reference for each leaf of `run`, for entries that are about to be made. The leaf is mapped
    /// in a shared table that is about to be copied, or came from [`tail_at`](Self::tail_at). Says whether
    /// they could be counted. If not, what is mapped there stays.
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

    /// The leaf that `join` returned last replaces, among others, `old` at `at`. CPUs may still
    /// read by the old leaves, or already by the new one.
    fn joined(&mut self, at: VirtAddr, old: Run) {
        let _ = (at, old);
    }

    /// What replaces the first leaves of `old`, more than one base page of one tail leaf, at `at`: whole
    /// groups, not more than `old` has; `None` to be asked by [`exchange`](Self::exchange). A page table that
    /// builds a table aside may ask this first.
    ///
    /// The references that the new entries will own come with the groups. None of them is equal to the old
    /// one.
    fn groups(&mut self, at: VirtAddr, old: Run) -> Option<Groups> {
        let _ = (at, old);
        None
    }

    /// What replaces `old`, base pages at `at`: a run of base pages that is not longer. If it is
    /// shorter, the page table asks again for the rest. To keep entries, return `old` or the start
    /// of it.
    ///
    /// The references that the new entries will own come with the run.
    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run;

    /// Takes the references of `run`, entries that were exchanged. No CPU translates by them any
    /// more.
    fn released(&mut self, run: Run);
}
