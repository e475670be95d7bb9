//! Records for calls that are not a vmemmap's.

use core::cell::Cell;
use mm_core::addr::{NodeId, Pfn};
use mm_core::paging::{Leaf, TableRecords};

/// Remembers one shared table, and counts tables on all nodes together.
#[derive(Debug, Default)]
pub(crate) struct Records {
    shared: Cell<Option<(Leaf, Pfn)>>,
    tables: Cell<u64>,
    links: Cell<u64>,
}

impl TableRecords for Records {
    fn shared_table(&self, leaf: Leaf) -> Option<Pfn> {
        let known = self.shared.get().filter(|(known, _)| *known == leaf);
        known.map(|(_, table)| table)
    }

    fn add_shared_table(&self, leaf: Leaf, table: Pfn) {
        self.shared.set(Some((leaf, table)));
    }

    fn remove_shared_table(&self, leaf: Leaf, table: Pfn) {
        if self.shared.get() == Some((leaf, table)) {
            self.shared.set(None);
        }
    }

    fn add_tables(&self, _node: NodeId, tables: u64) {
        self.tables.set(self.tables.get().saturating_add(tables));
    }

    fn remove_tables(&self, _node: NodeId, tables: u64) {
        self.tables.set(self.tables.get().saturating_sub(tables));
    }

    fn add_shared_link(&self, _node: NodeId, _leaves: u64) {
        self.links.set(self.links.get().saturating_add(1));
    }

    fn remove_shared_link(&self, _node: NodeId, _leaves: u64) {
        self.links.set(self.links.get().saturating_sub(1));
    }
}
