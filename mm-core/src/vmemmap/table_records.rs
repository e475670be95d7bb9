//! What a page table has to remember from one call to the next: shared leaf tables, and how many
//! tables there are.

use super::node_rows::NodeRows;
use crate::addr::{NodeId, Pfn};
use crate::frame::{DirectMap, FrameAllocator, MapMemory, OrderedMap, Words};
use crate::paging::{Leaf, TableRecords, TableReserve};
use core::cell::RefCell;

/// How many shared tables of tails of an order are known without a frame for that.
const INLINE: usize = 8;

/// How many shared tables of single compound pages are remembered. Such a table is of use only as
/// long as its compound page is brought online or folded, so older ones are forgotten.
const RECENT: usize = 32;

/// Tables of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct TableFigures {
    /// How many there are.
    pub(super) tables: u64,
    /// The leaves of shared tables, for each link to them after the first.
    pub(super) reused_entries: u64,
}

// SAFETY: 1: two words.
unsafe impl Words for TableFigures {
    const ZERO: Self = Self {
        tables: 0,
        reused_entries: 0,
    };
}

/// The records of a vmemmap's page table.
#[derive(Debug)]
pub(super) struct TableRecordsState {
    /// The shared table of each tail frame of an order and node, as a number.
    of_orders: OrderedMap<u64, INLINE>,
    /// Shared tables of single compound pages, with their tail frames.
    recent: [Option<(Pfn, Pfn)>; RECENT],
    next: usize,
    pub(super) figures: NodeRows<TableFigures>,
}

impl TableRecordsState {
    pub(super) const fn new() -> Self {
        Self {
            of_orders: OrderedMap::new(),
            recent: [None; RECENT],
            next: 0,
            figures: NodeRows::new(),
        }
    }

    /// How many frames it takes at most to remember `more` shared tables of tails of an order.
    pub(super) fn frames_for<A: FrameAllocator, M: DirectMap>(
        &self,
        more: u64,
        memory: MapMemory<'_, A, M>,
    ) -> u64 {
        self.of_orders.frames_for(more, &memory)
    }

    /// Shows each frame that the records are in.
    pub(super) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: MapMemory<'_, A, M>,
        visit: &mut dyn FnMut(Pfn),
    ) {
        self.of_orders.for_each_frame(&memory, visit);
        self.figures.map().for_each_frame(&memory, visit);
    }
}

/// The records, for the time of an operation.
pub(super) struct RecordsInUse<'v, A, M> {
    // Page tables get a shared reference, and no method calls another one.
    state: RefCell<&'v mut TableRecordsState>,
    memory: MapMemory<'v, A, M>,
    reserve: Option<&'v dyn TableReserve>,
}

impl<'v, A: FrameAllocator, M: DirectMap> RecordsInUse<'v, A, M> {
    pub(super) fn new(memory: MapMemory<'v, A, M>, state: &'v mut TableRecordsState) -> Self {
        Self {
            state: RefCell::new(state),
            memory,
            reserve: None,
        }
    }

    /// The same, with a place that tables come from and go to, if there is one.
    pub(super) fn with_reserve(self, reserve: Option<&'v dyn TableReserve>) -> Self {
        Self { reserve, ..self }
    }

    fn with<R>(&self, work: impl FnOnce(&mut TableRecordsState) -> R) -> Option<R> {
        self.state
            .try_borrow_mut()
            .ok()
            .map(|mut state| work(&mut state))
    }

    // As in the pool.
    #[inline(never)]
    fn count(&self, node: NodeId, change: &mut dyn FnMut(&mut TableFigures)) {
        self.with(|state| state.figures.update(node, self.memory, change));
    }
}

/// The tail frame of `leaf`, which tells its shared table.
const fn tail_of(leaf: Leaf) -> Pfn {
    leaf.block.first()
}

impl<A: FrameAllocator, M: DirectMap> TableRecords for RecordsInUse<'_, A, M> {
    fn shared_table(&self, leaf: Leaf) -> Option<Pfn> {
        let tail = tail_of(leaf);
        self.with(|state| {
            if !leaf.writable {
                let table = state.of_orders.get(tail.get(), &self.memory);
                return table.and_then(Pfn::new);
            }
            let mut known = state.recent.iter().flatten();
            known
                .find(|(known, _)| *known == tail)
                .map(|(_, table)| *table)
        })?
    }

    fn add_shared_table(&self, leaf: Leaf, table: Pfn) {
        let tail = tail_of(leaf);
        self.with(|state| {
            if !leaf.writable {
                // Without memory for it there will be a second table.
                let _ = state
                    .of_orders
                    .insert(tail.get(), table.get(), &self.memory);
                return;
            }
            if let Some(slot) = state.recent.get_mut(state.next) {
                *slot = Some((tail, table));
            }
            state.next = (state.next + 1) % RECENT;
        });
    }

    fn remove_shared_table(&self, leaf: Leaf, table: Pfn) {
        let tail = tail_of(leaf);
        self.with(|state| {
            if !leaf.writable {
                if state.of_orders.get(tail.get(), &self.memory) == Some(table.get()) {
                    state.of_orders.remove(tail.get(), &self.memory);
                }
                return;
            }
            for slot in &mut state.recent {
                if *slot == Some((tail, table)) {
                    *slot = None;
                }
            }
        });
    }

    fn add_tables(&self, node: NodeId, tables: u64) {
        self.count(node, &mut |figures| figures.tables += tables);
    }

    fn remove_tables(&self, node: NodeId, tables: u64) {
        self.count(node, &mut |figures| {
            figures.tables = figures.tables.saturating_sub(tables);
        });
    }

    fn add_shared_link(&self, node: NodeId, leaves: u64) {
        self.count(node, &mut |figures| figures.reused_entries += leaves);
    }

    fn remove_shared_link(&self, node: NodeId, leaves: u64) {
        self.count(node, &mut |figures| {
            figures.reused_entries = figures.reused_entries.saturating_sub(leaves);
        });
    }

    fn reserve(&self) -> Option<&dyn TableReserve> {
        self.reserve
    }
}
