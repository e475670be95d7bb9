//! What the vmemmap costs now, node by node. Every operation keeps the figures up to date.
//!
//! The figures follow from the rule of ownership. All frames and references pass through the
//! [pool](super::frame_pool), or through the page table's own tables. They are counted there, in
//! groups. [`Vmemmap::audit`] counts them again from the entries.

use super::Vmemmap;
use crate::addr::NodeId;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, PerNode};
use crate::paging::{PageTable, Role, TableStats};
use core::fmt;

/// What the vmemmap costs on one node, or on all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Frames that hold descriptors, those of the next two included.
    pub descriptor_frames: u64,
    /// Frames that hold nothing but tails and are mapped as such.
    pub tail_frames: u64,
    /// Frames that hold descriptors and are an altmap's.
    pub altmap_frames: u64,
    /// Frames of altmaps that hold the counts of these.
    pub count_frames: u64,
    /// Page tables of the vmemmap that the page table took from its allocator.
    pub table_frames: u64,
    /// Frames that hold marks of single frames.
    pub mark_frames: u64,
    /// Vmemmap pages beyond the first one that are mapped to the same frame. Each of them saves a
    /// frame. The entries of a shared leaf table count on the table's node, once for every link
    /// after the first.
    pub reused_entries: u64,
}

impl NodeStats {
    /// Frames of RAM.
    pub const fn ram_frames(&self) -> u64 {
        (self.descriptor_frames + self.table_frames + self.mark_frames)
            .saturating_sub(self.altmap_frames)
    }

    const fn plus(&self, other: &Self) -> Self {
        Self {
            descriptor_frames: self.descriptor_frames + other.descriptor_frames,
            tail_frames: self.tail_frames + other.tail_frames,
            altmap_frames: self.altmap_frames + other.altmap_frames,
            count_frames: self.count_frames + other.count_frames,
            table_frames: self.table_frames + other.table_frames,
            mark_frames: self.mark_frames + other.mark_frames,
            reused_entries: self.reused_entries + other.reused_entries,
        }
    }
}

impl fmt::Display for NodeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptor frames ({} of tails, {} of altmaps, counted in {}), {} tables, {} of marks, {} reused entries",
            self.descriptor_frames,
            self.tail_frames,
            self.altmap_frames,
            self.count_frames,
            self.table_frames,
            self.mark_frames,
            self.reused_entries
        )
    }
}

/// What the vmemmap costs, by the node that the frames are on. See [`PerNode`] for how many nodes
/// are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub(super) rows: PerNode<NodeStats>,
}

impl Stats {
    /// What it costs on `node`.
    pub fn node(&self, node: NodeId) -> NodeStats {
        *self.rows.row(node)
    }

    /// The nodes on which it costs anything.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeStats)> {
        let costs = |(_, row): &(NodeId, &NodeStats)| **row != NodeStats::default();
        self.rows
            .iter()
            .filter(costs)
            .map(|(node, row)| (node, *row))
    }

    /// What it costs on all of them.
    pub fn total(&self) -> NodeStats {
        let none = NodeStats::default();
        self.rows.iter().fold(none, |all, (_, row)| all.plus(row))
    }
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) node: NodeId,
    pub(super) altmap: bool,
}

/// The figures of one node, without tables. The page table counts these.
#[derive(Clone, Copy, Debug, Default)]
struct NodeCounters {
    descriptor_frames: u64,
    tail_frames: u64,
    altmap_frames: u64,
    count_frames: u64,
    mark_frames: u64,
    reused_entries: u64,
}

/// The figures of a vmemmap, without tables.
#[derive(Debug, Default)]
pub(super) struct Counters {
    rows: PerNode<NodeCounters>,
}

impl Counters {
    /// The figures of `node`, with those of the page table's `tables`.
    pub(super) fn node(&self, node: NodeId, tables: Option<&PerNode<TableStats>>) -> NodeStats {
        let row = self.rows.row(node);
        let tables = tables.map(|tables| *tables.row(node)).unwrap_or_default();
        NodeStats {
            descriptor_frames: row.descriptor_frames,
            tail_frames: row.tail_frames,
            altmap_frames: row.altmap_frames,
            count_frames: row.count_frames,
            table_frames: tables.tables,
            mark_frames: row.mark_frames,
            reused_entries: row.reused_entries + tables.reused_entries,
        }
    }

    /// `frames` were taken for descriptors.
    pub(super) fn add_frames(&mut self, origin: Origin, frames: u64) {
        let row = self.rows.row_mut(origin.node);
        row.descriptor_frames += frames;
        row.altmap_frames += if origin.altmap { frames } else { 0 };
    }

    /// `frames`, whose last entries had this role, were freed.
    pub(super) fn remove_frames(&mut self, origin: Origin, frames: u64, role: Role) {
        let row = self.rows.row_mut(origin.node);
        let less = |figure: &mut u64| *figure = figure.saturating_sub(frames);
        less(&mut row.descriptor_frames);
        if origin.altmap {
            less(&mut row.altmap_frames);
        }
        if role == Role::Tail {
            less(&mut row.tail_frames);
        }
    }

    /// An altmap is in use from now on, with so many frames of counts.
    pub(super) fn add_count_frames(&mut self, node: NodeId, frames: u64) {
        self.rows.row_mut(node).count_frames += frames;
    }

    /// An altmap with so many frames of counts is in use no more.
    pub(super) fn remove_count_frames(&mut self, node: NodeId, frames: u64) {
        let counts = &mut self.rows.row_mut(node).count_frames;
        *counts = counts.saturating_sub(frames);
    }

    /// A frame holds only tails from now on.
    pub(super) fn add_tail(&mut self, node: NodeId) {
        self.rows.row_mut(node).tail_frames += 1;
    }

    /// A frame that held only tails belongs to one vmemmap page from now on.
    pub(super) fn remove_tail(&mut self, node: NodeId) {
        let tails = &mut self.rows.row_mut(node).tail_frames;
        *tails = tails.saturating_sub(1);
    }

    /// `entries` more point at frames that other entries point at.
    pub(super) fn add_reused(&mut self, node: NodeId, entries: u64) {
        self.rows.row_mut(node).reused_entries += entries;
    }

    /// `entries` fewer point at frames that other entries point at.
    pub(super) fn remove_reused(&mut self, node: NodeId, entries: u64) {
        let reused = &mut self.rows.row_mut(node).reused_entries;
        *reused = reused.saturating_sub(entries);
    }

    /// A frame was taken for marks.
    pub(super) fn add_mark_frame(&mut self, node: NodeId) {
        self.rows.row_mut(node).mark_frames += 1;
    }

    /// A frame of marks was freed.
    pub(super) fn remove_mark_frame(&mut self, node: NodeId) {
        let marks = &mut self.rows.row_mut(node).mark_frames;
        *marks = marks.saturating_sub(1);
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// What the vmemmap costs now, node by node. This reads counters and walks nothing.
    ///
    /// Tables are those that `table` has made since `table` itself was made. The figure is zero if
    /// it [does not count them](PageTable::table_stats).
    pub fn stats<P: PageTable>(&self, table: &P) -> Stats {
        let tables = table.table_stats();
        let mut stats = Stats::default();
        for (node, row) in stats.rows.iter_mut() {
            *row = self.pool_state.counters.node(node, tables.as_ref());
        }
        stats
    }
}
