//! What can be done with a page table of any type: [`PageTable`] without its generic methods.

use super::runs::{AnyExchange, AnyRanges, AnySource};
use core::ops::ControlFlow;
use mm_core::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Flush, InUse, Leaf, Lookup, MapError, MapStopped, Mapping, PageTable, Replace, ReplaceError,
    Replaced, Replacement, Run, RunSink, TableRecords, Visit,
};

/// A page table of any type, without generic methods.
///
/// # Safety
///
/// Methods of the names of [`PageTable`]'s are those of a page table, with their duties.
pub unsafe trait AnyPageTable {
    /// See [`PageTable::granule`].
    fn granule(&self) -> Granule;
    /// See [`PageTable::huge_leaf`].
    fn huge_leaf(&self) -> Option<Order>;
    /// See [`PageTable::last_frame`].
    fn last_frame(&self) -> Pfn;
    /// See [`PageTable::lookup`].
    fn lookup(&self, at: VirtAddr) -> Lookup;
    /// See [`PageTable::map_leaf`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError>;
    /// See [`PageTable::clear_leaf`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping>;
    /// See [`PageTable::flush`].
    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords);
    /// See [`PageTable::visit`].
    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()>;
    /// See [`PageTable::first_in_use`].
    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr>;
    /// See [`PageTable::entries_added`].
    fn entries_added(&mut self, range: VirtRange);
    /// See [`PageTable::map_runs`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn map_runs(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: AnySource<'_>,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<()>>;
    /// See [`PageTable::can_share_tables`].
    fn can_share_tables(&self) -> bool;
    /// See [`PageTable::share_tables`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64;
    /// See [`PageTable::unmap`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn unmap(
        &mut self,
        ranges: AnyRanges<'_>,
        released: &mut dyn RunSink,
        records: &dyn TableRecords,
    );
    /// See [`InUse::replacement`].
    fn replacement(&self) -> Replacement;
    /// See [`InUse::takes_tables`].
    fn takes_tables(&self) -> bool;
    /// See [`InUse::levels`].
    fn levels(&self) -> u32;
    /// See [`Replace::take_spare_table`].
    ///
    /// # Errors
    ///
    /// As there.
    fn take_spare_table(&mut self, node: NodeId) -> Result<Pfn, ReplaceError>;
    /// See [`Replace::free_spare_table`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn free_spare_table(&mut self, spare: Pfn);
    /// See [`InUse::replace`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn replace(
        &mut self,
        range: VirtRange,
        node: NodeId,
        exchange: AnyExchange<'_>,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError>;
}

// SAFETY: each of them is the page table's own.
unsafe impl<T: PageTable> AnyPageTable for T {
    fn granule(&self) -> Granule {
        <T as PageTable>::granule(self)
    }

    fn huge_leaf(&self) -> Option<Order> {
        <T as PageTable>::huge_leaf(self)
    }

    fn last_frame(&self) -> Pfn {
        <T as PageTable>::last_frame(self)
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        <T as PageTable>::lookup(self, at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { <T as PageTable>::map_leaf(self, at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { <T as PageTable>::clear_leaf(self, at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        <T as PageTable>::flush(self, obligation, records);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        <T as PageTable>::visit(self, range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        <T as PageTable>::first_in_use(self, range)
    }

    fn entries_added(&mut self, range: VirtRange) {
        <T as PageTable>::entries_added(self, range);
    }

    unsafe fn map_runs(
        &mut self,
        range: VirtRange,
        node: NodeId,
        mut source: AnySource<'_>,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<()>> {
        // SAFETY: the caller's duties are the same.
        unsafe { <T as PageTable>::map_runs(self, range, node, &mut source, records) }
    }

    fn can_share_tables(&self) -> bool {
        <T as PageTable>::can_share_tables(self)
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { <T as PageTable>::share_tables(self, range, released, records) }
    }

    unsafe fn unmap(
        &mut self,
        ranges: AnyRanges<'_>,
        released: &mut dyn RunSink,
        records: &dyn TableRecords,
    ) {
        // SAFETY: the caller's duties are the same.
        unsafe { <T as PageTable>::unmap(self, ranges, released, records) }
    }

    fn replacement(&self) -> Replacement {
        InUse::replacement(self)
    }

    fn takes_tables(&self) -> bool {
        InUse::takes_tables(self)
    }

    fn levels(&self) -> u32 {
        InUse::levels(self)
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
