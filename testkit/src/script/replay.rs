//! An allocator that does again what [another one](super::trace) has written down, as long as it can.

#![allow(
    clippy::unwrap_used,
    reason = "a lock is poisoned only by a test that has failed"
)]

use super::trace::Taken;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, Altmap, AltmapRecord, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock,
    Released,
};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Mutex;

/// An allocator that hands out what another one has handed out, with counts of its own in a plain
/// map.
///
/// What does not fit is written down as a complaint.
#[derive(Debug)]
pub(super) struct Replay {
    log: Mutex<VecDeque<Taken>>,
    counts: Mutex<BTreeMap<Pfn, (Order, u64)>>,
    complaints: Mutex<Vec<String>>,
    nodes: Vec<(PfnRange, NodeId)>,
    reserved: PfnRange,
    /// If it is used as an altmap, how many of the reserved frames hold counts.
    count_frames: u64,
    /// It stays where it is when this value moves.
    record: Box<AltmapRecord>,
}

impl Replay {
    /// An allocator of frames of `page` bytes on `nodes`; if it is used as an altmap, of `reserved`.
    pub(super) fn new(nodes: Vec<(PfnRange, NodeId)>, reserved: PfnRange, page: u64) -> Self {
        Self {
            log: Mutex::default(),
            counts: Mutex::default(),
            complaints: Mutex::default(),
            nodes,
            reserved,
            count_frames: (64 + 4 * reserved.frames()).div_ceil(page),
            record: Box::default(),
        }
    }

    /// Will hand out this.
    pub(super) fn expect(&self, log: VecDeque<Taken>) {
        *self.log.lock().unwrap() = log;
    }

    /// What went wrong, and what was not asked for.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = mem::take(&mut *self.complaints.lock().unwrap());
        let left = mem::take(&mut *self.log.lock().unwrap());
        if !left.is_empty() {
            complaints.push(format!("the oracle never asked for {left:?}"));
        }
        complaints
    }

    fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap().push(complaint);
    }

    /// `block`, or another one of its kind if some of that is out. A change of order takes frames from the
    /// reserve in the order in which they came there, which is the page table's, so the oracle may have
    /// in use what the machine has given back.
    fn free_like(&self, block: Block) -> Block {
        let counts = self.counts.lock().unwrap();
        let is_free = |block: Block| {
            let frames = block.frames();
            let before = counts.range(..frames.start()).next_back();
            let reaches = before.is_some_and(|(first, (order, _))| {
                first.saturating_add(order.frames() - 1) >= frames.start()
            });
            !reaches
                && counts
                    .range(frames.start()..=frames.last())
                    .next()
                    .is_none()
        };
        if is_free(block) {
            return block;
        }
        let first = block.first();
        let all = match self.reserved.contains(first) {
            true => self.reserved.split_at(self.count_frames).1,
            false => {
                let mut nodes = self.nodes.iter();
                nodes
                    .find(|(range, _)| range.contains(first))
                    .map(|(range, _)| *range)
            }
        };
        let order = block.order();
        let mut others = all.into_iter().flat_map(|all| {
            let start = all.start().get().next_multiple_of(order.frames());
            let starts = (start..=all.last().get()).step_by(order.frames() as usize);
            let blocks = starts.filter_map(move |start| Block::new(Pfn::new(start)?, order));
            blocks.filter(move |block| all.contains_range(block.frames()))
        });
        others.find(|other| is_free(*other)).unwrap_or(block)
    }

    fn hand_out(&self, block: Block) {
        let before = self
            .counts
            .lock()
            .unwrap()
            .insert(block.first(), (block.order(), 1));
        if before.is_some() {
            self.complain(format!("{block:?} was handed out twice"));
        }
    }
}

// SAFETY: 1: what is handed out twice is complained about, and the frames are those of an allocator
// that keeps this duty. 2 to 4: the map of counts. 5: the oracle's memory has the same frames.
unsafe impl FrameAllocator for Replay {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let mut log = self.log.lock().unwrap();
        match log.front().copied() {
            Some(Taken::Block(block)) if block.order() == order => {
                log.pop_front();
                let block = self.free_like(block);
                self.hand_out(block);
                Ok(block)
            }
            Some(Taken::Refused(same)) if same == order => {
                log.pop_front();
                Err(refused)
            }
            // The other page table had no place for a block and did not ask.
            _ => Err(refused),
        }
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let front = self.log.lock().unwrap().pop_front();
        match front {
            Some(Taken::Run(run)) if run.frames() <= at_most => {
                // As far as all of them are free; else one at a time.
                let is_free = |frame: &Pfn| self.free_like(Block::single(*frame)).first() == *frame;
                let free = run.into_iter().take_while(is_free).count() as u64;
                let (part, rest) = run.take_first(free.max(1));
                let part = match free {
                    0 => self.free_like(Block::single(run.start())).frames(),
                    _ => part,
                };
                if let Some(rest) = rest {
                    self.log.lock().unwrap().push_front(Taken::Run(rest));
                }
                for frame in part {
                    self.hand_out(Block::single(frame));
                }
                Ok(part)
            }
            Some(Taken::Refused(order)) if order == Order::BASE => Err(OutOfFrames { order, node }),
            other => {
                self.complain(format!(
                    "the oracle asked for {at_most} frames, not {other:?}"
                ));
                let order = Order::BASE;
                Err(OutOfFrames { order, node })
            }
        }
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        match self.counts.lock().unwrap().get_mut(&first) {
            Some((_, count)) if *count > 0 => {
                *count += references;
                Ok(())
            }
            _ => Err(AcquireError { frame: first }),
        }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        let mut counts = self.counts.lock().unwrap();
        match counts.get_mut(&block.first()) {
            Some((order, count)) if *order == block.order() && *count >= references => {
                *count -= references;
                if *count > 0 {
                    return Released::Shared;
                }
                // SAFETY: 1 and 2: the last reference of a block that is out went just now, and no
                // other can be acquired.
                Released::Last(unsafe { OwnedBlock::new(block) })
            }
            held => {
                let held = held.copied();
                self.complain(format!("{references} of {block:?} released, held {held:?}"));
                Released::Shared
            }
        }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        match self.counts.lock().unwrap().remove(&block.block().first()) {
            Some((order, 0)) if order == block.block().order() => {}
            held => self.complain(format!("{block:?} freed, held {held:?}")),
        }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        let block = block.block();
        let held = self
            .counts
            .lock()
            .unwrap()
            .insert(block.first(), (block.order(), 1));
        if held != Some((block.order(), 0)) {
            self.complain(format!("{block:?} kept, held {held:?}"));
        }
        block
    }

    unsafe fn split(&self, block: Block) {
        let held = self.counts.lock().unwrap().remove(&block.first());
        if held != Some((block.order(), 1)) {
            self.complain(format!("{block:?} split, held {held:?}"));
        }
        let mut counts = self.counts.lock().unwrap();
        for index in 0..block.order().frames() {
            counts.insert(block.first().saturating_add(index), (Order::BASE, 1));
        }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(range, _)| range.contains(frame));
        found.map_or(NodeId::default(), |(_, node)| *node)
    }
}

// SAFETY: 1 and 2: the frames are those of an altmap over the same range. 3: in a box of its own, as
// long as the oracle's frames are.
unsafe impl Altmap for Replay {
    fn reserved(&self) -> PfnRange {
        self.reserved
    }

    fn count_frames(&self) -> u64 {
        self.count_frames
    }

    fn record(&self) -> &AltmapRecord {
        &self.record
    }
}

impl InspectFrames for Replay {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts
            .lock()
            .unwrap()
            .get(&first)
            .map(|(_, count)| *count)
    }

    fn outstanding(&self) -> Option<u64> {
        let counts = self.counts.lock().unwrap();
        Some(counts.values().map(|(order, _)| order.frames()).sum())
    }
}
