//! A page table of any type: what readers look at is compiled once, and not once for each harness.

use super::runs::{AnyExchange, AnySource};
use core::ops::ControlFlow;
use mm_core::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Flush, InUse, Leaf, Lookup, MapError, MapStopped, Mapping, PageTable, Replace, ReplaceError,
    Replaced, Replacement, Run, TableRecords, Visit,
};

/// [`PageTable`] and its way to exchange entries, without generic methods.
///
/// # Safety
///
/// 1. Each method is that of a page table that [is of this kind](is_usual), with the duties that it has
///    there.
pub(super) unsafe trait AnyTable {
    fn granule(&self) -> Granule;
    fn huge_leaf(&self) -> Option<Order>;
    fn last_frame(&self) -> Pfn;
    fn lookup(&self, at: VirtAddr) -> Lookup;
    /// # Safety
    ///
    /// As for [`PageTable::map_leaf`].
    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError>;
    /// # Safety
    ///
    /// As for [`PageTable::clear_leaf`].
    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping>;
    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords);
    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()>;
    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr>;
    fn entries_added(&mut self);
    /// # Safety
    ///
    /// As for [`PageTable::map_runs`].
    unsafe fn map_runs(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: AnySource<'_>,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<()>>;
    fn can_share_tables(&self) -> bool;
    /// # Safety
    ///
    /// As for [`PageTable::share_tables`].
    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64;
    /// # Safety
    ///
    /// As for [`PageTable::unmap`], for the ranges that are there.
    unsafe fn unmap(
        &mut self,
        ranges: &[Option<VirtRange>],
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    );
    fn replacement(&self) -> Replacement;
    fn takes_tables(&self) -> bool;
    fn take_spare_table(&mut self, node: NodeId) -> Result<Pfn, ReplaceError>;
    /// # Safety
    ///
    /// As for [`Replace::free_spare_table`].
    unsafe fn free_spare_table(&mut self, spare: Pfn);
    /// # Safety
    ///
    /// As for [`InUse::replace`].
    unsafe fn replace(
        &mut self,
        range: VirtRange,
        node: NodeId,
        exchange: AnyExchange<'_>,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError>;
}

/// Whether the constants of `T` are those of the engine's table: what is said of a page table of any type.
pub(super) const fn is_usual<T: PageTable>() -> bool {
    T::COUNTS_TABLES && !T::KEEPS_TABLES && T::Replace::RESIZES
}

// SAFETY: 1: each is the page table's own; `WatchedTable::new` takes none of another kind.
unsafe impl<T: PageTable> AnyTable for T {
    fn granule(&self) -> Granule {
        PageTable::granule(self)
    }

    fn huge_leaf(&self) -> Option<Order> {
        PageTable::huge_leaf(self)
    }

    fn last_frame(&self) -> Pfn {
        PageTable::last_frame(self)
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        PageTable::lookup(self, at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { PageTable::map_leaf(self, at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { PageTable::clear_leaf(self, at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        PageTable::flush(self, obligation, records);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        PageTable::visit(self, range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        PageTable::first_in_use(self, range)
    }

    fn entries_added(&mut self) {
        PageTable::entries_added(self);
    }

    unsafe fn map_runs(
        &mut self,
        range: VirtRange,
        node: NodeId,
        mut source: AnySource<'_>,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<()>> {
        // SAFETY: the caller's duties are the same.
        unsafe { PageTable::map_runs(self, range, node, &mut source, records) }
    }

    fn can_share_tables(&self) -> bool {
        PageTable::can_share_tables(self)
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { PageTable::share_tables(self, range, released, records) }
    }

    unsafe fn unmap(
        &mut self,
        ranges: &[Option<VirtRange>],
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) {
        let ranges = ranges.iter().copied().flatten();
        // SAFETY: the caller's duties are the same.
        unsafe { PageTable::unmap(self, ranges, released, records) }
    }

    fn replacement(&self) -> Replacement {
        InUse::replacement(self)
    }

    fn takes_tables(&self) -> bool {
        InUse::takes_tables(self)
    }

    fn take_spare_table(&mut self, node: NodeId) -> Result<Pfn, ReplaceError> {
        T::Replace::take_spare_table(self, node)
    }

    unsafe fn free_spare_table(&mut self, spare: Pfn) {
        // SAFETY: the caller's duty is the same.
        unsafe { T::Replace::free_spare_table(self, spare) }
    }

    unsafe fn replace(
        &mut self,
        range: VirtRange,
        node: NodeId,
        mut exchange: AnyExchange<'_>,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        // SAFETY: the caller's duties are the same.
        unsafe { InUse::replace(self, range, node, &mut exchange, records) }
    }
}
