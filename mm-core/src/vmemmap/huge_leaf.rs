//! Whether vmemmap is mapped by huge leaves.

use super::Vmemmap;
use super::note::Notes;
use crate::addr::{Granule, Order, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::{InUse, PageTable, Visit};
use crate::readers::ReadersOf;
use core::ops::ControlFlow;

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

/// Whether a huge leaf of the order `leaf` may come back somewhere in `range`, all of which is online: something
/// smaller maps all that it would map, in a table of this library's.
pub(super) fn has_room_for_leaf<P: PageTable>(
    table: &P,
    range: VirtRange,
    leaf: Order,
    granule: Granule,
) -> bool {
    let shift = granule.shift() + u32::from(leaf.get());
    let (start, end) = (range.start(), range.last().checked_add(1));
    let first = match start.align_down(shift) {
        first if first == start => Some(first),
        first => first.checked_add(1 << shift),
    };
    let last = match end {
        Some(end) => end.align_down(shift).get().checked_sub(1),
        // It ends where addresses end.
        None => Some(range.last().get()),
    };
    let (Some(first), Some(last)) = (first, last) else {
        return false;
    };
    let Some(whole) = VirtRange::between(first, VirtAddr::new(last)) else {
        return false;
    };
    let mut foreign = None;
    let stopped = table.visit(whole, &mut |visit| match visit {
        Visit::Table {
            at,
            leaf_table: true,
            owned: false,
            ..
        } => {
            foreign = Some(at.align_down(shift));
            ControlFlow::Continue(())
        }
        Visit::Table { .. } => ControlFlow::Continue(()),
        Visit::Leaves { at, run }
            if run.leaf.block.order() >= leaf || foreign == Some(at.align_down(shift)) =>
        {
            ControlFlow::Continue(())
        }
        Visit::Leaves { .. } | Visit::SharedTable { .. } => ControlFlow::Break(()),
    });
    stopped.is_break()
}
