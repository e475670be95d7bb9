//! The oracle: a page table that is a plain map from addresses to leaves.
//!
//! It has no tables, no entries and no bits, and shares no code with any engine. What an engine
//! does on real tables has to look, from outside, as if it were done here.

use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Exchange, Flush, FlushScope, Leaf, Lookup, MapError, Mapping, PageTable, Replace, ReplaceError,
    Replaced, Replacement, Role, Run, TableRecords, Visit,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// A page table without tables: the oracle.
///
/// Nothing translates by it, so a flush has nothing to do but to be counted, and it never runs out
/// of frames.
#[derive(Clone, Debug)]
pub struct FlatTable {
    granule: Granule,
    huge: Option<Order>,
    leaves: BTreeMap<VirtAddr, Leaf>,
    /// Where leaf tables of somebody else's would be: the first addresses below them.
    foreign_tables: BTreeSet<VirtAddr>,
    flushes: u64,
}

impl FlatTable {
    /// A table in which nothing is mapped, with leaves of one base page and, if there is `huge`, of
    /// that order.
    pub fn new(granule: Granule, huge: Option<Order>) -> Self {
        Self {
            granule,
            huge,
            leaves: BTreeMap::new(),
            foreign_tables: BTreeSet::new(),
            flushes: 0,
        }
    }

    /// Enters `leaf` at `at` as somebody else's, whatever its role says; any order will do.
    ///
    /// # Errors
    ///
    /// [`MapError`], and nothing has changed.
    pub fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> Result<(), MapError> {
        let role = Role::Foreign;
        self.enter(at, Leaf { role, ..leaf })
    }

    /// Takes out the leaf that maps `at`, whosever it is.
    pub fn unmap_foreign(&mut self, at: VirtAddr) -> Option<Mapping> {
        let mapping = self.lookup(at).mapping()?;
        self.leaves.remove(&mapping.at);
        Some(mapping)
    }

    /// From now on a leaf table for `at` is somebody else's, or none is: so that whoever looks does
    /// not join its leaves to a huge one, as on the page table that this one stands for.
    pub fn set_foreign_table(&mut self, at: VirtAddr, foreign: bool) {
        let Some(bytes) = self.huge.and_then(|huge| huge.bytes(self.granule)) else {
            return;
        };
        let at = VirtAddr::new(at.get() & !(bytes - 1));
        match foreign {
            true => self.foreign_tables.insert(at),
            false => self.foreign_tables.remove(&at),
        };
    }

    /// All that is mapped, in the order of addresses.
    pub fn leaves(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.leaves.iter().map(|(at, leaf)| Mapping {
            at: *at,
            leaf: *leaf,
        })
    }

    /// How many flushes there were that had something to flush.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// The addresses of a leaf of `order` at `at`, if it can be there.
    fn span(&self, at: VirtAddr, order: Order) -> Result<VirtRange, MapError> {
        let unsupported = MapError::Unsupported { at, order };
        let bytes = order.bytes(self.granule).ok_or(unsupported)?;
        if !at.is_aligned(bytes) {
            return Err(unsupported);
        }
        VirtRange::new(at, bytes).map_err(|_| unsupported)
    }

    /// Makes leaves of base pages of the huge leaf at `at`.
    fn break_up(&mut self, at: VirtAddr, leaf: Leaf) {
        self.leaves.remove(&at);
        for index in 0..leaf.block.order().frames() {
            let offset = index << self.granule.shift();
            if let Some(at) = at.checked_add(offset)
                && let Some(frame) = leaf.block.first().checked_add(index)
            {
                let block = Block::single(frame);
                self.leaves.insert(at, Leaf { block, ..leaf });
            }
        }
    }

    /// The leaves of base pages that a huge leaf at `at` could take the place of, if nothing else
    /// is there.
    fn joinable(&self, at: VirtAddr, last: VirtAddr) -> Option<(VirtRange, Vec<Mapping>)> {
        let order = self.huge?;
        let span = self.span(at, order).ok()?;
        let within = self.leaves.range(at..=span.last());
        let leaves: Vec<Mapping> = within
            .map(|(at, leaf)| Mapping {
                at: *at,
                leaf: *leaf,
            })
            .collect();
        let own = |mapping: &Mapping| {
            mapping.leaf.role != Role::Foreign && mapping.leaf.block.order() == Order::BASE
        };
        let whole = leaves.len() as u64 == order.frames() && leaves.iter().all(own);
        let possible = span.last() <= last && whole && !self.foreign_tables.contains(&at);
        possible.then_some((span, leaves))
    }

    fn enter(&mut self, at: VirtAddr, leaf: Leaf) -> Result<(), MapError> {
        let span = self.span(at, leaf.block.order())?;
        match self.first_in_use(span) {
            Some(at) => Err(MapError::InUse { at }),
            None => {
                self.leaves.insert(at, leaf);
                Ok(())
            }
        }
    }
}

/// The oracle's way to exchange entries: one after the other, with huge leaves that are split and
/// joined.
#[derive(Clone, Copy, Debug)]
pub enum OneByOne {}

// SAFETY: 1 and 2: it puts in what it is told, and no CPU translates by the map. 3: foreign leaves
// are passed over.
unsafe impl Replace<FlatTable> for OneByOne {
    const RESIZES: bool = true;

    fn replacement(_table: &FlatTable) -> Replacement {
        Replacement::Direct
    }

    unsafe fn replace<X: Exchange>(
        table: &mut FlatTable,
        range: VirtRange,
        _node: NodeId,
        exchange: &mut X,
        _records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let mut old = Vec::new();
        let mut next = Some(range);
        while let Some(rest) = next {
            let at = rest.start();
            let page_end = VirtAddr::new(at.get() | (table.granule.bytes() - 1));
            next = rest.after(page_end);
            let Some(Mapping { at: first, leaf }) = table.lookup(at).mapping() else {
                continue;
            };
            if leaf.role == Role::Foreign {
                continue;
            }
            if leaf.block.order() != Order::BASE {
                if exchange.should_split(first, leaf) {
                    table.break_up(first, leaf);
                    exchange.split(leaf.block);
                    next = Some(rest);
                } else if let Ok(span) = table.span(first, leaf.block.order()) {
                    next = rest.after(span.last());
                }
                continue;
            }
            if let Some((span, leaves)) = table.joinable(at, rest.last())
                && let Some(huge) = table.huge.and_then(|order| exchange.join(at, order))
            {
                for mapping in leaves {
                    exchange.joined(mapping.at, Run::once(mapping.leaf));
                    table.leaves.remove(&mapping.at);
                    old.push(mapping.leaf);
                }
                table.leaves.insert(at, huge);
                next = rest.after(span.last());
                continue;
            }
            let new = exchange.exchange(at, Run::once(leaf)).leaf;
            if new != leaf {
                table.leaves.insert(at, new);
                old.push(leaf);
            }
        }
        let flushes = u64::from(!old.is_empty());
        table.flushes += flushes;
        for leaf in old {
            exchange.released(Run::once(leaf));
        }
        Ok(Replaced { flushes })
    }
}

// SAFETY: 1: the map holds the leaf at its address, and no two leaves overlap. 2: they read the
// map, which is all there is; only `map_foreign` enters foreign leaves. 3 and 4: no CPU translates
// by the map. 5: `clear_leaf` returns before it removes a foreign leaf, and `unmap` calls it; `enter`
// looks for leaves first.
unsafe impl PageTable for FlatTable {
    // It has none.
    const COUNTS_TABLES: bool = true;

    type Replace = OneByOne;

    fn granule(&self) -> Granule {
        self.granule
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.huge
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        let below = self.leaves.range(..=at).next_back();
        let below = below.and_then(|(start, leaf)| {
            let span = self.span(*start, leaf.block.order()).ok()?;
            Some((span, *leaf))
        });
        if let Some((span, leaf)) = below
            && span.contains(at)
        {
            let at = span.start();
            return Lookup::Mapped(Mapping { at, leaf });
        }
        let first = below.and_then(|(span, _)| span.last().checked_add(1));
        let above = self.leaves.range(at..).next();
        let last = above.map_or(u64::MAX, |(above, _)| above.get() - 1);
        let hole = VirtRange::between(first.unwrap_or(VirtAddr::new(0)), VirtAddr::new(last));
        Lookup::Hole(hole.unwrap_or(VirtRange::single(at)))
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        _node: NodeId,
        _records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        let order = leaf.block.order();
        if order != Order::BASE && Some(order) != self.huge {
            return Err(MapError::Unsupported { at, order });
        }
        self.enter(at, leaf)
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let mapping = self.lookup(at).mapping()?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        self.leaves.remove(&mapping.at);
        if let Ok(span) = self.span(mapping.at, mapping.leaf.block.order()) {
            flush.add(span);
        }
        Some(mapping)
    }

    fn flush(&mut self, obligation: Flush, _records: &dyn TableRecords) {
        self.flushes += u64::from(obligation.scope() != FlushScope::Nothing);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let first = match self.lookup(range.start()).mapping() {
            Some(across) => across.at,
            None => range.start(),
        };
        let mut foreign = self.foreign_tables.range(..=range.last()).peekable();
        for (at, leaf) in self.leaves.range(first..=range.last()) {
            while let Some(table) = foreign.next_if(|table| *table <= at) {
                visitor(Visit::Table {
                    at: *table,
                    frame: Pfn::MAX,
                    leaf_table: true,
                    owned: false,
                })?;
            }
            visitor(Visit::Leaves {
                at: *at,
                run: Run::once(*leaf),
            })?;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::addr::Block;
    use mm_core::paging::NoRecords;
    use mm_core::paging::{MapStopped, RunSource};

    const NODE: NodeId = NodeId::new(0);
    const HUGE: u64 = 0x20_0000;

    fn table() -> FlatTable {
        FlatTable::new(Granule::Size4K, Order::new(9))
    }

    fn leaf(frame: u64, order: u8) -> Leaf {
        let block = Block::new(Pfn::new(frame).unwrap(), Order::new(order).unwrap()).unwrap();
        Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        }
    }

    fn map(table: &mut FlatTable, at: u64, leaf: Leaf) -> Result<(), MapError> {
        // SAFETY: 1 and 2: the oracle's frames and addresses are only numbers.
        unsafe { table.map_leaf(VirtAddr::new(at), leaf, NODE, &NoRecords) }
    }

    fn unmap(table: &mut FlatTable, range: VirtRange) -> Vec<Run> {
        let mut runs = Vec::new();
        // SAFETY: 1 and 2: as above.
        unsafe {
            table.unmap(
                [range].into_iter(),
                &mut |run: Run| runs.push(run),
                &NoRecords,
            )
        };
        runs
    }

    fn bytes(start: u64, bytes: u64) -> VirtRange {
        VirtRange::new(VirtAddr::new(start), bytes).unwrap()
    }

    fn visited(table: &FlatTable, range: VirtRange) -> Vec<u64> {
        let mut seen = Vec::new();
        let _ = table.visit(range, &mut |visit| {
            if let Visit::Leaves { at, run } = visit {
                assert_eq!(run.count, 1);
                seen.push(at.get());
            }
            ControlFlow::Continue(())
        });
        seen
    }

    #[test]
    fn what_is_mapped_is_found_at_each_of_its_addresses() {
        let mut table = table();
        map(&mut table, HUGE, leaf(512, 9)).unwrap();
        map(&mut table, 0x1000, leaf(7, 0)).unwrap();
        let frame = |at| {
            let at = VirtAddr::new(at);
            let mapping = table.lookup(at).mapping()?;
            Some(mapping.frame_of(at, Granule::Size4K)?.get())
        };
        assert_eq!(frame(0xfff), None);
        assert_eq!(frame(0x1fff), Some(7));
        assert_eq!(frame(0x2000), None);
        assert_eq!(frame(HUGE), Some(512));
        assert_eq!(frame(2 * HUGE - 1), Some(1023));
        assert_eq!(frame(2 * HUGE), None);
    }

    #[test]
    fn a_live_entry_is_never_overwritten_whichever_is_larger() {
        let mut table = table();
        let in_use = |at| {
            Err(MapError::InUse {
                at: VirtAddr::new(at),
            })
        };
        map(&mut table, HUGE, leaf(512, 9)).unwrap();
        assert_eq!(map(&mut table, HUGE, leaf(7, 0)), in_use(HUGE));
        assert_eq!(
            map(&mut table, 2 * HUGE - 0x1000, leaf(7, 0)),
            in_use(2 * HUGE - 0x1000)
        );
        assert_eq!(map(&mut table, HUGE, leaf(0, 9)), in_use(HUGE));
        map(&mut table, 0x1f_f000, leaf(7, 0)).unwrap();
        assert_eq!(map(&mut table, 0, leaf(0, 9)), in_use(0x1f_f000));
        assert_eq!(map(&mut table, 2 * HUGE, leaf(0, 9)), Ok(()));
        assert_eq!(table.leaves().count(), 3);
    }

    #[test]
    fn sizes_and_addresses_that_no_table_has_are_refused() {
        let mut table = table();
        let unsupported = |at, order| {
            let (at, order) = (VirtAddr::new(at), Order::new(order).unwrap());
            Err(MapError::Unsupported { at, order })
        };
        assert_eq!(
            map(&mut table, 0x1000, leaf(512, 9)),
            unsupported(0x1000, 9)
        );
        assert_eq!(map(&mut table, 0, leaf(0, 18)), unsupported(0, 18));
        assert_eq!(map(&mut table, 0x800, leaf(0, 0)), unsupported(0x800, 0));
        let mut base_only = FlatTable::new(Granule::Size4K, None);
        assert_eq!(map(&mut base_only, 0, leaf(0, 9)), unsupported(0, 9));
    }

    #[test]
    fn the_last_page_of_the_address_space_can_be_mapped() {
        let mut table = table();
        let top = 0_u64.wrapping_sub(0x1000);
        map(&mut table, top, leaf(7, 0)).unwrap();
        assert!(table.lookup(VirtAddr::new(u64::MAX)).mapping().is_some());
        assert_eq!(visited(&table, bytes(top - 0x1000, 0x2000)), [top]);
        assert_eq!(unmap(&mut table, bytes(top - 0x1000, 0x2000)).len(), 1);
        assert_eq!(table.leaves().count(), 0);
    }

    #[test]
    fn foreign_leaves_of_any_size_are_seen_and_never_cleared() {
        let mut table = table();
        let at = VirtAddr::new(1 << 30);
        table.map_foreign(at, leaf(0, 18)).unwrap();
        assert_eq!(table.lookup(at).mapping().unwrap().leaf.role, Role::Foreign);
        assert!(unmap(&mut table, bytes(1 << 30, 0x4000)).is_empty());
        let mut flush = Flush::nothing();
        // SAFETY: 1 and 2: nothing is cleared.
        assert!(unsafe { table.clear_leaf(at, &mut flush) }.is_none());
        assert_eq!(flush.scope(), FlushScope::Nothing);
        assert_eq!(table.flushes(), 0);
        assert!(table.unmap_foreign(at).is_some());
        assert_eq!(table.leaves().count(), 0);
    }

    #[test]
    fn visits_are_in_order_and_show_leaves_across_the_ends_whole() {
        let mut table = table();
        for at in [4 * HUGE, HUGE] {
            map(&mut table, at, leaf(512, 9)).unwrap();
        }
        map(&mut table, 3 * HUGE, leaf(7, 0)).unwrap();
        let range = bytes(HUGE + 0x5000, 3 * HUGE);
        assert_eq!(visited(&table, range), [HUGE, 3 * HUGE, 4 * HUGE]);
        assert_eq!(table.first_in_use(range), Some(range.start()));
        assert_eq!(
            table.first_in_use(bytes(2 * HUGE, 2 * HUGE)),
            Some(VirtAddr::new(3 * HUGE))
        );
        assert_eq!(table.first_in_use(bytes(2 * HUGE, HUGE)), None);
    }

    #[test]
    fn a_leaf_across_the_end_of_an_unmapped_range_goes_whole() {
        let mut table = table();
        map(&mut table, HUGE, leaf(512, 9)).unwrap();
        let runs = unmap(&mut table, bytes(HUGE + 0x1000, 0x1000));
        assert_eq!(runs, [Run::once(leaf(512, 9))]);
        assert_eq!((table.leaves().count(), table.flushes()), (0, 1));
    }

    /// One run after the other of 4 KiB leaves that all point at frame 9.
    struct Repeat;

    impl RunSource for Repeat {
        type Error = ();

        fn next_run(&mut self, _: VirtAddr, pages: u64, _: Order) -> Result<Run, ()> {
            Ok(Run::repeat(Pfn::new(9).unwrap(), pages, Role::Tail))
        }

        fn return_unused(&mut self, _run: Run) {}
    }

    #[test]
    fn four_million_pages_take_seconds_at_most() {
        let start = std::time::Instant::now();
        let mut table = table();
        let range = bytes(0xffff_ea00_0000_0000, 16 << 30);
        // SAFETY: 1 and 2: only numbers.
        let mapped: Result<(), MapStopped<()>> =
            unsafe { table.map_runs(range, NODE, &mut Repeat, &NoRecords) };
        assert_eq!(mapped, Ok(()));
        assert_eq!(visited(&table, range).len(), 1 << 22);
        let runs = unmap(&mut table, range);
        assert_eq!(runs.iter().map(Run::pages).sum::<u64>(), 1 << 22);
        assert!(start.elapsed().as_secs() < 60, "took {:?}", start.elapsed());
    }
}
