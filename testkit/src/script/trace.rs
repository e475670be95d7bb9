//! An allocator that writes down what it hands out, so that [another one](super::replay) can do it
//! again.

#![allow(
    clippy::unwrap_used,
    reason = "a lock is poisoned only by a test that has failed"
)]

use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, Altmap, AltmapRecord, FrameAllocator, OutOfFrames, OwnedBlock, Released,
};
use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;

/// What an allocation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Block(Block),
    Run(PfnRange),
    Refused(Order),
}

impl Taken {
    /// How many frames were handed out.
    pub(super) fn frames(&self) -> u64 {
        match self {
            Self::Block(block) => block.order().frames(),
            Self::Run(run) => run.frames(),
            Self::Refused(_) => 0,
        }
    }

    /// The first of them.
    pub(super) fn first(&self) -> Option<Pfn> {
        match self {
            Self::Block(block) => Some(block.first()),
            Self::Run(run) => Some(run.start()),
            Self::Refused(_) => None,
        }
    }
}

/// An allocator that writes down what it hands out.
#[derive(Debug)]
pub(super) struct Traced<'a, A> {
    allocator: &'a A,
    log: Mutex<VecDeque<Taken>>,
}

impl<'a, A> Traced<'a, A> {
    pub(super) fn new(allocator: &'a A) -> Self {
        Self {
            allocator,
            log: Mutex::default(),
        }
    }

    /// The allocator that is written about.
    pub(super) fn allocator(&self) -> &'a A {
        self.allocator
    }

    /// What was handed out since the last time.
    pub(super) fn take(&self) -> VecDeque<Taken> {
        mem::take(&mut *self.log.lock().unwrap())
    }

    fn note<T: Copy, E>(
        &self,
        result: Result<T, E>,
        order: Order,
        taken: impl Fn(T) -> Taken,
    ) -> Result<T, E> {
        let entry = match &result {
            Ok(out) => taken(*out),
            Err(_) => Taken::Refused(order),
        };
        self.log.lock().unwrap().push_back(entry);
        result
    }
}

// SAFETY: 1 to 5 hold because they hold for the allocator that is written about.
unsafe impl<A: FrameAllocator> FrameAllocator for Traced<'_, A> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        self.note(self.allocator.allocate(order, node), order, Taken::Block)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let run = self.allocator.allocate_run(at_most, node);
        self.note(run, Order::BASE, Taken::Run)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.allocator.acquire(first, references) }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: the caller's duties are the same.
        unsafe { self.allocator.release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.allocator.release_run(run) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: the caller's duty is the same.
        unsafe { self.allocator.free(block) }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { self.allocator.keep(block) }
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { self.allocator.split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.allocator.node_of(frame)
    }
}

// SAFETY: 1 to 3 hold because they hold for the altmap that is written about.
unsafe impl<A: Altmap> Altmap for Traced<'_, A> {
    fn reserved(&self) -> PfnRange {
        self.allocator.reserved()
    }

    fn count_frames(&self) -> u64 {
        self.allocator.count_frames()
    }

    fn record(&self) -> &AltmapRecord {
        self.allocator.record()
    }
}
