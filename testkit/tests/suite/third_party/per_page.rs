//! A kernel's own page table, page by page: the methods that have no default body, over a plain map.

use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    BreakBeforeMake, BreakLeaf, Direct, Exchange, ExchangeLeaf, Flush, FlushScope, Leaf, Lookup,
    MapError, Mapping, PageTable, Refuse, Replace, ReplaceError, Replaced, Replacement, Role,
    TableRecords,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What CPUs may still have cached: leaves that were cleared and not flushed.
pub(crate) type Stale = Rc<RefCell<Vec<(VirtAddr, Block)>>>;

/// What is counted.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) lookups: Rc<Cell<u64>>,
    pub(crate) flushes: Rc<Cell<u64>>,
    /// Leaves that were exchanged without a break.
    pub(crate) unbroken: Rc<Cell<u64>>,
    /// Which of the leaves that are cleared stays, if one does.
    pub(crate) keeps: Rc<Cell<Option<u64>>>,
    /// Whether it says as long as nothing is mapped that it exchanges nothing, and exchanges nevertheless.
    pub(crate) refuses_while_empty: Rc<Cell<bool>>,
    /// Whether it does nothing and says that all is done where a huge leaf would have to be split.
    pub(crate) passes_over_huge_leaves: Rc<Cell<bool>>,
    /// The last frame that an entry can hold, if there is one.
    pub(crate) last: Rc<Cell<Option<Pfn>>>,
}

pub(crate) fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// A page table that exchanges entries in use as it is told when it is made.
pub(crate) struct PerPage {
    how: Replacement,
    granule: Granule,
    huge: Option<Order>,
    pub(crate) leaves: BTreeMap<VirtAddr, Leaf>,
    /// Entries that are in use and not present.
    pub(crate) reserved: BTreeSet<VirtAddr>,
    /// Leaves that table walks do not see yet.
    pub(crate) unseen: BTreeSet<VirtAddr>,
    broken: BTreeSet<VirtAddr>,
    quiet: Option<VirtRange>,
    stale: Stale,
    figures: Figures,
}

impl PerPage {
    pub(crate) fn new(
        how: Replacement,
        granule: Granule,
        huge: Option<Order>,
        stale: Stale,
        figures: Figures,
    ) -> Self {
        Self {
            how,
            granule,
            huge,
            leaves: BTreeMap::new(),
            reserved: BTreeSet::new(),
            unseen: BTreeSet::new(),
            broken: BTreeSet::new(),
            quiet: None,
            stale,
            figures,
        }
    }

    fn span(&self, at: VirtAddr, leaf: &Leaf) -> VirtRange {
        VirtRange::new(at, leaf.block.order().bytes(self.granule).unwrap()).unwrap()
    }

    /// The page at `at`, if something is kept there.
    fn reserved_at(&self, at: VirtAddr) -> Option<VirtRange> {
        let page = at.align_down(self.granule.shift());
        let is_reserved = self.reserved.contains(&page) || self.broken.contains(&page);
        is_reserved.then(|| VirtRange::new(page, self.granule.bytes()).unwrap())
    }

    /// What is at `at`.
    pub(crate) fn look(&self, at: VirtAddr) -> Lookup {
        let below = self.leaves.range(..=at).next_back();
        let below = below.map(|(start, leaf)| (self.span(*start, leaf), *leaf));
        if let Some((span, leaf)) = below
            && span.contains(at)
        {
            let at = span.start();
            return Lookup::Mapped(Mapping { at, leaf });
        }
        if let Some(page) = self.reserved_at(at) {
            return Lookup::Reserved(page);
        }
        let leaf = self.leaves.range(at..).next().map(|(at, _)| *at);
        let kept = self.reserved.range(at..).next().copied();
        let last = match leaf.into_iter().chain(kept).min() {
            Some(next) => VirtAddr::new(next.get() - 1),
            None => VirtAddr::new(u64::MAX),
        };
        Lookup::Hole(VirtRange::between(at, last).unwrap())
    }

    fn make_stale(&self, at: VirtAddr, leaf: &Leaf) {
        self.stale.borrow_mut().push((at, leaf.block));
    }
}

// SAFETY: 1: the map holds the leaf at its address. 2: they read the map. 3: nothing translates by
// it. 4: the default `unmap` reports after its flush. 5: `clear_leaf` passes foreign leaves over,
// and `map_leaf` looks for what is there.
unsafe impl PageTable for PerPage {
    type Replace = AsTold;

    fn granule(&self) -> Granule {
        self.granule
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.huge
    }

    fn last_frame(&self) -> Pfn {
        self.figures.last.get().unwrap_or(Pfn::MAX)
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        add(&self.figures.lookups, 1);
        self.look(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        _node: NodeId,
        _records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        let order = leaf.block.order();
        let is_known = order == Order::BASE || Some(order) == self.huge;
        if !is_known || !at.is_aligned(order.bytes(self.granule).unwrap()) {
            return Err(MapError::Unsupported { at, order });
        }
        let span = self.span(at, &leaf);
        match self.look(at) {
            Lookup::Hole(hole) if hole.last() >= span.last() => {}
            Lookup::Hole(hole) => {
                let at = hole.last().checked_add(1).unwrap();
                return Err(MapError::InUse { at });
            }
            _ => return Err(MapError::InUse { at }),
        }
        self.leaves.insert(at, leaf);
        self.unseen.insert(at);
        Ok(())
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let mapping = self.look(at).mapping()?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        let keeps = self.figures.keeps.get();
        self.figures
            .keeps
            .set(keeps.and_then(|left| left.checked_sub(1)));
        if keeps == Some(0) {
            return None;
        }
        self.leaves.remove(&mapping.at);
        self.unseen.remove(&mapping.at);
        self.make_stale(mapping.at, &mapping.leaf);
        flush.add(self.span(mapping.at, &mapping.leaf));
        Some(mapping)
    }

    fn flush(&mut self, obligation: Flush, _records: &dyn TableRecords) {
        let covered = |at: VirtAddr| match obligation.scope() {
            FlushScope::Nothing => false,
            FlushScope::Everything => true,
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => {
                ranges.iter().any(|range| range.contains(at))
            }
        };
        self.stale.borrow_mut().retain(|(at, _)| !covered(*at));
        let something = u64::from(obligation.scope() != FlushScope::Nothing);
        add(&self.figures.flushes, something);
    }

    fn entries_added(&mut self, _range: VirtRange) {
        self.unseen.clear();
    }
}

/// One of the library's ways to exchange entries: the one that the page table is told.
pub(crate) enum AsTold {}

// SAFETY: 1 to 3: as the library's do.
unsafe impl Replace<PerPage> for AsTold {
    const RESIZES: bool = false;

    fn replacement(table: &PerPage) -> Replacement {
        match table.figures.refuses_while_empty.get() && table.leaves.is_empty() {
            true => Replacement::Refused,
            false => table.how,
        }
    }

    unsafe fn replace<X: Exchange>(
        table: &mut PerPage,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let passes_over = table.figures.passes_over_huge_leaves.get();
        // SAFETY: the caller's duties are the same.
        let replaced = unsafe {
            match table.how {
                Replacement::Direct => Direct::replace(table, range, node, exchange, records),
                Replacement::BreakBeforeMake => {
                    BreakBeforeMake::replace(table, range, node, exchange, records)
                }
                _ => Refuse::replace(table, range, node, exchange, records),
            }
        };
        match replaced {
            Err(ReplaceError::SplitsHugeLeaf { .. }) if passes_over => Ok(Replaced::default()),
            replaced => replaced,
        }
    }
}

// SAFETY: 1 and 2: the map holds the new leaf in place of the old one, or of the one that was
// broken.
unsafe impl ExchangeLeaf for PerPage {
    unsafe fn exchange_leaf(&mut self, at: VirtAddr, leaf: Leaf) {
        let old = self.leaves.insert(at, leaf);
        if self.how != Replacement::BreakBeforeMake {
            self.make_stale(at, &old.unwrap());
            return;
        }
        let is_quiet = self.quiet.is_some_and(|quiet| quiet.contains(at));
        let is_cached = self.stale.borrow().iter().any(|(stale, _)| *stale == at);
        let was_broken = self.broken.remove(&at);
        let is_right = is_quiet && was_broken && !is_cached;
        add(&self.figures.unbroken, u64::from(!is_right));
        self.unseen.insert(at);
    }
}

// SAFETY: 1: it is called once, with this map, which nobody else uses.
unsafe impl BreakLeaf for PerPage {
    unsafe fn break_leaf(&mut self, at: VirtAddr) {
        let old = self.leaves.remove(&at).unwrap();
        self.make_stale(at, &old);
        self.broken.insert(at);
    }

    fn quiesce(&mut self, range: VirtRange, work: &mut dyn FnMut(&mut Self)) {
        self.quiet = Some(range);
        work(self);
        self.quiet = None;
    }
}
