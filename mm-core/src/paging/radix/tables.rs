//! The frames that tables are made of.

use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{FrameAllocator, OutOfFrames, OwnedBlock, Released};
use crate::paging::{FrameOutOfReach, MapError, ReplaceError, TableRecords};

/// Why there is no table.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoTable {
    OutOfFrames(OutOfFrames),
    FrameOutOfReach(FrameOutOfReach),
}

impl From<NoTable> for MapError {
    fn from(error: NoTable) -> Self {
        match error {
            NoTable::OutOfFrames(error) => Self::OutOfFrames(error),
            NoTable::FrameOutOfReach(error) => Self::FrameOutOfReach(error),
        }
    }
}

impl From<NoTable> for ReplaceError {
    fn from(error: NoTable) -> Self {
        match error {
            NoTable::OutOfFrames(error) => Self::OutOfFrames(error),
            NoTable::FrameOutOfReach(error) => Self::FrameOutOfReach(error),
        }
    }
}

/// The allocator of tables, with the records of what was taken from it.
pub(super) struct Tables<'t, A> {
    frames: &'t A,
    records: &'t dyn TableRecords,
    /// The last frame that a link can hold.
    pub(super) last: Pfn,
    /// How many leaves a shared table has.
    leaves: u64,
}

impl<'t, A: FrameAllocator> Tables<'t, A> {
    pub(super) fn new(
        frames: &'t A,
        records: &'t dyn TableRecords,
        last: Pfn,
        leaves: u64,
    ) -> Self {
        Self {
            frames,
            records,
            last,
            leaves,
        }
    }

    /// A table with one reference. Contents are arbitrary.
    // Not inlined, to keep the stack of the recursion over levels small.
    #[inline(never)]
    pub(super) fn allocate(&self, node: NodeId) -> Result<Pfn, NoTable> {
        let table = match self.records.reserve() {
            Some(reserve) => reserve.take(node),
            None => self.frames.allocate(Order::BASE, node).map(Block::first),
        };
        let table = table.map_err(NoTable::OutOfFrames)?;
        self.records.add_tables(self.frames.node_of(table), 1);
        self.check_reach(PfnRange::single(table))?;
        Ok(table)
    }

    /// Gives `tables`, which were allocated just now, back if a link cannot hold one of them.
    fn check_reach(&self, tables: PfnRange) -> Result<(), NoTable> {
        let (frame, last) = (tables.last(), self.last);
        if frame <= last {
            return Ok(());
        }
        for index in 0..tables.frames() {
            // SAFETY: 1: the tables came from here, each with one reference.
            unsafe { self.give_back(tables.start().saturating_add(index)) };
        }
        Err(NoTable::FrameOutOfReach(FrameOutOfReach { frame, last }))
    }

    /// Between 1 and `at_most` tables.
    pub(super) fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, NoTable> {
        let tables = match self.records.reserve() {
            Some(reserve) => reserve.take(node).map(PfnRange::single),
            None => self.frames.allocate_run(at_most, node),
        };
        let tables = tables.map_err(NoTable::OutOfFrames)?;
        let node = self.frames.node_of(tables.start());
        self.records.add_tables(node, tables.frames());
        self.check_reach(tables)?;
        Ok(tables)
    }

    /// Adds references for `links` other links to `table`. Says whether they could be counted.
    ///
    /// # Safety
    ///
    /// 1. The table came from here.
    /// 2. Links are made that own the references.
    pub(super) unsafe fn link_again(&self, table: Pfn, links: u64) -> bool {
        // SAFETY: 1 and 2: the caller's.
        let linked = unsafe { self.frames.acquire(table, links) }.is_ok();
        if linked {
            let node = self.frames.node_of(table);
            let leaves = links.saturating_mul(self.leaves);
            self.records.add_shared_link(node, leaves);
        }
        linked
    }

    /// Releases the references of `links` links, at least 1. With the last one, the caller gets the table,
    /// to [free](Self::free) it.
    ///
    /// # Safety
    ///
    /// 1. The table came from here.
    /// 2. The links are gone and flushed, or were never made.
    pub(super) unsafe fn release(&self, table: Pfn, links: u64) -> Option<OwnedBlock> {
        // SAFETY: 1 and 2: the caller's.
        let owned = match unsafe { self.frames.release(Block::single(table), links) } {
            Released::Last(owned) => Some(owned),
            Released::Shared => None,
        };
        // The one that is left last is the table's own.
        let again = links.saturating_sub(u64::from(owned.is_some()));
        if again > 0 {
            let node = self.frames.node_of(table);
            let leaves = again.saturating_mul(self.leaves);
            self.records.remove_shared_link(node, leaves);
        }
        owned
    }

    /// Frees a table without links.
    ///
    /// # Safety
    ///
    /// 1. The table came from [`release`](Self::release) here.
    pub(super) unsafe fn free(&self, table: OwnedBlock) {
        let node = self.frames.node_of(table.block().first());
        self.records.remove_tables(node, 1);
        // SAFETY: 1: the caller's.
        unsafe {
            match self.records.reserve() {
                Some(reserve) => reserve.put(self.frames.keep(table).first()),
                None => self.frames.free(table),
            }
        }
    }

    /// Frees `table`, to which there is no link.
    ///
    /// # Safety
    ///
    /// 1. The table came from here, and its one reference is the caller's.
    pub(super) unsafe fn give_back(&self, table: Pfn) {
        // SAFETY: 1: the caller's. 2: no link was made.
        if let Some(owned) = unsafe { self.release(table, 1) } {
            // SAFETY: 1: released just now.
            unsafe { self.free(owned) };
        }
    }
}
