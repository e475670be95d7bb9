//! All that this kernel writes to embed the library: its page table and its allocator, as the library
//! sees them.
//!
//! The page table works page by page: what the library wants of runs of pages, it does by these methods.

use crate::frames::ALLOCATOR;
use crate::tables::{ACCESSED, DIRTY, Entry, NO_EXECUTE, NoEntry, PRESENT, PageTables, WRITABLE};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::{OutOfFrames, PlainAllocator};
use mm_core::paging::{
    Direct, ExchangeLeaf, Flush, FlushScope, FrameOutOfReach, Leaf, Lookup, MapError, Mapping,
    PageTable, Role, TableRecords,
};
use x86_64::instructions::tlb;

const GRANULE: Granule = Granule::Size4K;

/// Two bits that the CPU ignores keep what a leaf is to the library.
const OWNED: u64 = 1 << 9;
const TAIL: u64 = 1 << 10;

/// How many pages are flushed one by one; from there on, everything is.
const FLUSHED_PAGES: u64 = 64;

/// The kernel's page tables.
pub struct OwnTable {
    pub tables: PageTables,
    /// How often the CPU was made to forget something.
    pub flushes: u64,
}

impl OwnTable {
    /// The tables that the CPU walks.
    ///
    /// # Safety
    ///
    /// 1. Those of [`PageTables::current`].
    /// 2. No other CPU walks them, and they are in use for as long as the value is.
    pub unsafe fn current() -> Self {
        // SAFETY: 1 and 2: duty 1.
        let tables = unsafe { PageTables::current() };
        Self { tables, flushes: 0 }
    }
}

/// Whether a CPU translates `at`: all bits from 47 on are the same.
fn is_translated(at: VirtAddr) -> bool {
    x86_64::VirtAddr::try_new(at.get()).is_ok()
}

/// The addresses that `entry` is for, `at` among them.
fn span(entry: Entry, at: VirtAddr) -> VirtRange {
    let start = at.align_down(entry.shift());
    let last = VirtAddr::new(start.get() | ((1 << entry.shift()) - 1));
    VirtRange::between(start, last).unwrap_or(VirtRange::single(start))
}

/// What `entry` maps at `at`, if it is a leaf.
fn mapping(entry: Entry, at: VirtAddr) -> Option<Mapping> {
    let value = entry.get();
    let order = Order::new((entry.shift() - GRANULE.shift()) as u8)?;
    let leaf = Leaf {
        block: Block::new(Pfn::new(entry.frame())?, order)?,
        role: match (value & OWNED != 0, value & TAIL != 0) {
            (false, _) => Role::Foreign,
            (true, false) => Role::Descriptors,
            (true, true) => Role::Tail,
        },
        writable: value & WRITABLE != 0,
    };
    let at = at.align_down(entry.shift());
    entry.is_leaf().then_some(Mapping { at, leaf })
}

/// The entry for `leaf`, a page. *Accessed* and *dirty* from the start, so that the CPU never writes to it.
fn value_of(leaf: Leaf) -> u64 {
    let role = match leaf.role {
        Role::Foreign => 0,
        Role::Descriptors => OWNED,
        Role::Tail => OWNED | TAIL,
    };
    let rights = if leaf.writable { WRITABLE | DIRTY } else { 0 };
    leaf.block.first().base(GRANULE).get() | role | rights | PRESENT | ACCESSED | NO_EXECUTE
}

// SAFETY: 1: `page_entry` finds the one entry that translates `at`, and new tables are zeroed. 2: `walk`
// goes as the CPU does; other code sets no `OWNED`. 3: INVLPG, or CR3, as no leaf is global; one CPU (duty 2
// of `current`). 4: the default `unmap` does; tables are not freed. 5: `clear_leaf` looks for `OWNED`,
// and `map_leaf` for zero.
unsafe impl PageTable for OwnTable {
    // The kernel's tables stay, as they do for its other mappings.
    const KEEPS_TABLES: bool = true;
    // What fold needs: one store for each page.
    type Replace = Direct;

    fn granule(&self) -> Granule {
        GRANULE
    }

    fn huge_leaf(&self) -> Option<Order> {
        None
    }

    fn last_frame(&self) -> Pfn {
        // 52 bits of address.
        Pfn::new((1 << 40) - 1).unwrap_or(Pfn::MAX)
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        let entry = self.tables.walk(at.get());
        if !is_translated(at) {
            return Lookup::Hole(span(entry, at));
        }
        match mapping(entry, at) {
            Some(mapping) => Lookup::Mapped(mapping),
            None if entry.get() == 0 => Lookup::Hole(span(entry, at)),
            None => Lookup::Reserved(span(entry, at)),
        }
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        _records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        let (order, last) = (leaf.block.order(), self.last_frame());
        let fits = at.is_aligned(GRANULE.bytes()) && is_translated(at);
        if order != Order::BASE || !fits {
            return Err(MapError::Unsupported { at, order });
        }
        if leaf.block.first() > last {
            let frame = leaf.block.first();
            return Err(MapError::FrameOutOfReach(FrameOutOfReach { frame, last }));
        }
        let new_table = || ALLOCATOR.lock().allocate_zeroed();
        match self.tables.page_entry(at.get(), new_table) {
            Ok(entry) if entry.get() == 0 => entry.set(value_of(leaf)),
            Ok(_) | Err(NoEntry::InUse) => return Err(MapError::InUse { at }),
            Err(NoEntry::OutOfFrames) => {
                return Err(MapError::OutOfFrames(OutOfFrames { order, node }));
            }
        }
        Ok(())
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let found = self.lookup(at).mapping();
        let found = found.filter(|found| found.leaf.role != Role::Foreign)?;
        let entry = self.tables.walk(at.get());
        entry.set(0);
        flush.add(span(entry, at));
        Some(found)
    }

    fn flush(&mut self, obligation: Flush, _records: &dyn TableRecords) {
        self.flushes += u64::from(obligation.scope() != FlushScope::Nothing);
        let ranges = match obligation.scope() {
            FlushScope::Nothing => return,
            FlushScope::Everything => return tlb::flush_all(),
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => ranges,
        };
        if ranges.iter().map(|range| range.pages(GRANULE)).sum::<u64>() > FLUSHED_PAGES {
            return tlb::flush_all();
        }
        for range in ranges {
            for page in 0..range.pages(GRANULE) {
                let at = range.start().get() + page * GRANULE.bytes();
                tlb::flush(x86_64::VirtAddr::new_truncate(at));
            }
        }
    }
}

// SAFETY: 1 and 2: one store to the entry that translates the page (duty 2 of `exchange_leaf`).
unsafe impl ExchangeLeaf for OwnTable {
    unsafe fn exchange_leaf(&mut self, at: VirtAddr, leaf: Leaf) {
        self.tables.walk(at.get()).set(value_of(leaf));
    }
}

/// The kernel's allocator.
pub struct OwnFrames;

// SAFETY: 1: a frame's bit is clear while it is out; blocks are aligned to their size; one node. 2: bits do
// not remember blocks. 3: all of them are mapped where they are.
unsafe impl PlainAllocator for OwnFrames {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let first = ALLOCATOR.lock().allocate(order.frames())?;
        Block::new(Pfn::new(first)?, order)
    }

    unsafe fn free(&self, block: Block) {
        let (first, count) = (block.first().get(), block.order().frames());
        ALLOCATOR.lock().free(first, count);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::new(0)
    }
}
