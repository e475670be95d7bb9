//! Frames of RAM: a NUMA allocator with reference counts that can be told to fail and that watches
//! its callers.
//!
//! ```text
//!   SimFrames ─┬─ nodes:  FreeSet (intervals)     which frames are free
//!              ├─ Counts: a word for each frame   how many references, in blocks of which order
//!              ├─ Faults                          which allocations fail
//!              ├─ Poison                          what a sanitizer is to know
//!              └─ hooks                           who wants to know
//! ```

mod calls;
mod counts;
mod faults;
mod free_set;
mod poison;
mod state;
#[cfg(test)]
mod tests;

use crate::memory::SimMemory;
use crate::violations::{Violation, Violations};
pub use calls::AllocatorCalls;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
use state::{Hook, State};
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A NUMA allocator of frames with reference counts.
///
/// Takes the lowest free frames of the node that is asked for, or of the nearest other node, by the
/// difference of their numbers, where that one has none. Misuse is written to the memory's log and
/// has no effect.
pub struct SimFrames {
    /// Which frames are on which node. Never changed.
    map: Vec<(PfnRange, NodeId)>,
    state: Mutex<State>,
    violations: Violations,
}

impl fmt::Debug for SimFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFrames")
            .field("map", &self.map)
            .finish_non_exhaustive()
    }
}

impl SimFrames {
    /// An allocator of the frames of `nodes`, which are frames of `memory`; all are free.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] where ranges overlap or a frame is not in `memory`, or what
    /// the host says when it has no room for the counts.
    pub fn new(memory: &SimMemory, nodes: &[(NodeId, &[PfnRange])]) -> io::Result<Self> {
        let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let mut map: Vec<(PfnRange, NodeId)> = Vec::new();
        for (node, ranges) in nodes {
            for range in *ranges {
                if !memory.contains(*range) {
                    return invalid(format!("node {node}: no chunk of memory has {range}"));
                }
                if let Some((other, _)) = map.iter().find(|(other, _)| other.overlaps(*range)) {
                    return invalid(format!("ranges of nodes overlap: {range} and {other}"));
                }
                map.push((*range, *node));
            }
        }
        Ok(Self {
            state: Mutex::new(State::new(memory, &map)?),
            map,
            violations: memory.violations().clone(),
        })
    }

    /// How many frames are out.
    pub fn outstanding(&self) -> u64 {
        self.lock().outstanding
    }

    /// The block that is out and starts at `first`, if there is one.
    pub fn block_at(&self, first: Pfn) -> Option<Block> {
        let order = self.lock().order_at(first)?;
        Block::new(first, order)
    }

    /// The most frames that were out at a time, since the start or since
    /// [`reset_peak`](Self::reset_peak).
    pub fn peak(&self) -> u64 {
        self.lock().peak
    }

    /// Makes what is out now the peak.
    pub fn reset_peak(&self) {
        let mut state = self.lock();
        state.peak = state.outstanding;
    }

    /// How many allocations there were: one for a block of any order, `n` for a run of `n` frames.
    pub fn allocations(&self) -> u64 {
        self.lock().allocations
    }

    /// How often each of its methods was called.
    pub fn calls(&self) -> AllocatorCalls {
        self.lock().calls
    }

    /// Lets the next `allocations` succeed and all later ones fail. A run gets what is left.
    pub fn fail_after(&self, allocations: u64) {
        self.lock().faults.left = Some(allocations);
    }

    /// Makes one allocation fail, after `allocations` that succeed. A run ends before it.
    pub fn fail_nth(&self, allocations: u64) {
        self.lock().faults.until = Some(allocations);
    }

    /// Makes allocations of more than one frame fail, as in fragmented memory, or succeed again.
    pub fn fail_blocks(&self, fail: bool) {
        self.lock().faults.blocks = fail;
    }

    /// Makes `node` act as if nothing were free on it.
    pub fn fill_node(&self, node: NodeId) {
        self.lock().set_full(node, true);
    }

    /// Makes what is free on `node` available again.
    pub fn empty_node(&self, node: NodeId) {
        self.lock().set_full(node, false);
    }

    /// Takes all of this back: allocations succeed as long as frames are free.
    pub fn no_more_faults(&self) {
        let mut state = self.lock();
        state.faults = faults::Faults::default();
        state.nodes.iter_mut().for_each(|node| node.full = false);
    }

    /// Calls `hook` after each allocation with the frames, before the caller gets them.
    pub fn on_allocate(&self, hook: impl Fn(PfnRange) + Send + Sync + 'static) {
        self.lock().on_allocate.push(Hook::new(hook));
    }

    /// Calls `hook` with frames that are being freed, before anybody can get them again. The
    /// allocator is locked then: the hook must not call it.
    pub fn on_free(&self, hook: impl Fn(PfnRange) + Send + Sync + 'static) {
        self.lock().on_free.push(Hook::new(hook));
    }

    /// Calls `hook` with blocks that are kept when their last references have gone, as `on_free` does.
    pub fn on_keep(&self, hook: impl Fn(PfnRange) + Send + Sync + 'static) {
        self.lock().on_keep.push(Hook::new(hook));
    }

    /// Forgets all hooks.
    pub fn remove_hooks(&self) {
        let mut state = self.lock();
        state.on_allocate.clear();
        state.on_free.clear();
        state.on_keep.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlocks, and tells who wants to know that `frames` were handed out.
    fn handed_out(&self, state: MutexGuard<'_, State>, frames: PfnRange) {
        if state.on_allocate.is_empty() {
            return;
        }
        let hooks = state.on_allocate.clone();
        drop(state);
        hooks.iter().for_each(|hook| hook.call(frames));
    }

    /// Writes down what `result` says went wrong.
    fn report<T>(&self, result: Result<T, Violation>) -> Option<T> {
        result
            .map_err(|violation| self.violations.record(violation))
            .ok()
    }

    fn record_all(&self, violations: Vec<Violation>) {
        for violation in violations {
            self.violations.record(violation);
        }
    }
}

// SAFETY: 1: a block is taken out of the free frames of one node, where it is aligned, and put back
// by `free`, `release_run` or `release_each` only, once, as the counts show. 2: its word is set to 1
// when it is handed out, and written by `acquire`, these, `release` and `split` only. 3:
// `State::acquire` checks both. 4: `State::release` takes a word to zero and leaves the block out;
// `State::keep` makes it 1 again.
// 5: `new` refuses frames that are not in memory.
unsafe impl FrameAllocator for SimFrames {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let mut state = self.lock();
        let block = state.allocate(order, node).ok_or(refused)?;
        self.handed_out(state, block.frames());
        Ok(block)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let order = Order::BASE;
        let refused = OutOfFrames { order, node };
        let mut state = self.lock();
        let run = state.allocate_run(at_most, node).ok_or(refused)?;
        self.handed_out(state, run);
        Ok(run)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        let refused = AcquireError { frame: first };
        let result = self.lock().acquire(first, references);
        match self.report(result) {
            Some(true) => Ok(()),
            _ => Err(refused),
        }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        let result = self.lock().release(block, references);
        match self.report(result) {
            // SAFETY: 1: the block is out in this size, and its last reference went just now. 2: it
            // went once: a block without references gets none again before it is freed.
            Some(true) => Released::Last(unsafe { OwnedBlock::new(block) }),
            _ => Released::Shared,
        }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        let (freed, violations) = self.lock().release_run(run);
        self.record_all(violations);
        freed
    }

    unsafe fn release_each(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        let (freed, violations) = self.lock().release_each(frames, step, references);
        self.record_all(violations);
        freed
    }

    unsafe fn free(&self, block: OwnedBlock) {
        let result = self.lock().free(block.block());
        self.report(result);
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        let result = self.lock().keep(block.block());
        self.report(result);
        block.block()
    }

    unsafe fn split(&self, block: Block) {
        let result = self.lock().split(block);
        self.report(result);
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        let mut ranges = self.map.iter();
        match ranges.find(|(frames, _)| frames.contains(frame)) {
            Some((_, node)) => *node,
            None => {
                self.violations.record(Violation::NotManaged { frame });
                NodeId::default()
            }
        }
    }
}

impl InspectFrames for SimFrames {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.lock().references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        Some(self.lock().outstanding)
    }
}
