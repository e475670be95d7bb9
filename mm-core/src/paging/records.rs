//! What has to be remembered of a table tree from one call to the next.

use super::Leaf;
use crate::addr::{NodeId, Pfn};
use crate::frame::OutOfFrames;

/// What has to be remembered of a table tree from one call to the next: which leaf tables are
/// linked from several places, and how many tables there are on each node.
///
/// A [`PageTable`](super::PageTable) value remembers nothing of its own. Kernels make one each time
/// that they take their lock. So the records belong to the
/// [`Vmemmap`](crate::vmemmap::Vmemmap), and come with each call.
///
/// Whoever calls a method of `PageTable` without a vmemmap passes [`NoRecords`]. Page tables believe
/// what records answer. So it is a duty of the unsafe methods that they are always the same, and for
/// these calls alone.
pub trait TableRecords {
    /// The table whose entries are all `leaf`, if one was recorded and not removed since.
    fn shared_table(&self, leaf: Leaf) -> Option<Pfn>;

    /// Records that all entries of `table` are `leaf`. A record may be lost for want of memory, or
    /// in favour of a younger one. Then there will be a second table for the same leaf, which costs
    /// a frame and does no other harm.
    fn add_shared_table(&self, leaf: Leaf, table: Pfn);

    /// Removes the record of `table`, whose entries are all `leaf`. The table is about to be freed.
    fn remove_shared_table(&self, leaf: Leaf, table: Pfn);

    /// Counts `tables` that were allocated on `node`.
    fn add_tables(&self, node: NodeId, tables: u64);

    /// Counts `tables` that were freed on `node`.
    fn remove_tables(&self, node: NodeId, tables: u64);

    /// Counts more links to a shared table on `node`, which have so many `leaves` together.
    fn add_shared_link(&self, node: NodeId, leaves: u64);

    /// Counts links less to a shared table on `node`, which have so many `leaves` together.
    fn remove_shared_link(&self, node: NodeId, leaves: u64);

    /// Where the call takes tables from and gives them to, in place of the allocator. By default there is
    /// no such place.
    fn reserve(&self) -> Option<&dyn TableReserve> {
        None
    }
}

/// Tables that were [taken](super::Replace::take_spare_table) from a page table's allocator before a
/// call, so that the call allocates none. Each has one reference, the reserve's or the taker's.
pub trait TableReserve {
    /// A table, for `node` if there is one for it.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] where there is none at all.
    fn take(&self, node: NodeId) -> Result<Pfn, OutOfFrames>;

    /// Keeps `table`, which is linked nowhere, with its one reference.
    fn put(&self, table: Pfn);
}

/// Records that remember nothing: no table is shared, none is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecords;

impl TableRecords for NoRecords {
    fn shared_table(&self, _leaf: Leaf) -> Option<Pfn> {
        None
    }

    fn add_shared_table(&self, _leaf: Leaf, _table: Pfn) {}

    fn remove_shared_table(&self, _leaf: Leaf, _table: Pfn) {}

    fn add_tables(&self, _node: NodeId, _tables: u64) {}

    fn remove_tables(&self, _node: NodeId, _tables: u64) {}

    fn add_shared_link(&self, _node: NodeId, _leaves: u64) {}

    fn remove_shared_link(&self, _node: NodeId, _leaves: u64) {}
}
