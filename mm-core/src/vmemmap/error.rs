//! Why an operation could not be done. After any of these, everything is as it was before.

use crate::addr::{Granule, Order, Pfn, PfnRange, VirtAddr};
use crate::error::ErrorKind;
use crate::frame::OutOfFrames;
use crate::paging::{FrameOutOfReach, MapError};
use core::fmt;

/// The descriptor type is not the one that the model was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorMismatch {
    /// The size that the model says, in bytes.
    pub model: u64,
    /// The size of the type, in bytes.
    pub descriptor: usize,
}

impl fmt::Display for DescriptorMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the model is for descriptors of {} bytes, the type has {} or is aligned to more",
            self.model, self.descriptor
        )
    }
}

impl core::error::Error for DescriptorMismatch {}

/// Why memory could not be brought online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnlineError {
    /// The pagemap was made for another model than the vmemmap.
    OtherModel,
    /// The page table has pages of another size than the model.
    OtherGranule {
        /// The page table's.
        table: Granule,
        /// The model's.
        model: Granule,
    },
    /// The piece is not whole subsections.
    PieceMisaligned {
        /// The piece.
        piece: PfnRange,
        /// How many frames a subsection has.
        subsection: u64,
    },
    /// The piece does not lie in one of the pagemap's ranges.
    PieceOutside {
        /// The piece.
        piece: PfnRange,
    },
    /// Descriptors are mapped there already, by this library or by other code.
    AlreadyMapped {
        /// The first such address.
        at: VirtAddr,
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
    /// An altmap in use that is not the pagemap's reserves some of the frames.
    Reserved {
        /// What that altmap reserves.
        reserved: PfnRange,
    },
    /// The descriptor's tails name their own compound page, so compound pages cannot share them.
    TailsDiffer,
    /// The descriptor's encoding cannot say that a head is elsewhere, so heads cannot be packed.
    NoStubs,
    /// The model has no place for the heads of pages of this order, so they cannot be packed.
    NoPlaceForHeads {
        /// The order.
        order: Order,
    },
    /// Neighbours have their packed heads in a frame of an altmap that is not the pagemap's, where heads of these pages
    /// would be.
    HeadsInAltmap {
        /// What that altmap reserves.
        reserved: PfnRange,
    },
    /// The page table refused for a reason of its own.
    Table(MapError),
}

impl OnlineError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OtherModel
            | Self::OtherGranule { .. }
            | Self::TailsDiffer
            | Self::NoStubs
            | Self::NoPlaceForHeads { .. }
            | Self::HeadsInAltmap { .. }
            | Self::FrameOutOfReach(_)
            | Self::Table(_) => ErrorKind::Unsupported,
            Self::PieceMisaligned { .. } => ErrorKind::Misaligned,
            Self::PieceOutside { .. } => ErrorKind::OutOfRange,
            Self::AlreadyMapped { .. } => ErrorKind::AlreadyOnline,
            Self::OutOfFrames(_) => ErrorKind::OutOfFrames,
            Self::AltmapExhausted { .. } => ErrorKind::AltmapExhausted,
            Self::Reserved { .. } => ErrorKind::Overlap,
        }
    }
}

impl From<MapError> for OnlineError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfFrames(error) => Self::OutOfFrames(error),
            MapError::FrameOutOfReach(error) => Self::FrameOutOfReach(error),
            MapError::InUse { at } => Self::AlreadyMapped { at },
            MapError::Unsupported { .. } => Self::Table(error),
        }
    }
}

impl fmt::Display for OnlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherModel => f.write_str(
                "the pagemap was made for another memory model; make it with this vmemmap's",
            ),
            Self::OtherGranule { table, model } => write!(
                f,
                "the page table has pages of {} bytes and the model has {}; make both for the same pages",
                table.bytes(),
                model.bytes()
            ),
            Self::PieceMisaligned { piece, subsection } => write!(
                f,
                "{piece} are not whole subsections of {subsection:#x} frames"
            ),
            Self::PieceOutside { piece } => {
                write!(f, "{piece} are not within one range of the pagemap")
            }
            Self::AlreadyMapped { at } => write!(
                f,
                "descriptors are mapped at {at} already; take that memory offline first"
            ),
            Self::OutOfFrames(error) => error.fmt(f),
            Self::FrameOutOfReach(error) => error.fmt(f),
            Self::AltmapExhausted { reserved } => write!(
                f,
                "the altmap of {:#x} frames is used up; reserve more",
                reserved.frames()
            ),
            Self::Reserved { reserved } => write!(
                f,
                "{reserved} are reserved for an altmap that is in use; leave them out, or use a pagemap with that altmap"
            ),
            Self::TailsDiffer => f.write_str(
                "tails of this descriptor type name their compound page; share them per compound page, or encode them as masks",
            ),
            Self::NoStubs => f.write_str(
                "this descriptor's encoding cannot say that a head is elsewhere; have heads in place, or encode tails as masks",
            ),
            Self::NoPlaceForHeads { order } => write!(
                f,
                "the model has no place for packed heads of order {order}; give it one (`MemoryModel::with_heads`), or have heads in place"
            ),
            Self::HeadsInAltmap { reserved } => write!(
                f,
                "a frame of the altmap {reserved} holds the packed heads of neighbours; use a pagemap with that altmap, or have heads in place"
            ),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OnlineError {}

/// Why memory could not be taken offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflineError {
    /// The pagemap was made for another model than the vmemmap.
    OtherModel,
    /// The piece is not whole subsections.
    PieceMisaligned {
        /// The piece.
        piece: PfnRange,
        /// How many frames a subsection has.
        subsection: u64,
    },
    /// The piece does not lie in one of the pagemap's ranges.
    PieceOutside {
        /// The piece.
        piece: PfnRange,
    },
    /// The descriptors at an address are not mapped, or not by this library.
    NotOnline {
        /// The first such address.
        at: VirtAddr,
    },
    /// No memory for a table of its own where the piece is a part of what a huge leaf or a shared
    /// table maps.
    OutOfFrames(OutOfFrames),
    /// An allocator gave a frame for such a table that no entry of the page table can hold. It went
    /// back.
    FrameOutOfReach(FrameOutOfReach),
    /// A huge leaf reaches across the end of the piece, and the page table cannot exchange entries
    /// in use. Take whole leaves offline.
    SplitsHugeLeaf {
        /// Where the leaf starts.
        at: VirtAddr,
    },
    /// A shared leaf table reaches across the end of the piece, and the page table cannot exchange
    /// entries in use. Take all that it maps offline.
    SplitsSharedTable {
        /// The first address that the table maps.
        at: VirtAddr,
    },
    /// Frames of an altmap that is not the pagemap's hold descriptors of the piece.
    OtherAltmap {
        /// What that altmap reserves.
        reserved: PfnRange,
    },
    /// A page is partly in the piece. Pages are frozen as a whole.
    SplitsPage {
        /// The piece, extended to whole pages.
        pages: PfnRange,
    },
    /// A page has other references than it was said to have, or is frozen.
    Busy {
        /// Its first frame.
        first: Pfn,
    },
    /// A page is frozen: it goes offline or changes, or is being thawed. Nothing is done with it before that
    /// is over.
    Frozen {
        /// Its first frame.
        first: Pfn,
    },
    /// So much memory near the piece is frozen, each part of it by itself, that one more cannot be counted.
    TooManyFrozen {
        /// The frames of the piece that are counted there.
        frames: PfnRange,
    },
    /// What was frozen is memory of another vmemmap.
    OtherVmemmap,
}

impl OfflineError {
    /// The kind of error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OtherModel
            | Self::OtherVmemmap
            | Self::OtherAltmap { .. }
            | Self::FrameOutOfReach(_) => ErrorKind::Unsupported,
            Self::Busy { .. } | Self::Frozen { .. } | Self::TooManyFrozen { .. } => ErrorKind::Busy,
            Self::PieceMisaligned { .. }
            | Self::SplitsPage { .. }
            | Self::SplitsHugeLeaf { .. }
            | Self::SplitsSharedTable { .. } => ErrorKind::Misaligned,
            Self::PieceOutside { .. } => ErrorKind::OutOfRange,
            Self::NotOnline { .. } => ErrorKind::NotOnline,
            Self::OutOfFrames(_) => ErrorKind::OutOfFrames,
        }
    }
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherModel => OnlineError::OtherModel.fmt(f),
            Self::PieceMisaligned { piece, subsection } => OnlineError::PieceMisaligned {
                piece: *piece,
                subsection: *subsection,
            }
            .fmt(f),
            Self::PieceOutside { piece } => OnlineError::PieceOutside { piece: *piece }.fmt(f),
            Self::NotOnline { at } => {
                write!(f, "no descriptors of this vmemmap are mapped at {at}")
            }
            Self::OutOfFrames(error) => error.fmt(f),
            Self::FrameOutOfReach(error) => error.fmt(f),
            Self::SplitsHugeLeaf { at } => write!(
                f,
                "the huge leaf at {at} reaches across the end of the piece; take all of it offline, or give the page table's MMU a way to exchange entries in use"
            ),
            Self::SplitsSharedTable { at } => write!(
                f,
                "the shared table at {at} reaches across the end of the piece; take all that it maps offline, or give the page table's MMU a way to exchange entries in use"
            ),
            Self::OtherAltmap { reserved } => write!(
                f,
                "frames of the altmap {reserved} hold these descriptors; use the pagemap that they were brought online with"
            ),
            Self::SplitsPage { pages } => {
                write!(f, "pages go offline as a whole; these are in {pages}")
            }
            Self::Busy { first } => write!(
                f,
                "the page at frame {first} is in use: it has other references than the caller said, or is frozen; try again when they are given back"
            ),
            Self::Frozen { first } => write!(
                f,
                "the page at frame {first} is frozen by somebody else; try again when that is committed or dropped"
            ),
            Self::TooManyFrozen { frames } => write!(
                f,
                "too many parts of the memory near {frames} are frozen, each by itself; commit or drop some, or freeze more at once"
            ),
            Self::OtherVmemmap => {
                f.write_str("that memory was frozen by another vmemmap; commit it there")
            }
        }
    }
}

impl core::error::Error for OfflineError {}
