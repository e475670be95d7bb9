//! A page table whose flushes are watched.

use super::Watch;
use super::runs::{WatchedExchange, WatchedSink, WatchedSource};
use any_table::{AsInside, Borrowed, Erased};
use core::ops::ControlFlow;
use mm_core::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Exchange, Flush, InUse, Leaf, Lookup, MapError, MapStopped, Mapping, PageTable, Replace,
    ReplaceError, Replaced, Replacement, Run, RunSink, RunSource, TableRecords, Visit,
};

/// A page table, and somebody who looks by a reader's handle after each of its flushes, before each run
/// that it enters, and before and after each answer about an entry in use.
pub(crate) struct WatchedTable<'w> {
    table: Erased<Borrowed<'w>>,
    watch: &'w Watch<'w>,
}

impl<'w> WatchedTable<'w> {
    /// `table`, watched; `None` for a kind of page table that cannot be passed on without its type.
    pub(crate) fn new<T: PageTable>(table: &'w mut T, watch: &'w Watch<'w>) -> Option<Self> {
        Erased::try_of(table).map(|table| Self { table, watch })
    }
}

// SAFETY: each method is that of the page table inside, whose constants are these.
unsafe impl PageTable for WatchedTable<'_> {
    const COUNTS_TABLES: bool = true;

    type Replace = Watched;

    fn granule(&self) -> Granule {
        self.table.granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.table.huge_leaf()
    }

    fn last_frame(&self) -> Pfn {
        self.table.last_frame()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        self.table.lookup(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.map_leaf(at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        self.watch.look();
        self.table.flush(obligation, records);
        self.watch.look();
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.table.visit(range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        self.table.first_in_use(range)
    }

    fn entries_added(&mut self, range: VirtRange) {
        self.table.entries_added(range);
    }

    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<S::Error>> {
        let watch = self.watch;
        let mut watched = WatchedSource { source, watch };
        // SAFETY: the caller's duties are the same.
        let mapped = unsafe { self.table.map_runs(range, node, &mut watched, records) };
        watch.look();
        mapped
    }

    fn can_share_tables(&self) -> bool {
        self.table.can_share_tables()
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        let watch = self.watch;
        let mut released = |run| {
            watch.look();
            released(run);
        };
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.share_tables(range, &mut released, records) }
    }

    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn RunSink, records: &dyn TableRecords)
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let watch = self.watch;
        let mut released = WatchedSink { released, watch };
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.unmap(ranges, &mut released, records) }
    }
}

/// The way in which the page table inside exchanges entries, watched.
pub(crate) enum Watched {}

// SAFETY: what is done is done by the page table inside.
unsafe impl Replace<WatchedTable<'_>> for Watched {
    const RESIZES: bool = true;

    fn replacement(table: &WatchedTable<'_>) -> Replacement {
        table.table.replacement()
    }

    fn takes_tables(table: &WatchedTable<'_>) -> bool {
        table.table.takes_tables()
    }

    fn levels(table: &WatchedTable<'_>) -> u32 {
        table.table.levels()
    }

    fn take_spare_table(table: &mut WatchedTable<'_>, node: NodeId) -> Result<Pfn, ReplaceError> {
        AsInside::take_spare_table(&mut table.table, node)
    }

    unsafe fn free_spare_table(table: &mut WatchedTable<'_>, spare: Pfn) {
        // SAFETY: the caller's duty is the same.
        unsafe { AsInside::free_spare_table(&mut table.table, spare) }
    }

    unsafe fn replace<X: Exchange>(
        table: &mut WatchedTable<'_>,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let watch = table.watch;
        let mut watched = WatchedExchange { exchange, watch };
        // SAFETY: the caller's duties are the same.
        let replaced = unsafe { table.table.replace(range, node, &mut watched, records) };
        watch.look();
        replaced
    }
}
