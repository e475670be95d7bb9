//! What was done otherwise than asked. Never silent: every operation that can fall back reports it.

use crate::addr::NodeId;
use crate::pagemap::{TablesFallback, TailsFallback};
use core::fmt;

/// One thing that was done otherwise than asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Tails are not shared.
    Tails(TailsFallback),
    /// Tables are not shared.
    Tables(TablesFallback),
    /// Vmemmap that a huge leaf could have mapped is mapped by base pages: no block was free, or a
    /// table is there.
    HugeLeavesUnavailable {
        /// How many leaves.
        leaves: u64,
    },
    /// The page table has no huge leaves.
    NoHugeLeaves,
    /// The pieces are smaller than what a huge leaf describes, so base pages map all of the vmemmap.
    PiecesSmallerThanHugeLeaf,
    /// Frames for descriptors come from another node than the one asked for.
    RemoteFrames {
        /// How many.
        frames: u64,
        /// The node that was asked for.
        asked: NodeId,
        /// The node that the first of them came from.
        first: NodeId,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tails(fallback) => fallback.fmt(f),
            Self::Tables(fallback) => fallback.fmt(f),
            Self::HugeLeavesUnavailable { leaves } => write!(
                f,
                "{leaves} huge leaves of vmemmap were not possible (no free block, or a table is there); base pages instead"
            ),
            Self::NoHugeLeaves => {
                f.write_str("the page table has no huge leaves; base pages instead")
            }
            Self::PiecesSmallerThanHugeLeaf => f.write_str(
                "the pieces are smaller than what a huge leaf describes; base pages instead",
            ),
            Self::RemoteFrames {
                frames,
                asked,
                first,
            } => write!(
                f,
                "{frames} descriptor frames are not on node {asked} but remote, the first on node {first}"
            ),
        }
    }
}

/// All that was done otherwise than asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    tails: Option<TailsFallback>,
    tables: Option<TablesFallback>,
    no_huge_leaves: bool,
    small_pieces: bool,
    unavailable_leaves: u64,
    remote_frames: u64,
    remote: Option<(NodeId, NodeId)>,
}

impl Notes {
    pub(super) fn tails_not_shared(&mut self, fallback: Option<TailsFallback>) {
        self.tails = self.tails.or(fallback);
    }

    pub(super) fn tables_not_shared(&mut self, fallback: Option<TablesFallback>) {
        self.tables = self.tables.or(fallback);
    }

    pub(super) fn no_huge_leaves(&mut self) {
        self.no_huge_leaves = true;
    }

    pub(super) fn pieces_smaller_than_huge_leaf(&mut self) {
        self.small_pieces = true;
    }

    pub(super) fn huge_leaf_unavailable(&mut self) {
        self.unavailable_leaves += 1;
    }

    pub(super) fn frames_from(&mut self, asked: NodeId, actual: NodeId, frames: u64) {
        if asked != actual {
            self.remote_frames += frames;
            self.remote.get_or_insert((asked, actual));
        }
    }

    /// Whether everything was done as asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each thing that was not.
    pub fn iter(&self) -> impl Iterator<Item = Note> + use<> {
        let tails = self.tails.map(Note::Tails);
        let tables = self.tables.map(Note::Tables);
        let none = self.no_huge_leaves.then_some(Note::NoHugeLeaves);
        let small = self.small_pieces.then_some(Note::PiecesSmallerThanHugeLeaf);
        let unavailable = (self.unavailable_leaves > 0).then_some(Note::HugeLeavesUnavailable {
            leaves: self.unavailable_leaves,
        });
        let frames = self.remote_frames;
        let remote = self.remote.map(|(asked, first)| Note::RemoteFrames {
            frames,
            asked,
            first,
        });
        [tails, tables, none, small, unavailable, remote]
            .into_iter()
            .flatten()
    }
}
