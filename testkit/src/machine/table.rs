//! The page table of any backend, as the library is given it.

use super::inspected::Inspected;
use crate::erased::Erased;
use hosted::inspect::{Fingerprint, SeenEntry, SeenLeaf};
use mm_core::addr::{Order, VirtAddr, VirtRange};
use mm_core::paging::Leaf;

/// The page table of a [`TestMachine`](super::TestMachine), and what others have in it.
pub type TestTable<'m> = Erased<Box<dyn Inspected + 'm>>;

impl TestTable<'_> {
    /// See [`Inspect::leaf`](hosted::Inspect::leaf).
    pub fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf> {
        self.0.leaf(at)
    }

    /// See [`Inspect::scan`](hosted::Inspect::scan).
    pub fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry)) {
        self.0.scan(range, visit);
    }

    /// See [`Inspect::fingerprint`](hosted::Inspect::fingerprint).
    pub fn fingerprint(&self, range: VirtRange) -> Fingerprint {
        self.0.fingerprint(range)
    }

    /// See [`Inspect::flushes`](hosted::Inspect::flushes).
    pub fn flushes(&self) -> u64 {
        self.0.flushes()
    }

    /// See [`Inspect::map_foreign`](hosted::Inspect::map_foreign).
    pub fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool {
        self.0.map_foreign(at, leaf)
    }

    /// See [`Inspect::link_foreign_tables`](hosted::Inspect::link_foreign_tables).
    pub fn link_foreign_tables(&self, at: VirtAddr) -> bool {
        self.0.link_foreign_tables(at)
    }

    /// See [`Inspect::foreign_tables_are_linked`](hosted::Inspect::foreign_tables_are_linked).
    pub fn foreign_tables_are_linked(&self) -> bool {
        self.0.foreign_tables_are_linked()
    }

    /// See [`Inspect::reserve_entry`](hosted::Inspect::reserve_entry).
    pub fn reserve_entry(&self, at: VirtAddr, order: Order) -> bool {
        self.0.reserve_entry(at, order)
    }

    /// See [`Inspect::take_reserved`](hosted::Inspect::take_reserved).
    pub fn take_reserved(&self) -> bool {
        self.0.take_reserved()
    }

    /// See [`Inspect::unmap_foreign`](hosted::Inspect::unmap_foreign).
    pub fn unmap_foreign(&mut self, at: VirtAddr) {
        self.0.unmap_foreign(at);
    }

    /// See [`Inspect::prune`](hosted::Inspect::prune).
    pub fn prune(&self) {
        self.0.prune();
    }
}
