//! Frames that come from the device itself.

use super::counts::{Counts, TooFewCounts};
use super::{AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use core::sync::atomic::{AtomicU64, Ordering};

/// Frames for descriptors, taken from a reserved part of the device whose descriptors they hold.
///
/// An altmap is a [`FrameAllocator`] with the same duties and the same rule of reference counts;
/// only where its frames lie is different. So the algorithm treats both alike, and a frame goes back to the one that it
/// came from: [`contains`](Self::contains) tells which that is. Page tables never come from an altmap.
///
/// # Safety
///
/// 1. Every frame that is handed out lies in [`reserved`](Self::reserved), and nobody else uses the
///    frames of that range.
/// 2. `reserved` is the same range at each call.
pub unsafe trait Altmap: FrameAllocator {
    /// The reserved frames.
    fn reserved(&self) -> PfnRange;

    /// Whether `frame` is one of them.
    fn contains(&self, frame: Pfn) -> bool {
        self.reserved().contains(frame)
    }
}

/// An [`Altmap`] over a reserved range, with its counts in memory that the caller supplies.
///
/// Hands frames out from the lowest on and uses freed ones again; blocks are aligned to their size.
#[derive(Debug)]
pub struct DeviceAltmap<'c> {
    counts: Counts<'c>,
    node: NodeId,
    /// Where the next search starts: an offset in frames.
    next: AtomicU64,
}

impl<'c> DeviceAltmap<'c> {
    /// An altmap over `reserved`, memory of `node`, counting in `counts`, which has a word for each frame and
    /// is overwritten.
    ///
    /// # Errors
    ///
    /// [`TooFewCounts`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `reserved` are memory that nobody else uses while this value, or a mapping of a frame
    ///    that it handed out, is in use.
    /// 2. They are reachable through the kernel's [`DirectMap`](super::DirectMap).
    pub unsafe fn new(
        reserved: PfnRange,
        node: NodeId,
        counts: &'c [AtomicU64],
    ) -> Result<Self, TooFewCounts> {
        let counts = Counts::new(reserved, counts)?;
        Ok(Self {
            counts,
            node,
            next: AtomicU64::new(0),
        })
    }

    /// How many frames are out.
    pub fn in_use(&self) -> u64 {
        self.counts.in_use()
    }

    /// The first free block of `order` that starts at or after the offset `from` and below `to`.
    fn claim_between(&self, from: u64, to: u64, order: Order) -> Option<Block> {
        let start = self.counts.frames().start().get();
        let step = order.frames();
        let mut frame = start.checked_add(from)?.checked_next_multiple_of(step)?;
        while frame < start.checked_add(to)? {
            let block = Pfn::new(frame).and_then(|first| Block::new(first, order))?;
            if self.counts.claim(block) {
                self.next.store(frame + step - start, Ordering::Relaxed);
                return Some(block);
            }
            frame = frame.checked_add(step)?;
        }
        None
    }
}

// SAFETY: 1: a block is claimed in the counts before it is handed out and stays claimed until `free`; all of it is
// on the altmap's one node. 2 to 4: `Counts` keeps them. 5: duty 2 of `DeviceAltmap::new`.
unsafe impl FrameAllocator for DeviceAltmap<'_> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let frames = self.counts.frames().frames();
        let next = self.next.load(Ordering::Relaxed).min(frames);
        self.claim_between(next, frames, order)
            .or_else(|| self.claim_between(0, next, order))
            .ok_or(OutOfFrames { order, node })
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let first = self.allocate(Order::BASE, node)?.first();
        let mut frames = 1;
        while frames < at_most
            && let Some(next) = first.checked_add(frames)
            && self.counts.claim(Block::single(next))
        {
            frames += 1;
        }
        self.next.fetch_add(frames - 1, Ordering::Relaxed);
        PfnRange::new(first, frames).map_err(|_| OutOfFrames {
            order: Order::BASE,
            node,
        })
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's duties 1 and 2.
        unsafe { self.counts.release(block, references) }
    }

    fn free(&self, block: OwnedBlock) {
        self.counts.clear(block.block());
    }

    unsafe fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}

// SAFETY: 1: blocks are claimed in the counts, which exist for the reserved frames only. 2: the range
// is never changed.
unsafe impl Altmap for DeviceAltmap<'_> {
    fn reserved(&self) -> PfnRange {
        self.counts.frames()
    }
}

impl InspectFrames for DeviceAltmap<'_> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        Some(self.in_use())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    const NODE: NodeId = NodeId::new(0);

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(7)).collect()
    }

    fn altmap(start: u64, frames: u64, counts: &[AtomicU64]) -> DeviceAltmap<'_> {
        let reserved = PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
        // SAFETY: 1 and 2: no contents are touched in these tests.
        unsafe { DeviceAltmap::new(reserved, NODE, counts) }.unwrap()
    }

    fn give_back(altmap: &DeviceAltmap<'_>, block: Block) {
        // SAFETY: 1 and 2: each test gives back what it was given, once.
        match unsafe { altmap.release(block, 1) } {
            Released::Last(owned) => altmap.free(owned),
            Released::Shared => panic!("{block:?} has another owner"),
        }
    }

    #[test]
    fn frames_are_handed_out_to_the_last_and_no_further() {
        let counts = words(4);
        let altmap = altmap(100, 4, &counts);
        let run = altmap.allocate_run(10, NODE).unwrap();
        assert_eq!((run.start().get(), run.frames()), (100, 4));
        assert_eq!(
            altmap.allocate(Order::BASE, NODE),
            Err(OutOfFrames {
                order: Order::BASE,
                node: NODE
            })
        );
        assert_eq!(altmap.in_use(), 4);
    }

    #[test]
    fn a_freed_frame_is_used_again_in_any_order() {
        let counts = words(4);
        let altmap = altmap(0, 4, &counts);
        let blocks: Vec<_> = (0..4)
            .map(|_| altmap.allocate(Order::BASE, NODE).unwrap())
            .collect();
        for index in [2, 0, 3, 1] {
            give_back(&altmap, blocks[index]);
            assert_eq!(altmap.allocate(Order::BASE, NODE), Ok(blocks[index]));
        }
    }

    #[test]
    fn blocks_are_aligned_and_counted_as_one() {
        let counts = words(20);
        let altmap = altmap(6, 20, &counts);
        let order = Order::new(3).unwrap();
        let block = altmap.allocate(order, NODE).unwrap();
        assert_eq!(block.first().get(), 8);
        assert_eq!(altmap.references(block.first()), Some(1));
        assert_eq!(altmap.in_use(), 8);
        // 16 to 23 is whole, and after it nothing is.
        assert!(altmap.allocate(order, NODE).is_ok());
        assert!(altmap.allocate(order, NODE).is_err());
        give_back(&altmap, block);
        assert_eq!(altmap.in_use(), 8);
    }

    #[test]
    fn a_split_block_is_given_back_frame_by_frame() {
        let counts = words(8);
        let altmap = altmap(0, 8, &counts);
        let block = altmap.allocate(Order::new(3).unwrap(), NODE).unwrap();
        // SAFETY: 1 and 2: the block's one reference is this test's.
        unsafe { altmap.split(block) };
        // SAFETY: as above, one reference on each frame.
        unsafe { altmap.release_run(block.frames()) };
        assert_eq!(altmap.in_use(), 0);
    }

    #[test]
    fn a_free_frame_cannot_be_acquired() {
        let counts = words(2);
        let altmap = altmap(0, 2, &counts);
        let frame = Pfn::ZERO;
        // SAFETY: 1 and 2: refused, so nothing is owed.
        let refused = unsafe { altmap.acquire(frame, 1) };
        assert_eq!(refused, Err(AcquireError { frame }));
    }

    #[test]
    fn too_little_memory_for_the_counts_is_refused() {
        let counts = words(3);
        let reserved = PfnRange::new(Pfn::ZERO, 4).unwrap();
        // SAFETY: 1 and 2: no contents are touched.
        let refused = unsafe { DeviceAltmap::new(reserved, NODE, &counts) };
        assert_eq!(
            refused.err(),
            Some(TooFewCounts {
                needed: 4,
                given: 3
            })
        );
    }
}
