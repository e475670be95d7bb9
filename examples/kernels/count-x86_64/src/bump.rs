//! An allocator that only goes on.

use core::cell::Cell;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::PlainAllocator;

/// Frames one after the other.
#[derive(Debug)]
pub struct Bump {
    next: Cell<u64>,
    end: u64,
    out: Cell<u64>,
    calls: Cell<u64>,
}

impl Bump {
    /// Of `ram`.
    pub const fn new(ram: PfnRange) -> Self {
        Self {
            next: Cell::new(ram.start().get()),
            end: ram.last().get() + 1,
            out: Cell::new(0),
            calls: Cell::new(0),
        }
    }

    /// How many frames are out.
    pub fn frames_out(&self) -> u64 {
        self.out.get()
    }

    /// How often it was asked for frames or given some.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    fn take(&self, first: u64, frames: u64) -> Option<Pfn> {
        self.calls.set(self.calls.get() + 1);
        if first + frames > self.end {
            return None;
        }
        self.next.set(first + frames);
        self.out.set(self.out.get() + frames);
        Pfn::new(first)
    }
}

// SAFETY: 1: it goes on only. 2: it counts frames. 3: whose RAM it is has it mapped.
unsafe impl PlainAllocator for Bump {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let first = self.next.get().next_multiple_of(order.frames());
        Block::new(self.take(first, order.frames())?, order)
    }

    fn allocate_run(&self, at_most: u64, _node: NodeId) -> Option<PfnRange> {
        let first = self.next.get();
        let frames = at_most.min(self.end - first);
        PfnRange::new(self.take(first, frames)?, frames).ok()
    }

    unsafe fn free(&self, block: Block) {
        self.calls.set(self.calls.get() + 1);
        self.out.set(self.out.get() - block.order().frames());
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}
