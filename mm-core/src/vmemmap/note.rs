//! What was done otherwise than asked. Every operation that can fall back to something else reports
//! it.

use crate::addr::{NodeId, Order, PfnRange};
use crate::pagemap::{DevPagemap, HeadsFallback, TablesFallback, Tails, TailsFallback};
#[cfg(doc)]
use crate::paging::PageTable;
use core::fmt;

/// One thing that was done otherwise than asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Heads are not packed.
    Heads(HeadsFallback),
    /// Tails are not shared.
    Tails(TailsFallback),
    /// Tables are not shared.
    Tables(TablesFallback),
    /// Base pages map vmemmap that a huge leaf could have mapped. Either there was no free block,
    /// or a table is there.
    HugeLeavesUnavailable {
        /// How many leaves.
        leaves: u64,
    },
    /// The page table has no huge leaves.
    NoHugeLeaves,
    /// Base pages map vmemmap that huge leaves could have mapped: a fold may have to split them,
    /// and the allocator [cannot split](crate::frame::FrameAllocator::can_split) their blocks.
    BlocksStayWhole,
    /// The pieces are smaller than what a huge leaf describes, so base pages map all of the
    /// vmemmap.
    ///
    /// There is no such note if no range contains all that a huge leaf describes. Then pieces of
    /// any size have no place for one, and nothing is done otherwise than asked. With 64 KiB pages
    /// a huge leaf describes 512 GiB, aligned to as much.
    PiecesSmallerThanHugeLeaf,
    /// Frames between the reserved part of the altmap and the first compound page are used as base
    /// pages.
    AltmapGap {
        /// The frames.
        frames: PfnRange,
    },
    /// Tail frames that were to serve all compound pages of their order could not be registered, for
    /// want of a frame for that. Each serves the compound pages of one call, or of one piece.
    TailsNotRegistered {
        /// How many.
        tails: u64,
    },
    /// The allocator could not count the references of tail frames, so vmemmap pages that could have
    /// shared them have frames of their own. With [`SharedCounts`](crate::frame::SharedCounts) that is
    /// for want of words.
    TailsNotCounted {
        /// How many.
        tails: u64,
    },
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
            Self::Heads(fallback) => fallback.fmt(f),
            Self::Tails(fallback) => fallback.fmt(f),
            Self::Tables(fallback) => fallback.fmt(f),
            Self::HugeLeavesUnavailable { leaves } => write!(
                f,
                "{leaves} huge leaves of vmemmap were not possible (no free block, or a table is there); base pages instead"
            ),
            Self::NoHugeLeaves => {
                f.write_str("the page table has no huge leaves; base pages instead")
            }
            Self::BlocksStayWhole => f.write_str(
                "the allocator takes blocks back only whole, and a fold would split huge leaves; base pages instead",
            ),
            Self::PiecesSmallerThanHugeLeaf => f.write_str(
                "the pieces are smaller than what a huge leaf describes; base pages instead",
            ),
            Self::AltmapGap { frames } => write!(
                f,
                "{frames} lie between the altmap and the first compound page; populated as base pages"
            ),
            Self::TailsNotRegistered { tails } => write!(
                f,
                "{tails} tail frames could not be registered for want of a frame; other compound pages of the order get tail frames of their own"
            ),
            Self::TailsNotCounted { tails } => write!(
                f,
                "the allocator could not count the references of {tails} tail frames; vmemmap pages that could have shared them have frames of their own; give it room for more counts (`DevPagemap::shared_frames`)"
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

/// Whether vmemmap is to be mapped by huge leaves where that is possible.
fn wants_huge_leaves(pagemap: &DevPagemap<'_>) -> bool {
    pagemap.huge_leaves() && pagemap.tails().0 == Tails::None
}

/// Everything that was done otherwise than asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    heads: Option<HeadsFallback>,
    tails: Option<TailsFallback>,
    tables: Option<TablesFallback>,
    no_huge_leaves: bool,
    whole_blocks: bool,
    small_pieces: bool,
    unavailable_leaves: u64,
    gap: Option<PfnRange>,
    unregistered_tails: u64,
    uncounted_tails: u64,
    remote_frames: u64,
    remote: Option<(NodeId, NodeId)>,
}

impl Notes {
    /// What will be done otherwise than `pagemap` asks for, as far as that is known before the
    /// operation. The page table has this [`huge_leaf`](PageTable::huge_leaf), and [shares
    /// tables](PageTable::can_share_tables) or not.
    ///
    /// Whatever depends on free memory, or on mappings nearby, is not included.
    pub fn known_ahead(
        pagemap: &DevPagemap<'_>,
        huge_leaf: Option<Order>,
        can_share_tables: bool,
    ) -> Self {
        let too_small = |leaf| pagemap.pieces_are_smaller_than(leaf);
        Self {
            small_pieces: wants_huge_leaves(pagemap) && huge_leaf.is_some_and(too_small),
            gap: pagemap.altmap_gap(),
            ..Self::for_any_piece(pagemap, huge_leaf, can_share_tables)
        }
    }

    /// The same, without what depends on the size of the pieces.
    pub(super) fn for_any_piece(
        pagemap: &DevPagemap<'_>,
        huge_leaf: Option<Order>,
        can_share_tables: bool,
    ) -> Self {
        Self {
            heads: pagemap.heads().1,
            tails: pagemap.tails().1,
            tables: pagemap.tables_on(can_share_tables).1,
            no_huge_leaves: wants_huge_leaves(pagemap) && huge_leaf.is_none(),
            ..Self::default()
        }
    }

    /// There is no huge leaf because the allocator cannot split its block.
    pub(super) fn blocks_stay_whole(&mut self) {
        self.whole_blocks |= core::mem::take(&mut self.no_huge_leaves);
    }

    pub(super) fn huge_leaf_unavailable(&mut self) {
        self.unavailable_leaves += 1;
    }

    pub(super) fn tail_not_registered(&mut self) {
        self.unregistered_tails += 1;
    }

    pub(super) fn tail_not_counted(&mut self) {
        self.uncounted_tails += 1;
    }

    pub(super) fn altmap_gap(&mut self, frames: Option<PfnRange>) {
        self.gap = self.gap.or(frames);
    }

    pub(super) fn frames_from(&mut self, asked: NodeId, actual: NodeId, frames: u64) {
        if asked != actual {
            self.remote_frames += frames;
            self.remote.get_or_insert((asked, actual));
        }
    }

    /// Adds what another call has done otherwise.
    pub(super) fn add(&mut self, other: &Self) {
        self.heads = self.heads.or(other.heads);
        self.tails = self.tails.or(other.tails);
        self.tables = self.tables.or(other.tables);
        self.no_huge_leaves |= other.no_huge_leaves;
        self.whole_blocks |= other.whole_blocks;
        self.small_pieces |= other.small_pieces;
        self.unavailable_leaves += other.unavailable_leaves;
        self.unregistered_tails += other.unregistered_tails;
        self.uncounted_tails += other.uncounted_tails;
        self.remote_frames += other.remote_frames;
        self.remote = self.remote.or(other.remote);
        self.gap = self.gap.or(other.gap);
    }

    /// Whether everything was done as asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each thing that was not.
    pub fn iter(&self) -> impl Iterator<Item = Note> + use<> {
        let heads = self.heads.map(Note::Heads);
        let tails = self.tails.map(Note::Tails);
        let tables = self.tables.map(Note::Tables);
        let none = self.no_huge_leaves.then_some(Note::NoHugeLeaves);
        let whole = self.whole_blocks.then_some(Note::BlocksStayWhole);
        let small = self.small_pieces.then_some(Note::PiecesSmallerThanHugeLeaf);
        let unavailable = (self.unavailable_leaves > 0).then_some(Note::HugeLeavesUnavailable {
            leaves: self.unavailable_leaves,
        });
        let tails_alone = (self.unregistered_tails > 0).then_some(Note::TailsNotRegistered {
            tails: self.unregistered_tails,
        });
        let uncounted = (self.uncounted_tails > 0).then_some(Note::TailsNotCounted {
            tails: self.uncounted_tails,
        });
        let frames = self.remote_frames;
        let remote = self.remote.map(|(asked, first)| Note::RemoteFrames {
            frames,
            asked,
            first,
        });
        let gap = self.gap.map(|frames| Note::AltmapGap { frames });
        [
            heads,
            tails,
            tables,
            none,
            whole,
            small,
            unavailable,
            tails_alone,
            uncounted,
            gap,
            remote,
        ]
        .into_iter()
        .flatten()
    }
}
