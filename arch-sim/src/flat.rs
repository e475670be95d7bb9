//! The oracle: a page table that is a plain map from addresses to leaves.
//!
//! It has no tables, no entries and no bits, and shares no code with any engine. What an engine
//! does on real tables has to look, from outside, as if it were done here.

use mm_core::addr::{Granule, NodeId, Order, VirtAddr, VirtRange};
use mm_core::paging::{Flush, FlushScope, Leaf, MapError, Mapping, PageTable, Role, Run, Visit};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A page table without tables: the oracle.
///
/// Nothing translates by it, so a flush has nothing to do but to be counted, and it never runs out of frames.
#[derive(Clone, Debug)]
pub struct FlatTable {
    granule: Granule,
    huge: Option<Order>,
    leaves: BTreeMap<VirtAddr, Leaf>,
    flushes: u64,
}

impl FlatTable {
    /// A table in which nothing is mapped, with leaves of one base page and, if there is `huge`, of that order.
    pub fn new(granule: Granule, huge: Option<Order>) -> Self {
        Self {
            granule,
            huge,
            leaves: BTreeMap::new(),
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
        let mapping = self.lookup(at)?;
        self.leaves.remove(&mapping.at);
        Some(mapping)
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

// SAFETY: 1: the map holds the leaf at its address, and no two leaves overlap. 2: they read the map, which
// is all there is; only `map_foreign` enters foreign leaves. 3 and 4: no CPU translates by the map.
// 5: `clear_leaf` returns before it removes a foreign leaf, and `unmap` calls it.
unsafe impl PageTable for FlatTable {
    fn granule(&self) -> Granule {
        self.granule
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.huge
    }

    fn lookup(&self, at: VirtAddr) -> Option<Mapping> {
        let (start, leaf) = self.leaves.range(..=at).next_back()?;
        let span = self.span(*start, leaf.block.order()).ok()?;
        span.contains(at).then_some(Mapping {
            at: *start,
            leaf: *leaf,
        })
    }

    unsafe fn map_leaf(&mut self, at: VirtAddr, leaf: Leaf, _node: NodeId) -> Result<(), MapError> {
        let order = leaf.block.order();
        if order != Order::BASE && Some(order) != self.huge {
            return Err(MapError::Unsupported { at, order });
        }
        self.enter(at, leaf)
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let mapping = self.lookup(at)?;
        if mapping.leaf.role == Role::Foreign {
            return None;
        }
        self.leaves.remove(&mapping.at);
        if let Ok(span) = self.span(mapping.at, mapping.leaf.block.order()) {
            flush.add(span);
        }
        Some(mapping)
    }

    fn flush(&mut self, obligation: Flush) {
        self.flushes += u64::from(obligation.scope() != FlushScope::Nothing);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let first = match self.lookup(range.start()) {
            Some(across) => across.at,
            None => range.start(),
        };
        for (at, leaf) in self.leaves.range(first..=range.last()) {
            visitor(Visit::Leaves {
                at: *at,
                run: Run::once(*leaf),
            })?;
        }
        ControlFlow::Continue(())
    }
}
