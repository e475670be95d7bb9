//! The frames that tables are made of, counted by node.

use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{FrameAllocator, OutOfFrames, OwnedBlock, PerNode, ROWS, Released};
use crate::paging::TableStats;
use core::sync::atomic::{AtomicU64, Ordering};

/// The allocator of tables, and what was taken from it.
#[derive(Debug)]
pub(super) struct Tables<A> {
    frames: A,
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
    pub(super) const fn new(frames: A, leaves: u64) -> Self {
        Self {
            frames,
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
    pub(super) fn allocate(&self, node: NodeId) -> Result<Pfn, OutOfFrames> {
        let table = self.frames.allocate(Order::BASE, node)?.first();
        add(&self.counts_of(table).tables, 1);
        Ok(table)
    }

    /// Between 1 and `at_most` tables.
    pub(super) fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let tables = self.frames.allocate_run(at_most, node)?;
        add(&self.counts_of(tables.start()).tables, tables.frames());
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

    /// Frees a table without links.
    ///
    /// # Safety
    ///
    /// 1. The table came from [`release`](Self::release) here.
    pub(super) unsafe fn free(&self, table: OwnedBlock) {
        subtract(&self.counts_of(table.block().first()).tables, 1);
        // SAFETY: 1: the caller's.
        unsafe { self.frames.free(table) };
    }

    /// Frees `table`, to which there is no link.
    ///
    /// # Safety
    ///
    /// 1. The table came from here, and its one reference is the caller's.
    pub(super) unsafe fn give_back(&self, table: Pfn) {
        // SAFETY: 1: the caller's. 2: no link was made.
        if let Some(owned) = unsafe { self.release(table) } {
            // SAFETY: 1: released just now.
            unsafe { self.free(owned) };
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
