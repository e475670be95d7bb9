//! A page table whose type is not known when what uses it is compiled.
//!
//! The library is generic over page tables, so that all of it is compiled again for each of them. Most
//! kernels have one. Tests have many. So has a kernel that learns only when it starts how many levels its
//! CPU walks, or how large pages are. All of these can use an [`Erased`] page table instead: each run of entries
//! then costs a call that is not inlined.
#![no_std]
#![deny(missing_docs)]

mod page_table;
mod runs;

pub use page_table::AnyPageTable;
pub use runs::{AnyExchange, AnyRanges, AnySource};

use core::fmt;
use core::ops::{ControlFlow, Deref, DerefMut};
use mm_core::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Exchange, Flush, Leaf, Lookup, MapError, MapStopped, Mapping, PageTable, Replace, ReplaceError,
    Replaced, Replacement, Run, RunSink, RunSource, TableRecords, Visit,
};
use runs::{KeepsError, Ranges};

/// What holds a page table of any type.
///
/// # Safety
///
/// 1. It is the same page table each time.
/// 2. Its constants are those of an [`Erased`] one: [`says_the_same`].
pub unsafe trait Holds {
    /// The page table.
    fn table(&self) -> &dyn AnyPageTable;
    /// The page table, to be changed.
    fn table_mut(&mut self) -> &mut dyn AnyPageTable;
}

/// A borrowed page table of any type.
pub struct Borrowed<'t>(&'t mut dyn AnyPageTable);

// SAFETY: 1: the one that is borrowed. 2: `Erased::of` and `try_of` have asked.
unsafe impl Holds for Borrowed<'_> {
    fn table(&self) -> &dyn AnyPageTable {
        self.0
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        self.0
    }
}

/// The page table that `P` holds. What else is asked of it `P` answers.
pub struct Erased<P: Holds>(P);

impl<'t> Erased<Borrowed<'t>> {
    /// `table`, whatever its type.
    pub fn of<T: PageTable>(table: &'t mut T) -> Self {
        const { assert!(says_the_same::<T>(), "see `says_the_same`") };
        Self(Borrowed(table))
    }

    /// The same, for a page table that may say something else.
    pub fn try_of<T: PageTable>(table: &'t mut T) -> Option<Self> {
        says_the_same::<T>().then_some(Self(Borrowed(table)))
    }
}

impl<P: Holds> Erased<P> {
    /// What `holder` holds.
    pub const fn new(holder: P) -> Self {
        Self(holder)
    }
}

impl<P: Holds> Deref for Erased<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

impl<P: Holds> DerefMut for Erased<P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.0
    }
}

impl<P: Holds> fmt::Debug for Erased<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased").finish_non_exhaustive()
    }
}

/// Whether constants of `T` are those of an [`Erased`] one. If those of a page table are not, make
/// another [`Erased`] for it.
pub const fn says_the_same<T: PageTable>() -> bool {
    T::COUNTS_TABLES && !T::KEEPS_TABLES && T::Replace::RESIZES
}

// SAFETY: each method is that of the page table inside.
unsafe impl<P: Holds> PageTable for Erased<P> {
    const COUNTS_TABLES: bool = true;

    type Replace = AsInside;

    fn granule(&self) -> Granule {
        self.0.table().granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.0.table().huge_leaf()
    }

    fn last_frame(&self) -> Pfn {
        self.0.table().last_frame()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        self.0.table().lookup(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.table_mut().map_leaf(at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.table_mut().clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        self.0.table_mut().flush(obligation, records);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.0.table().visit(range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        self.0.table().first_in_use(range)
    }

    fn entries_added(&mut self, range: VirtRange) {
        self.0.table_mut().entries_added(range);
    }

    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<S::Error>> {
        let mut kept = KeepsError {
            source,
            error: None,
        };
        // SAFETY: the caller's duties are the same.
        let mapped = unsafe {
            self.0
                .table_mut()
                .map_runs(range, node, AnySource(&mut kept), records)
        };
        mapped.map_err(|stopped| match (stopped, kept.error) {
            (MapStopped::Table { at, error }, _) => MapStopped::Table { at, error },
            (MapStopped::Source { at, error: () }, Some(error)) => MapStopped::Source { at, error },
            (MapStopped::Source { at, error: () }, None) => {
                unreachable!("the source had a run for {at}")
            }
        })
    }

    fn can_share_tables(&self) -> bool {
        self.0.table().can_share_tables()
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.table_mut().share_tables(range, released, records) }
    }

    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn RunSink, records: &dyn TableRecords)
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let ranges = Ranges::new(ranges);
        // SAFETY: the caller's duties are the same.
        unsafe {
            self.0
                .table_mut()
                .unmap(AnyRanges::of(&ranges), released, records)
        }
    }
}

/// The way in which the page table inside an [`Erased`] exchanges entries.
#[derive(Clone, Copy, Debug)]
pub enum AsInside {}

// SAFETY: what is done is done by the page table inside.
unsafe impl<P: Holds> Replace<Erased<P>> for AsInside {
    const RESIZES: bool = true;

    fn replacement(table: &Erased<P>) -> Replacement {
        table.0.table().replacement()
    }

    fn takes_tables(table: &Erased<P>) -> bool {
        table.0.table().takes_tables()
    }

    fn levels(table: &Erased<P>) -> u32 {
        table.0.table().levels()
    }

    fn take_spare_table(table: &mut Erased<P>, node: NodeId) -> Result<Pfn, ReplaceError> {
        table.0.table_mut().take_spare_table(node)
    }

    unsafe fn free_spare_table(table: &mut Erased<P>, spare: Pfn) {
        // SAFETY: the caller's duty is the same.
        unsafe { table.0.table_mut().free_spare_table(spare) }
    }

    unsafe fn replace<X: Exchange>(
        table: &mut Erased<P>,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let exchange = AnyExchange(exchange);
        // SAFETY: the caller's duties are the same.
        unsafe { table.0.table_mut().replace(range, node, exchange, records) }
    }
}
