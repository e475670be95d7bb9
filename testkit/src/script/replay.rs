//! An allocator that does again what [another one](super::trace) has written down.

use super::trace::Taken;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::{
    AcquireError, Altmap, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

/// An allocator that hands out what another one has handed out, with counts of its own in a plain
/// map.
///
/// What does not fit is written down as a complaint.
#[derive(Debug)]
pub(super) struct Replay {
    log: RefCell<VecDeque<Taken>>,
    counts: RefCell<BTreeMap<Pfn, (Order, u64)>>,
    complaints: RefCell<Vec<String>>,
    nodes: Vec<(PfnRange, NodeId)>,
    reserved: PfnRange,
    /// How many frames a page of the vmemmap describes.
    per_page: u64,
    /// If it is used as an altmap, how many of the first reserved frames hold descriptors of
    /// these.
    holders: Cell<u64>,
}

impl Replay {
    /// An allocator of frames on `nodes`; if it is used as an altmap, of `reserved`.
    pub(super) fn new(nodes: Vec<(PfnRange, NodeId)>, reserved: PfnRange, per_page: u64) -> Self {
        Self {
            log: RefCell::default(),
            counts: RefCell::default(),
            complaints: RefCell::default(),
            nodes,
            reserved,
            per_page,
            holders: Cell::new(0),
        }
    }

    /// Will hand out this.
    pub(super) fn expect(&self, log: VecDeque<Taken>) {
        self.log.replace(log);
    }

    /// What went wrong, and what was not asked for.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.complaints.take();
        let left = self.log.take();
        if !left.is_empty() {
            complaints.push(format!("the oracle never asked for {left:?}"));
        }
        complaints
    }

    fn complain(&self, complaint: String) {
        self.complaints.borrow_mut().push(complaint);
    }

    fn hand_out(&self, block: Block) {
        let before = self
            .counts
            .borrow_mut()
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
        let mut log = self.log.borrow_mut();
        match log.front().copied() {
            Some(Taken::Block(block)) if block.order() == order => {
                log.pop_front();
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
        let front = self.log.borrow_mut().pop_front();
        match front {
            Some(Taken::Run(run)) if run.frames() <= at_most => {
                for frame in 0..run.frames() {
                    self.hand_out(Block::single(run.start().saturating_add(frame)));
                }
                Ok(run)
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
        match self.counts.borrow_mut().get_mut(&first) {
            Some((_, count)) if *count > 0 => {
                *count += references;
                Ok(())
            }
            _ => Err(AcquireError { frame: first }),
        }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        let mut counts = self.counts.borrow_mut();
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
        match self.counts.borrow_mut().remove(&block.block().first()) {
            Some((order, 0)) if order == block.block().order() => {
                let index = block
                    .block()
                    .first()
                    .get()
                    .wrapping_sub(self.reserved.start().get());
                if index < self.reserved.frames() / self.per_page {
                    self.holders.set(self.holders.get() - order.frames());
                }
            }
            held => self.complain(format!("{block:?} freed, held {held:?}")),
        }
    }

    unsafe fn split(&self, block: Block) {
        let held = self.counts.borrow_mut().remove(&block.first());
        if held != Some((block.order(), 1)) {
            self.complain(format!("{block:?} split, held {held:?}"));
        }
        let mut counts = self.counts.borrow_mut();
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

// SAFETY: 1 and 2: the frames are those of an altmap over the same range. 3: complained about where
// it is not so.
unsafe impl Altmap for Replay {
    fn reserved(&self) -> PfnRange {
        self.reserved
    }

    fn undescribed(&self) -> Option<PfnRange> {
        self.reserved.split_at(self.holders.get() * self.per_page).1
    }

    fn serves_others(&self) -> bool {
        self.outstanding()
            .is_some_and(|out| out > self.holders.get())
    }

    fn holders(&self, described: PfnRange) -> Option<PfnRange> {
        let first = described.start().get() - self.reserved.start().get();
        if first != self.holders.get() * self.per_page || !self.reserved.contains_range(described) {
            self.complain(format!("{described} described out of order"));
            return None;
        }
        let start = self.reserved.start().checked_add(first / self.per_page)?;
        PfnRange::new(start, described.frames() / self.per_page).ok()
    }

    unsafe fn begin_counting(&self, described: PfnRange, order: Order) {
        let mut rest = self.holders(described);
        while let Some(holders) = rest {
            let (first, later) = holders.take_first(order.frames());
            match Block::new(first.start(), order) {
                Some(block) => self.hand_out(block),
                None => self.complain(format!("{first} are no block")),
            }
            self.holders.set(self.holders.get() + first.frames());
            rest = later;
        }
    }
}

impl InspectFrames for Replay {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.borrow().get(&first).map(|(_, count)| *count)
    }

    fn outstanding(&self) -> Option<u64> {
        let counts = self.counts.borrow();
        Some(counts.values().map(|(order, _)| order.frames()).sum())
    }
}
