//! What is under the allocator's lock, and what each operation does to it.

use super::calls::AllocatorCalls;
use super::counts::{AllCounts, Counts, MAX, Word, load, store};
use super::faults::Faults;
use super::free_set::FreeSet;
use super::poison::Poison;
use crate::memory::SimMemory;
use crate::violations::Violation;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use std::io;
use std::sync::Arc;

/// A function that is told of frames.
#[derive(Clone)]
pub(super) struct Hook(Arc<dyn Fn(PfnRange) + Send + Sync>);

impl Hook {
    pub(super) fn new(hook: impl Fn(PfnRange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn call(&self, frames: PfnRange) {
        (self.0)(frames)
    }
}

/// One node's free frames.
pub(super) struct Node {
    id: NodeId,
    free: FreeSet,
    /// Whether it acts as if there were none.
    pub(super) full: bool,
}

/// The allocator without its lock.
pub(super) struct State {
    /// Which frames are on which node.
    map: Vec<(PfnRange, NodeId)>,
    pub(super) nodes: Vec<Node>,
    counts: AllCounts,
    poison: Poison,
    pub(super) faults: Faults,
    pub(super) outstanding: u64,
    pub(super) peak: u64,
    pub(super) allocations: u64,
    pub(super) calls: AllocatorCalls,
    pub(super) on_allocate: Vec<Hook>,
    pub(super) on_free: Vec<Hook>,
    pub(super) on_keep: Vec<Hook>,
}

impl State {
    pub(super) fn new(memory: &SimMemory, map: &[(PfnRange, NodeId)]) -> io::Result<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut counts = Vec::with_capacity(map.len());
        for (frames, id) in map {
            counts.push(Counts::new(*frames)?);
            let node = match nodes.iter_mut().position(|node| node.id == *id) {
                Some(index) => nodes.get_mut(index),
                None => {
                    nodes.push(Node {
                        id: *id,
                        free: FreeSet::default(),
                        full: false,
                    });
                    nodes.last_mut()
                }
            };
            if let Some(node) = node {
                node.free.insert(frames.start().get(), frames.frames());
            }
        }
        Ok(Self {
            map: map.to_vec(),
            nodes,
            counts: AllCounts(counts),
            poison: Poison::new(memory),
            faults: Faults::default(),
            outstanding: 0,
            peak: 0,
            allocations: 0,
            calls: AllocatorCalls::default(),
            on_allocate: Vec::new(),
            on_free: Vec::new(),
            on_keep: Vec::new(),
        })
    }

    pub(super) fn set_full(&mut self, node: NodeId, full: bool) {
        let named = |candidate: &&mut Node| candidate.id == node;
        self.nodes
            .iter_mut()
            .filter(named)
            .for_each(|node| node.full = full);
    }

    /// The node nearest to `wanted` that has a free block of `order`.
    fn nearest(&mut self, wanted: NodeId, order: Order) -> Option<&mut FreeSet> {
        let distance = |node: &Node| (node.id.number().abs_diff(wanted.number()), node.id);
        self.nodes
            .iter_mut()
            .filter(|node| !node.full && node.free.has(order))
            .min_by_key(|node| distance(node))
            .map(|node| &mut node.free)
    }

    /// Counts `frames`, which went out in `allocations`.
    fn went_out(&mut self, frames: PfnRange, allocations: u64) {
        self.poison.handed_out(frames);
        self.outstanding += frames.frames();
        self.peak = self.peak.max(self.outstanding);
        self.allocations += allocations;
        self.faults.count(allocations);
    }

    pub(super) fn allocate(&mut self, order: Order, node: NodeId) -> Option<Block> {
        self.calls.allocate += 1;
        if self.faults.grant(order, 1) == 0 {
            return None;
        }
        let first = self.nearest(node, order)?.take(order)?;
        let block = Block::new(Pfn::new(first)?, order)?;
        store(self.counts.of(block)?, Word::out(order, 1));
        self.went_out(block.frames(), 1);
        Some(block)
    }

    pub(super) fn allocate_run(&mut self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        self.calls.allocate += 1;
        let at_most = match self.faults.grant(Order::BASE, at_most) {
            0 => return None,
            granted => granted,
        };
        let (first, frames) = self.nearest(node, Order::BASE)?.take_run(at_most)?;
        self.counts.fill(first, frames, Word::out(Order::BASE, 1));
        let run = PfnRange::new(Pfn::new(first)?, frames).ok()?;
        self.went_out(run, frames);
        Some(run)
    }

    /// Whether the references could be added.
    pub(super) fn acquire(&mut self, first: Pfn, references: u64) -> Result<bool, Violation> {
        self.calls.acquire += 1;
        let not_managed = Violation::NotManaged { frame: first };
        let word = self.counts.word(first.get()).ok_or(not_managed)?;
        let held = load(word);
        match held.references().checked_add(references) {
            Some(sum) if held.references() > 0 && sum <= MAX => {
                store(word, held.with(sum));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether these were the last references.
    pub(super) fn release(&mut self, block: Block, references: u64) -> Result<bool, Violation> {
        self.calls.release += 1;
        self.give_back(block, references)
    }

    fn give_back(&mut self, block: Block, references: u64) -> Result<bool, Violation> {
        let frame = block.first();
        let not_managed = Violation::NotManaged { frame };
        let word = self.counts.of(block).ok_or(not_managed)?;
        let held = load(word);
        if !held.is_out_as(block.order()) {
            return Err(Violation::ReleasedNotOut { block });
        }
        let left = held.references().checked_sub(references);
        let left = left.ok_or(Violation::ReleasedTooMany {
            frame,
            held: held.references(),
            released: references,
        })?;
        store(word, held.with(left));
        Ok(left == 0 && references > 0)
    }

    pub(super) fn free(&mut self, block: Block) -> Result<(), Violation> {
        self.calls.free += 1;
        self.free_unused(block)
    }

    fn free_unused(&mut self, block: Block) -> Result<(), Violation> {
        let frame = block.first();
        let not_managed = Violation::NotManaged { frame };
        let word = self.counts.of(block).ok_or(not_managed)?;
        let held = load(word);
        if !held.is_out_as(block.order()) {
            return Err(Violation::FreedNotOut { block });
        }
        if held.references() > 0 {
            let references = held.references();
            return Err(Violation::FreedWithReferences { block, references });
        }
        store(word, Word::FREE);
        self.put_back(block.frames());
        Ok(())
    }

    /// Gives a block that is out without references one again.
    pub(super) fn keep(&mut self, block: Block) -> Result<(), Violation> {
        self.calls.keep += 1;
        let frame = block.first();
        let not_managed = Violation::NotManaged { frame };
        let word = self.counts.of(block).ok_or(not_managed)?;
        let held = load(word);
        if held != Word::out(block.order(), 0) {
            return Err(Violation::FreedNotOut { block });
        }
        store(word, held.with(1));
        let frames = block.frames();
        self.on_keep.iter().for_each(|hook| hook.call(frames));
        Ok(())
    }

    pub(super) fn split(&mut self, block: Block) -> Result<(), Violation> {
        self.calls.split += 1;
        let frame = block.first();
        let not_managed = Violation::NotManaged { frame };
        let held = load(self.counts.of(block).ok_or(not_managed)?);
        if held != Word::out(block.order(), 1) {
            let references = if held.is_out_as(block.order()) {
                held.references()
            } else {
                0
            };
            return Err(Violation::SplitShared { block, references });
        }
        let each = Word::out(Order::BASE, 1);
        self.counts.fill(frame.get(), block.order().frames(), each);
        Ok(())
    }

    /// Gives back a reference of each frame, frees those that had no other, and tells how many
    /// those were and what went wrong.
    pub(super) fn release_run(&mut self, run: PfnRange) -> (u64, Vec<Violation>) {
        self.calls.release += 1;
        let mut violations = Vec::new();
        let mut all_freed = 0;
        let mut wrong = |number: u64, managed: bool| {
            if let Some(frame) = Pfn::new(number) {
                let block = Block::single(frame);
                violations.push(match managed {
                    true => Violation::ReleasedNotOut { block },
                    false => Violation::NotManaged { frame },
                });
            }
        };
        let last_reference = Word::out(Order::BASE, 1);
        let end = run.start().get() + run.frames();
        let mut frame = run.start().get();
        while frame < end {
            let words = self.counts.words(frame, end - frame);
            let dead = words.iter_mut().map_while(|word| {
                let last = load(word) == last_reference;
                last.then(|| store(word, Word::FREE))
            });
            let dead = dead.count() as u64;
            // The frame after the dead ones, if it is in the same range of frames.
            let other = words.get_mut(dead as usize).map(|word| {
                let held = load(word);
                let shared = held.is_out_as(Order::BASE) && held.references() > 1;
                if shared {
                    store(word, held.with(held.references() - 1));
                }
                shared
            });
            match other {
                Some(true) => {}
                Some(false) => wrong(frame + dead, true),
                None if dead == 0 => wrong(frame, false),
                None => {}
            }
            let freed = Pfn::new(frame).and_then(|first| PfnRange::new(first, dead).ok());
            if let Some(freed) = freed {
                self.put_back(freed);
                all_freed += dead;
            }
            frame += dead + u64::from(other.is_some() || dead == 0);
        }
        (all_freed, violations)
    }

    /// Gives back `references` of every `step`th frame, frees those that had no other, and tells how many
    /// those were and what went wrong.
    pub(super) fn release_each(
        &mut self,
        frames: PfnRange,
        step: u64,
        references: u64,
    ) -> (u64, Vec<Violation>) {
        self.calls.release += 1;
        let mut violations = Vec::new();
        let mut freed = 0;
        let step = usize::try_from(step).unwrap_or(usize::MAX).max(1);
        for frame in frames.into_iter().step_by(step) {
            let block = Block::single(frame);
            match self.give_back(block, references) {
                Ok(true) => {
                    freed += 1;
                    violations.extend(self.free_unused(block).err());
                }
                Ok(false) => {}
                Err(violation) => violations.push(violation),
            }
        }
        (freed, violations)
    }

    /// Makes `frames`, all of one node and with words that are free already, available again.
    fn put_back(&mut self, frames: PfnRange) {
        self.on_free.iter().for_each(|hook| hook.call(frames));
        self.poison.freed(frames);
        self.outstanding -= frames.frames();
        let first = frames.start();
        let mut map = self.map.iter();
        let id = map
            .find(|(range, _)| range.contains(first))
            .map(|(_, id)| *id);
        if let Some(node) = self.nodes.iter_mut().find(|node| Some(node.id) == id) {
            node.free.insert(first.get(), frames.frames());
        }
    }

    /// The order of the block that is out and starts at `first`.
    pub(super) fn order_at(&mut self, first: Pfn) -> Option<Order> {
        self.counts
            .word(first.get())
            .and_then(|word| load(word).order())
    }

    pub(super) fn references(&mut self, first: Pfn) -> Option<u64> {
        self.counts
            .word(first.get())
            .map(|word| load(word).references())
    }
}
