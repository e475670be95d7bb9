//! What the vmemmap costs now, node by node. Every operation keeps the figures up to date.
//!
//! The figures follow from the rule of ownership. All frames and references pass through the
//! [pool](super::frame_pool), or through the page table's own tables. They are counted there, in
//! groups. [`Vmemmap::audit`] counts them again from the entries.

use super::Vmemmap;
use super::table_records::TableFigures;
use crate::addr::{NodeId, Pfn};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, Words};
use crate::paging::Role;
use crate::readers::ReadersOf;
use core::fmt;

/// What the vmemmap costs on one node, or on all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Frames that hold descriptors, those of the next two included, and of packed heads.
    pub descriptor_frames: u64,
    /// Frames that hold nothing but tails, or stubs, and are mapped as such.
    pub tail_frames: u64,
    /// Frames that hold descriptors and are an altmap's.
    pub altmap_frames: u64,
    /// Frames of altmaps that hold the counts of these.
    pub count_frames: u64,
    /// Page tables of the vmemmap that the page table took from its allocator.
    pub table_frames: u64,
    /// Frames that hold marks of single frames.
    pub mark_frames: u64,
    /// Frames of the map by which [readers](crate::readers) tell what is online.
    pub online_map_frames: u64,
    /// Frames that hold what the library has to remember, beyond what has room in the
    /// [`Vmemmap`] itself: shared tails and tables, and the figures of many nodes.
    pub record_frames: u64,
    /// Frames in the [reserve](Vmemmap::reserve), tables and huge leaves included.
    pub reserve_frames: u64,
    /// Vmemmap pages beyond the first one that are mapped to the same frame. Each of them saves a
    /// frame. The entries of a shared leaf table count on the table's node, once for every link
    /// after the first.
    pub reused_entries: u64,
}

impl NodeStats {
    /// Frames of RAM.
    pub const fn ram_frames(&self) -> u64 {
        (self.descriptor_frames
            + self.table_frames
            + self.mark_frames
            + self.online_map_frames
            + self.record_frames
            + self.reserve_frames)
            .saturating_sub(self.altmap_frames)
    }

    pub(super) const fn plus(&self, other: &Self) -> Self {
        Self {
            descriptor_frames: self.descriptor_frames + other.descriptor_frames,
            tail_frames: self.tail_frames + other.tail_frames,
            altmap_frames: self.altmap_frames + other.altmap_frames,
            count_frames: self.count_frames + other.count_frames,
            table_frames: self.table_frames + other.table_frames,
            mark_frames: self.mark_frames + other.mark_frames,
            online_map_frames: self.online_map_frames + other.online_map_frames,
            record_frames: self.record_frames + other.record_frames,
            reserve_frames: self.reserve_frames + other.reserve_frames,
            reused_entries: self.reused_entries + other.reused_entries,
        }
    }
}

impl fmt::Display for NodeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptor frames ({} of tails, {} of altmaps, counted in {}), {} tables, {} of marks, {} of the online map, {} of records, {} in reserve, {} reused entries",
            self.descriptor_frames,
            self.tail_frames,
            self.altmap_frames,
            self.count_frames,
            self.table_frames,
            self.mark_frames,
            self.online_map_frames,
            self.record_frames,
            self.reserve_frames,
            self.reused_entries
        )
    }
}

/// How many nodes are looked at together.
pub(super) const NODES: usize = 8;

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) node: NodeId,
    pub(super) altmap: bool,
}

/// The figures of one node, without tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct NodeCounters {
    descriptor_frames: u64,
    tail_frames: u64,
    altmap_frames: u64,
    count_frames: u64,
    mark_frames: u64,
    online_map_frames: u64,
    reused_entries: u64,
}

// SAFETY: 1: seven words.
unsafe impl Words for NodeCounters {
    const ZERO: Self = Self {
        descriptor_frames: 0,
        tail_frames: 0,
        altmap_frames: 0,
        count_frames: 0,
        mark_frames: 0,
        online_map_frames: 0,
        reused_entries: 0,
    };
}

impl NodeCounters {
    /// `frames` were taken for descriptors.
    pub(super) fn add_frames(&mut self, origin: Origin, frames: u64) {
        self.descriptor_frames += frames;
        self.altmap_frames += if origin.altmap { frames } else { 0 };
    }

    /// `frames`, whose last entries had this role, were freed.
    pub(super) fn remove_frames(&mut self, origin: Origin, frames: u64, role: Role) {
        let less = |figure: &mut u64| *figure = figure.saturating_sub(frames);
        less(&mut self.descriptor_frames);
        if origin.altmap {
            less(&mut self.altmap_frames);
        }
        if role == Role::Tail {
            less(&mut self.tail_frames);
        }
    }

    /// An altmap is in use from now on, with so many frames of counts.
    pub(super) fn add_count_frames(&mut self, frames: u64) {
        self.count_frames += frames;
    }

    /// An altmap with so many frames of counts is in use no more.
    pub(super) fn remove_count_frames(&mut self, frames: u64) {
        self.count_frames = self.count_frames.saturating_sub(frames);
    }

    /// So many frames hold only tails from now on.
    pub(super) fn add_tails(&mut self, frames: u64) {
        self.tail_frames += frames;
    }

    /// A frame that held only tails belongs to one vmemmap page from now on.
    pub(super) fn remove_tail(&mut self) {
        self.tail_frames = self.tail_frames.saturating_sub(1);
    }

    /// `entries` more point at frames that other entries point at.
    pub(super) fn add_reused(&mut self, entries: u64) {
        self.reused_entries += entries;
    }

    /// `entries` fewer point at frames that other entries point at.
    pub(super) fn remove_reused(&mut self, entries: u64) {
        self.reused_entries = self.reused_entries.saturating_sub(entries);
    }

    /// A frame was taken for marks.
    pub(super) fn add_mark_frame(&mut self) {
        self.mark_frames += 1;
    }

    /// A frame of marks was freed.
    pub(super) fn remove_mark_frame(&mut self) {
        self.mark_frames = self.mark_frames.saturating_sub(1);
    }

    /// A frame was taken for the online map.
    pub(super) fn add_online_map_frame(&mut self) {
        self.online_map_frames += 1;
    }

    /// A frame of the online map was freed.
    pub(super) fn remove_online_map_frame(&mut self) {
        self.online_map_frames = self.online_map_frames.saturating_sub(1);
    }

    /// The figures, with those of tables.
    const fn with(&self, tables: &TableFigures) -> NodeStats {
        NodeStats {
            descriptor_frames: self.descriptor_frames,
            tail_frames: self.tail_frames,
            altmap_frames: self.altmap_frames,
            count_frames: self.count_frames,
            table_frames: tables.tables,
            mark_frames: self.mark_frames,
            online_map_frames: self.online_map_frames,
            record_frames: 0,
            reserve_frames: 0,
            reused_entries: self.reused_entries + tables.reused_entries,
        }
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// What the vmemmap costs now, on all nodes together. This reads figures, and walks nothing but
    /// them.
    ///
    /// Tables count if the page table [has them counted](crate::paging::PageTable::COUNTS_TABLES).
    pub fn stats(&self) -> NodeStats {
        let mut all = self.stats_of_other_nodes();
        self.for_each_node(&mut |_, row| all = all.plus(&row));
        all
    }

    /// What it costs on `node`.
    pub fn stats_on(&self, node: NodeId) -> NodeStats {
        let memory = self.memory();
        let counters = self.pool_state.counters.row(node, memory);
        let tables = self.table_records.figures.row(node, memory);
        let mut row = counters
            .unwrap_or_default()
            .with(&tables.unwrap_or_default());
        self.for_each_record_frame(&mut |frame| {
            row.record_frames += u64::from(self.frames.node_of(frame) == node);
        });
        row.reserve_frames = self.reserve_frames_on(node);
        row
    }

    /// What it costs on nodes for whose figures there was no memory, together. Mostly nothing.
    pub fn stats_of_other_nodes(&self) -> NodeStats {
        let tables = self.table_records.figures.others();
        self.pool_state.counters.others().with(tables)
    }

    /// Shows what it costs on each node on which it costs anything, in the order of nodes.
    pub fn for_each_node(&self, visit: &mut dyn FnMut(NodeId, NodeStats)) {
        let mut next = Some(NodeId::new(0));
        while let Some(from) = next {
            let nodes = self.lowest_nodes(from);
            for node in nodes.iter().flatten() {
                visit(*node, self.stats_on(*node));
            }
            let last = nodes.last().copied().flatten();
            next = last.and_then(|last| last.number().checked_add(1).map(NodeId::new));
        }
    }

    /// The lowest nodes from `from` on that have figures, as many as have room, in their order.
    pub(super) fn lowest_nodes(&self, from: NodeId) -> [Option<NodeId>; NODES] {
        let memory = self.memory();
        let mut lowest: [Option<NodeId>; NODES] = [None; NODES];
        let mut offer = |node: NodeId| {
            if node < from || lowest.contains(&Some(node)) {
                return;
            }
            // Each of the higher ones moves up by one place, and the highest out.
            let mut moving = Some(node);
            for place in &mut lowest {
                if place.is_none_or(|placed| moving.is_some_and(|moving| moving < placed)) {
                    core::mem::swap(place, &mut moving);
                }
                if moving.is_none() {
                    break;
                }
            }
        };
        self.pool_state.counters.for_each_node(memory, &mut offer);
        self.table_records.figures.for_each_node(memory, &mut offer);
        self.for_each_record_frame(&mut |frame| offer(self.frames.node_of(frame)));
        self.for_each_reserve_block(&mut |first, _| offer(self.frames.node_of(first)));
        lowest
    }

    /// Shows each frame that holds what has to be remembered.
    pub(super) fn for_each_record_frame(&self, visit: &mut dyn FnMut(Pfn)) {
        let memory = self.memory();
        self.pool_state.for_each_frame(memory, visit);
        self.table_records.for_each_frame(memory, visit);
    }
}
