//! What an audit answers.

use crate::addr::{NodeId, Pfn, VirtAddr};
use crate::vmemmap::stats::NodeStats;
use core::fmt;

/// What an audit has counted: what this library has mapped in the vmemmap, and what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Distinct frames that hold descriptors, those of packed heads included.
    pub descriptor_frames: u64,
    /// Distinct frames that hold [packed heads](crate::pagemap::Heads::Packed). Each of them is a page that is
    /// mapped in addition to the vmemmap.
    pub head_frames: u64,
    /// Distinct tables whose entries are leaves of base pages.
    pub leaf_tables: u64,
    /// Distinct tables between the root and the leaf tables; the root is not counted.
    pub upper_tables: u64,
    /// Pages that are mapped, of the vmemmap and of packed heads.
    pub mapped_pages: u64,
    /// Frames that hold marks of single frames.
    pub mark_frames: u64,
    /// Frames of the map by which [readers](crate::readers) tell what is online.
    pub online_map_frames: u64,
    /// Frames that hold what the library has to remember; see
    /// [`NodeStats::record_frames`](crate::vmemmap::NodeStats::record_frames).
    pub record_frames: u64,
    /// Frames in the [reserve](crate::vmemmap::Vmemmap::reserve).
    pub reserve_frames: u64,
    /// Frames of altmaps in use that hold their counts. They are never handed out, and no entry
    /// points at them.
    pub count_frames: u64,
}

impl AuditReport {
    /// Vmemmap pages beyond the first one that are mapped to the same frame.
    pub const fn reused_entries(&self) -> u64 {
        self.mapped_pages.saturating_sub(self.descriptor_frames)
    }

    /// All frames: of descriptors, tables, marks, the online map, records, the reserve and counts.
    pub const fn frames(&self) -> u64 {
        self.allocated() + self.count_frames
    }

    /// All frames that allocators have handed out: all but those of counts.
    pub const fn allocated(&self) -> u64 {
        self.descriptor_frames
            + self.leaf_tables
            + self.upper_tables
            + self.mark_frames
            + self.online_map_frames
            + self.record_frames
            + self.reserve_frames
    }
}

/// What an audit has found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The entries that point at a block and the references that it has are not the same number.
    Count {
        /// The block's first frame.
        frame: Pfn,
        /// The address of the first entry that points at it.
        at: VirtAddr,
        /// How many entries do.
        entries: u64,
        /// How many references the allocator counts.
        references: u64,
    },
    /// An entry points at a frame that no allocator knows.
    Unknown {
        /// The frame.
        frame: Pfn,
        /// The address of the entry.
        at: VirtAddr,
    },
    /// More frames are allocated than entries reach.
    Leaked {
        /// How many frames the allocators have out.
        outstanding: u64,
        /// How many the entries reach.
        reached: u64,
    },
    /// [`Vmemmap::stats`](crate::vmemmap::Vmemmap::stats) says other than what was counted.
    Stats {
        /// The node. `None`: all nodes together for whose figures there was no memory.
        node: Option<NodeId>,
        /// What was counted.
        counted: NodeStats,
        /// What it says.
        kept: NodeStats,
    },
    /// The scratch memory has room for so few frames at a time that the audit would not end. A slot
    /// for each frame that is out is enough.
    NoScratch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count {
                frame,
                at,
                entries,
                references,
            } => write!(
                f,
                "frame {frame}, first mapped at {at}, has {references} references for {entries} entries"
            ),
            Self::Unknown { frame, at } => write!(
                f,
                "the entry at {at} points at frame {frame}, which no allocator knows"
            ),
            Self::Leaked {
                outstanding,
                reached,
            } => write!(
                f,
                "{outstanding} frames are out and entries reach {reached}"
            ),
            Self::Stats {
                node,
                counted,
                kept,
            } => {
                match node {
                    Some(node) => write!(f, "the stats of node {node}")?,
                    None => f.write_str("the stats of other nodes")?,
                }
                write!(f, " say {kept}; counted: {counted}")
            }
            Self::NoScratch => f.write_str(
                "too little scratch memory; a slot for each frame that is out is enough",
            ),
        }
    }
}

impl core::error::Error for Finding {}
