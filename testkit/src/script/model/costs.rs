//! What all that is online costs, in closed form.

use super::{Kind, Model, Page};
use std::collections::BTreeSet;

/// How many tail frames are remembered without a frame for that.
const INLINE: usize = 16;

/// Frames, and entries that need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) struct Costs {
    pub(in crate::script) descriptors: u64,
    pub(in crate::script) tails: u64,
    pub(in crate::script) of_altmaps: u64,
    pub(in crate::script) tables: u64,
    pub(in crate::script) marks: u64,
    pub(in crate::script) online_map: u64,
    pub(in crate::script) records: u64,
    pub(in crate::script) reserve: u64,
    pub(in crate::script) reused: u64,
}

impl Costs {
    /// Frames of RAM.
    pub(in crate::script) fn ram(&self) -> u64 {
        let descriptors = self.descriptors - self.of_altmaps;
        let others = self.marks + self.online_map + self.records + self.reserve;
        descriptors + self.tables + others
    }
}

impl Model {
    pub(in crate::script) fn costs(&self) -> Costs {
        let tails = self.tails.len() as u64;
        let of_altmaps = self.tails.keys().filter(|frame| self.is_device(**frame));
        Costs {
            descriptors: self.own + tails + self.places_mapped(),
            tails,
            of_altmaps: self.own_of_altmaps + of_altmaps.count() as u64,
            tables: self.tables.leaf_tables() + self.tables.upper_tables(),
            marks: self.mark_frames(),
            online_map: self.found_map_frames(),
            records: self.records,
            reserve: self.reserve.frames + self.reserve.tables,
            reused: self.mapped - self.own - tails,
        }
    }

    /// Whether so many frames may remember tails and shared tables: none where few are shared, and one for each of the
    /// three lists otherwise.
    pub(in crate::script) fn can_have_records(&self) -> bool {
        let is_of_all = |page: &Page| matches!(page.kind, Kind::Stub | Kind::Tail { of_all: true });
        let are_many = || {
            let shared = self.pages.iter().flatten().filter(|page| is_of_all(page));
            let frames: BTreeSet<u64> = shared.map(|page| page.frame).collect();
            frames.len() > INLINE
        };
        self.records == 0 || self.records <= 3 && are_many()
    }

    /// How many pages are this library's, those of places of heads among them.
    pub(in crate::script) fn mapped_pages(&self) -> u64 {
        self.mapped + self.places_mapped()
    }

    /// A frame holds the marks of as many frames as half a page has bits.
    fn mark_frames(&self) -> u64 {
        let bits = self.scale.page_bytes() * 8 / 2;
        let blocks: BTreeSet<u64> = self.marks.iter().map(|frame| frame / bits).collect();
        blocks.len() as u64
    }
}
