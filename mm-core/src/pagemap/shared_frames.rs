//! How many frames of RAM are mapped by several entries, for those who count only these.

use super::{DevPagemap, Tables, Tails};
use crate::addr::PfnRange;
use crate::frame::MOST_SHARED_REFERENCES;

impl DevPagemap<'_> {
    /// How many frames of RAM have more than one reference while this is online or folded, at most: tail
    /// frames, and leaf tables that are linked several times. [`SharedCounts`](crate::frame::SharedCounts)
    /// needs room for them.
    ///
    /// | tails | private tables | shared tables |
    /// |---|---|---|
    /// | none | 0 | 0 |
    /// | per compound page | 1 for each compound page, and 0 if they are in an altmap | the same, and 1 for each compound page |
    /// | per order | 1, and 1 more for each 2^24 - 1 vmemmap pages of tails | the same twice |
    ///
    /// Where memory is too short to remember the tails of an order, each call may make one more.
    pub fn shared_frames(&self) -> u64 {
        let total: u64 = self.ranges().iter().map(|range| range.frames()).sum();
        let in_base_pages = self.base_pages().map_or(0, PfnRange::frames);
        let order = self.geometry.order();
        let compound = total.saturating_sub(in_base_pages) >> order.get();
        let shares_tables = u64::from(self.tables_on(true).0 == Tables::Shared);
        match self.tails().0 {
            Tails::None => 0,
            Tails::PerCompound => {
                let tails = u64::from(self.altmap.is_none());
                compound.saturating_mul(tails + shares_tables)
            }
            Tails::PerOrder => {
                let pages = compound.saturating_mul(self.model.vmemmap_pages(order));
                let tails = pages.div_ceil(MOST_SHARED_REFERENCES);
                tails.saturating_mul(1 + shares_tables)
            }
        }
    }
}
