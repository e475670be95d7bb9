//! An allocator without counts.

use super::per_page::Stale;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::PlainAllocator;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// A bump allocator with a set of what came back; complains of frames that come back while they are
/// cached.
pub(crate) struct Plain {
    next: Cell<u64>,
    end: u64,
    free: RefCell<BTreeSet<u64>>,
    pub(crate) left: Cell<Option<u64>>,
    pub(crate) no_blocks: Cell<bool>,
    stale: Stale,
    pub(crate) complaints: Cell<u64>,
}

impl Plain {
    /// All of `ram` is free.
    pub(crate) fn new(ram: PfnRange, stale: Stale) -> Self {
        Self {
            next: Cell::new(ram.start().get()),
            end: ram.last().get() + 1,
            free: RefCell::default(),
            left: Cell::new(None),
            no_blocks: Cell::new(false),
            stale,
            complaints: Cell::new(0),
        }
    }
}

// SAFETY: 1: the counter only grows, and what came back is single frames, each handed out once
// until it comes back again. 2: it takes frames one by one. 3: all of them are the memory's.
unsafe impl PlainAllocator for Plain {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        if self.left.get() == Some(0) || (self.no_blocks.get() && order != Order::BASE) {
            return None;
        }
        let from_list = match order {
            Order::BASE => self.free.borrow_mut().pop_first(),
            _ => None,
        };
        let first = match from_list {
            Some(first) => first,
            None => {
                let first = self.next.get().next_multiple_of(order.frames());
                if first + order.frames() > self.end {
                    return None;
                }
                let mut free = self.free.borrow_mut();
                free.extend(self.next.get()..first);
                self.next.set(first + order.frames());
                first
            }
        };
        self.left.set(self.left.get().map(|left| left - 1));
        Block::new(Pfn::new(first)?, order)
    }

    unsafe fn free(&self, block: Block) {
        let frames = block.frames();
        let (first, last) = (frames.start().get(), frames.last().get());
        let mut stale = self.stale.borrow().clone().into_iter();
        let is_cached = stale.any(|(_, stale)| stale.frames().overlaps(frames));
        let mut free = self.free.borrow_mut();
        let is_free = free.range(first..=last).next().is_some();
        free.extend(first..=last);
        let wrong = u64::from(is_cached) + u64::from(is_free);
        self.complaints.set(self.complaints.get() + wrong);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}
