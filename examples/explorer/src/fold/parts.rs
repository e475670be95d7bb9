//! What of a region is folded: all of it but what an altmap keeps in base pages.

use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::DevPagemap;

/// The parts of a region's ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// What is folded, whole compound pages, in the order in which the ranges were named.
    pub(super) folded: Vec<PfnRange>,
    /// What stays base pages: reserved for the altmap, or before the first whole compound page
    /// behind that.
    pub(super) left_out: Option<PfnRange>,
}

impl Parts {
    /// The parts of `compound`.
    pub(super) fn of(compound: &DevPagemap<'_>) -> Self {
        let left_out = compound.base_pages();
        let folded = compound.ranges().iter().filter_map(|&range| {
            match left_out.filter(|part| range.contains_range(*part)) {
                Some(part) => range.split_at(part.frames()).1,
                None => Some(range),
            }
        });
        Self {
            folded: folded.collect(),
            left_out,
        }
    }

    /// How many compound pages of `order` are folded.
    pub(super) fn compound_pages(&self, order: Order) -> u64 {
        let pages = self.folded.iter().map(|part| part.frames() >> order.get());
        pages.sum()
    }
}
