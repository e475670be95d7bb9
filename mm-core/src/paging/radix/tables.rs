//! The frames that tables are made of, counted by node.

use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{FrameAllocator, OutOfFrames, OwnedBlock, PerNode, ROWS, Released};
use crate::paging::{FrameOutOfReach, MapError, ReplaceError, TableStats};
use core::sync::atomic::{AtomicU64, Ordering};

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

/// The allocator of tables, and what was taken from it.
#[derive(Debug)]
pub(super) struct Tables<A> {
    frames: A,
    /// The last frame that a link can hold.
    pub(super) last: Pfn,
    /// How many leaves a shared table has.
    leaves: u64,
    counts: PerNode<Counts>,
}

/// Changed only with the page table borrowed mutably; atomic so that it may be read by others
/// meanwhile.
#[derive(Debug)]
struct Counts {
    tables: AtomicU64,
    reused_links: AtomicU64,
}

impl<A> Tables<A> {
    pub(super) const fn new(frames: A, last: Pfn, leaves: u64) -> Self {
        Self {
            frames,
            last,
            leaves,
            counts: PerNode::of(
                [const {
                    Counts {
                        tables: AtomicU64::new(0),
                        reused_links: AtomicU64::new(0),
                    }
                }; ROWS],
            ),
        }
    }

    pub(super) fn stats(&self) -> PerNode<TableStats> {
        let mut stats = PerNode::new(TableStats::default());
        for (node, counts) in self.counts.iter() {
            *stats.row_mut(node) = TableStats {
                tables: counts.tables.load(Ordering::Relaxed),
                reused_entries: counts.reused_links.load(Ordering::Relaxed) * self.leaves,
            };
        }
        stats
    }
}

impl<A: FrameAllocator> Tables<A> {
    fn counts_of(&self, table: Pfn) -> &Counts {
        self.counts.row(self.frames.node_of(table))
    }

    /// A table with one reference. Contents are arbitrary.
    pub(super) fn allocate(&self, node: NodeId) -> Result<Pfn, NoTable> {
        let table = self.frames.allocate(Order::BASE, node);
        let table = table.map_err(NoTable::OutOfFrames)?.first();
        add(&self.counts_of(table).tables, 1);
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
        let tables = self.frames.allocate_run(at_most, node);
        let tables = tables.map_err(NoTable::OutOfFrames)?;
        add(&self.counts_of(tables.start()).tables, tables.frames());
        self.check_reach(tables)?;
        Ok(tables)
    }

    /// Adds a reference for another link to `table`. Says whether that could be counted.
    ///
    /// # Safety
    ///
    /// 1. The table came from here.
    /// 2. A link is made that owns the reference.
    pub(super) unsafe fn link_again(&self, table: Pfn) -> bool {
        // SAFETY: 1 and 2: the caller's.
        let linked = unsafe { self.frames.acquire(table, 1) }.is_ok();
        if linked {
            add(&self.counts_of(table).reused_links, 1);
        }
        linked
    }

    /// Releases the reference of one link. With the last one, the caller gets the table, to
    /// [free](Self::free) it.
    ///
    /// # Safety
    ///
    /// 1. The table came from here.
    /// 2. The link is gone and flushed, or was never made.
    pub(super) unsafe fn release(&self, table: Pfn) -> Option<OwnedBlock> {
        // SAFETY: 1 and 2: the caller's.
        match unsafe { self.frames.release(Block::single(table), 1) } {
            Released::Last(owned) => Some(owned),
            Released::Shared => {
                subtract(&self.counts_of(table).reused_links, 1);
                None
            }
        }
    }

    pub(super) fn free(&self, table: OwnedBlock) {
        subtract(&self.counts_of(table.block().first()).tables, 1);
        self.frames.free(table);
    }

    /// Frees `table`, to which there is no link.
    ///
    /// # Safety
    ///
    /// 1. The table came from here, and its one reference is the caller's.
    pub(super) unsafe fn give_back(&self, table: Pfn) {
        // SAFETY: 1: the caller's. 2: no link was made.
        if let Some(owned) = unsafe { self.release(table) } {
            self.free(owned);
        }
    }
}

/// There is one writer at a time, so that no locked instruction is needed.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

fn subtract(count: &AtomicU64, less: u64) {
    let left = count.load(Ordering::Relaxed).saturating_sub(less);
    count.store(left, Ordering::Relaxed);
}
