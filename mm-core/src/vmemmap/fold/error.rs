//! Why memory could not be folded or unfolded.

use crate::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr};
use crate::error::ErrorKind;
use crate::frame::OutOfFrames;
use crate::pagemap::TailsFallback;
use crate::paging::{FrameOutOfReach, ReplaceError};
use crate::vmemmap::{OfflineError, OnlineError};
use core::fmt;

/// Why memory could not be folded, unfolded or reshaped. After any of these, everything is as it
/// was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoldError {
    /// The pagemap was made for another model than the vmemmap.
    OtherModel,
    /// The frames are not whole pages of the pagemap's order, or not whole vmemmap pages.
    Misaligned {
        /// The frames.
        frames: PfnRange,
        /// The order that start and length have to be multiples of.
        order: Order,
    },
    /// The frames do not lie in one of the pagemap's ranges.
    Outside {
        /// The frames.
        frames: PfnRange,
    },
    /// Some of the frames are reserved for the altmap, or what it reserves is reserved for another
    /// one: those are base pages as long as it is in use.
    Reserved {
        /// What is reserved.
        reserved: PfnRange,
    },
    /// Frames would come from the altmap, which is not in use yet, while memory that it reserves is
    /// online.
    ReservedOnline {
        /// The first address where a descriptor of that memory is mapped.
        at: VirtAddr,
    },
    /// Somebody else has mapped addresses of packed heads.
    AlreadyMapped {
        /// The first such address.
        at: VirtAddr,
    },
    /// The descriptors at an address are not mapped, or not by this library.
    NotOnline {
        /// The first such address.
        at: VirtAddr,
    },
    /// The pagemap shares no tails: it was asked not to, or it cannot.
    NothingToShare(Option<TailsFallback>),
    /// The descriptor's tails name their own compound page, so compound pages cannot share them.
    TailsDiffer,
    /// Tails are shared there by compound pages of another order, or by a part of one. Unfold them
    /// first.
    OtherTails {
        /// The first such address.
        at: VirtAddr,
    },
    /// Frames of an altmap that is not the pagemap's hold descriptors of the frames.
    OtherAltmap {
        /// What that altmap reserves.
        reserved: PfnRange,
    },
    /// A page has its head packed, or is to have it. Fold, unfold and reshape leave it as it is;
    /// [`Vmemmap::reorder`](crate::vmemmap::Vmemmap::reorder) changes it.
    HeadsPacked {
        /// Its first frame.
        first: Pfn,
    },
    /// Heads are to be packed, and the descriptor cannot say that a head is elsewhere.
    NoStubs,
    /// Heads of pages of this order are to be packed, and the model has no place for them.
    NoPlaceForHeads {
        /// The order.
        order: Order,
    },
    /// A page is partly in the frames. Where there are readers, pages change as a whole;
    /// [`Vmemmap::reorder`](crate::vmemmap::Vmemmap::reorder) changes a part of one, unless other pages have
    /// come online in the place of some of it.
    SplitsPage {
        /// The frames, extended to whole pages.
        pages: PfnRange,
    },
    /// RAM for descriptors or page tables ran out.
    OutOfFrames(OutOfFrames),
    /// An allocator or altmap gave a frame that no entry of the page table can hold. It went back.
    FrameOutOfReach(FrameOutOfReach),
    /// The altmap ran out.
    AltmapExhausted {
        /// The reserved frames.
        reserved: PfnRange,
    },
    /// The reserve of a node has too little. Of the larger order's page, or pages, nothing has changed.
    ReserveTooSmall {
        /// The node.
        node: NodeId,
    },
    /// The allocator cannot count the references of a tail frame.
    Uncounted {
        /// The frame.
        frame: Pfn,
    },
    /// A page is frozen: it goes offline or changes, or is being thawed. Nothing is done with it before that
    /// is over.
    Frozen {
        /// Its first frame.
        first: Pfn,
    },
    /// So much memory near the frames is frozen, each part of it by itself, that one more cannot be counted.
    TooManyFrozen {
        /// Those of the frames that are counted there.
        frames: PfnRange,
    },
    /// What was frozen is memory of another vmemmap.
    OtherVmemmap,
    /// The page table cannot exchange entries that are in use:
    /// [`PageTable::Replace`](crate::paging::PageTable::Replace) or
    /// [`Mmu::replacement`](crate::paging::Mmu::replacement) say so.
    Refused,
    /// The page table exchanges base pages, and a huge leaf would have to be split.
    SplitsHugeLeaf {
        /// The first address of the leaf.
        at: VirtAddr,
    },
}

impl FoldError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OtherModel
            | Self::OtherVmemmap
            | Self::NothingToShare(_)
            | Self::TailsDiffer
            | Self::OtherAltmap { .. }
            | Self::FrameOutOfReach(_)
            | Self::Uncounted { .. }
            | Self::SplitsHugeLeaf { .. }
            | Self::HeadsPacked { .. }
            | Self::NoStubs
            | Self::NoPlaceForHeads { .. }
            | Self::Refused => ErrorKind::Unsupported,
            Self::Misaligned { .. } | Self::SplitsPage { .. } => ErrorKind::Misaligned,
            Self::Outside { .. } => ErrorKind::OutOfRange,
            Self::NotOnline { .. } => ErrorKind::NotOnline,
            Self::Frozen { .. } | Self::TooManyFrozen { .. } => ErrorKind::Busy,
            Self::ReservedOnline { .. } | Self::AlreadyMapped { .. } => ErrorKind::AlreadyOnline,
            Self::OtherTails { .. } | Self::Reserved { .. } => ErrorKind::Overlap,
            Self::OutOfFrames(_) | Self::ReserveTooSmall { .. } => ErrorKind::OutOfFrames,
            Self::AltmapExhausted { .. } => ErrorKind::AltmapExhausted,
        }
    }
}

/// Why frames for it could not be had.
impl From<OnlineError> for FoldError {
    fn from(error: OnlineError) -> Self {
        match error {
            OnlineError::OutOfFrames(error) => Self::OutOfFrames(error),
            OnlineError::FrameOutOfReach(error) => Self::FrameOutOfReach(error),
            OnlineError::AltmapExhausted { reserved } => Self::AltmapExhausted { reserved },
            OnlineError::Reserved { reserved } => Self::Reserved { reserved },
            OnlineError::AlreadyMapped { at } => Self::ReservedOnline { at },
            _ => Self::Refused,
        }
    }
}

impl From<ReplaceError> for FoldError {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::OutOfFrames(error) => Self::OutOfFrames(error),
            ReplaceError::FrameOutOfReach(error) => Self::FrameOutOfReach(error),
            ReplaceError::Refused => Self::Refused,
            ReplaceError::SplitsHugeLeaf { at } => Self::SplitsHugeLeaf { at },
        }
    }
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherModel => OnlineError::OtherModel.fmt(f),
            Self::Misaligned { frames, order } => write!(
                f,
                "{frames} do not start and end at multiples of {:#x} frames",
                order.frames()
            ),
            Self::Outside { frames } => {
                write!(f, "{frames} are not within one range of the pagemap")
            }
            Self::Reserved { reserved } => write!(
                f,
                "{reserved} are reserved for the altmap and stay base pages; leave them out"
            ),
            Self::ReservedOnline { at } => write!(
                f,
                "memory that is reserved for the altmap is online at {at}; take it offline first"
            ),
            Self::AlreadyMapped { at } => OnlineError::AlreadyMapped { at: *at }.fmt(f),
            Self::NotOnline { at } => {
                write!(f, "no descriptors of this vmemmap are mapped at {at}")
            }
            Self::NothingToShare(Some(fallback)) => fallback.fmt(f),
            Self::NothingToShare(None) => {
                f.write_str("the pagemap says that tails are not shared; say how they are to be")
            }
            Self::TailsDiffer => OnlineError::TailsDiffer.fmt(f),
            Self::OtherTails { at } => write!(
                f,
                "the tails at {at} are shared by a compound page of another order, or by a part of one; unfold it first"
            ),
            Self::OtherAltmap { reserved } => OfflineError::OtherAltmap {
                reserved: *reserved,
            }
            .fmt(f),
            Self::HeadsPacked { first } => write!(
                f,
                "the page at frame {first} has its head packed, or is to: a change of its order does that (`Vmemmap::reorder`)"
            ),
            Self::NoStubs => OnlineError::NoStubs.fmt(f),
            Self::NoPlaceForHeads { order } => {
                OnlineError::NoPlaceForHeads { order: *order }.fmt(f)
            }
            Self::SplitsPage { pages } => {
                write!(
                    f,
                    "the pages of these frames change as a whole, or together with what came online in their place: ask for {pages}"
                )
            }
            Self::OutOfFrames(error) => error.fmt(f),
            Self::FrameOutOfReach(error) => error.fmt(f),
            Self::AltmapExhausted { reserved } => OnlineError::AltmapExhausted {
                reserved: *reserved,
            }
            .fmt(f),
            Self::ReserveTooSmall { node } => write!(
                f,
                "the reserve of node {node} has too little; fill it (`Vmemmap::fill_reserve`) with what `Vmemmap::reserve_needed` says"
            ),
            Self::Uncounted { frame } => write!(
                f,
                "the references of tail frame {frame} could not be counted; give the counts more room (`DevPagemap::shared_frames`)"
            ),
            Self::Frozen { first } => OfflineError::Frozen { first: *first }.fmt(f),
            Self::TooManyFrozen { frames } => {
                OfflineError::TooManyFrozen { frames: *frames }.fmt(f)
            }
            Self::OtherVmemmap => OfflineError::OtherVmemmap.fmt(f),
            Self::Refused => ReplaceError::Refused.fmt(f),
            Self::SplitsHugeLeaf { at } => ReplaceError::SplitsHugeLeaf { at: *at }.fmt(f),
        }
    }
}

impl core::error::Error for FoldError {}
