//! What all that is online costs, in closed form.

use super::Model;
use std::collections::BTreeSet;

/// Frames, and entries that need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) struct Costs {
    pub(in crate::script) descriptors: u64,
    pub(in crate::script) tails: u64,
    pub(in crate::script) of_altmaps: u64,
    pub(in crate::script) tables: u64,
    pub(in crate::script) marks: u64,
    pub(in crate::script) online_map: u64,
    pub(in crate::script) reserve: u64,
    pub(in crate::script) reused: u64,
}

impl Costs {
    /// Frames of RAM.
    pub(in crate::script) fn ram(&self) -> u64 {
        let descriptors = self.descriptors - self.of_altmaps;
        descriptors + self.tables + self.marks + self.online_map + self.reserve
    }
}

impl Model {
    pub(in crate::script) fn costs(&self) -> Costs {
        let tails = self.tails.len() as u64;
        let of_altmaps = self.tails.keys().filter(|frame| self.is_device(**frame));
        Costs {
            descriptors: self.own + tails,
            tails,
            of_altmaps: self.own_of_altmaps + of_altmaps.count() as u64,
            tables: self.tables.leaf_tables() + self.tables.upper_tables(),
            marks: self.mark_frames(),
            online_map: self.found_map_frames(),
            reserve: self.reserve.frames + self.reserve.tables,
            reused: self.mapped - self.own - tails,
        }
    }

    /// How many pages are this library's.
    pub(in crate::script) fn mapped_pages(&self) -> u64 {
        self.mapped
    }

    /// A frame holds the marks of as many frames as half a page has bits.
    fn mark_frames(&self) -> u64 {
        let bits = self.scale.page_bytes() * 8 / 2;
        let blocks: BTreeSet<u64> = self.marks.iter().map(|frame| frame / bits).collect();
        blocks.len() as u64
    }
}
