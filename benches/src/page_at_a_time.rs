//! The way that everybody starts with: a walk from the root for each page.

use mm_core::addr::{Granule, NodeId, Order, VirtAddr, VirtRange};
use mm_core::paging::{Flush, Leaf, Lookup, MapError, Mapping, PageTable, Refuse, TableRecords};

/// A page table without its methods for runs.
#[derive(Debug)]
pub struct PageAtATime<P>(pub P);

// SAFETY: 1 to 5 hold because they hold for the page table inside, and for the default bodies over
// it.
unsafe impl<P: PageTable> PageTable for PageAtATime<P> {
    type Replace = Refuse;

    fn granule(&self) -> Granule {
        self.0.granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.0.huge_leaf()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        self.0.lookup(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.map_leaf(at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        self.0.flush(obligation, records);
    }

    fn entries_added(&mut self, range: VirtRange) {
        self.0.entries_added(range);
    }
}
