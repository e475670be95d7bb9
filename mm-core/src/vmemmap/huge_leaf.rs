//! Whether vmemmap is mapped by huge leaves.

use super::Vmemmap;
use super::note::Notes;
use crate::addr::Order;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{InUse, PageTable};
use crate::readers::ReadersOf;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The huge leaf of `table`, if blocks for it can be had. A leaf in use that can be split may
    /// be: then its block has to be one that can be split, too.
    pub(super) fn huge_leaf_of<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
    ) -> Option<Order> {
        let can_split = match pagemap.altmap() {
            Some(altmap) => altmap.can_split(),
            None => self.frames.can_split(),
        };
        let leaf = table.huge_leaf();
        leaf.filter(|_| can_split || !table.resizes_leaves())
    }

    /// Says in `notes` why there is no huge leaf, if it is the allocator that has no use for them.
    pub(super) fn note_whole_blocks<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        notes: &mut Notes,
    ) {
        if table.huge_leaf().is_some() && self.huge_leaf_of(table, pagemap).is_none() {
            notes.blocks_stay_whole();
        }
    }
}
