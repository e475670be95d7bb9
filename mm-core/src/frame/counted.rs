//! Reference counts for an allocator that has none.

use super::reference_counts::ReferenceCounts;
use super::{
    AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, PlainAllocator, Released,
};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};

/// A [`PlainAllocator`] with reference counts, in memory that the caller supplies.
///
/// | counts | memory | suit |
/// |---|---|---|
/// | [`SharedCounts`](super::SharedCounts) | 16 bytes for each frame that several entries map, which [`DevPagemap::shared_frames`](crate::pagemap::DevPagemap::shared_frames) tells ahead: 8 MiB for 1 TiB in pages of 2 MiB with tails per compound page, 16 bytes with tails per order | kernels whose page-table lock is held with interrupts off, or is never taken by interrupt handlers |
/// | [`WordCounts`](super::WordCounts) | 4 bytes for each frame of RAM: 1 GiB for 1 TiB of 4 KiB frames | small machines; tests, since an audit finds entries that map free frames too |
///
/// A frame that the allocator hands out and that has no place in the counts is given back at once, and
/// counts as none left.
#[derive(Debug)]
pub struct Counted<A, C> {
    allocator: A,
    counts: C,
    /// Whether nobody but the vmemmap takes frames from here.
    exclusive: bool,
}

impl<A: PlainAllocator, C: ReferenceCounts> Counted<A, C> {
    /// Counts the references of what `allocator` hands out in `counts`.
    pub const fn new(allocator: A, counts: C) -> Self {
        Self {
            allocator,
            counts,
            exclusive: true,
        }
    }
}

impl<A, C> Counted<A, C> {
    /// Says that others take frames from here too, for purposes of their own. An audit then looks
    /// for wrong counts, and cannot look for frames that have leaked.
    #[must_use]
    pub fn shared_with_others(self) -> Self {
        Self {
            exclusive: false,
            ..self
        }
    }

    /// The allocator without its counts.
    pub const fn allocator(&self) -> &A {
        &self.allocator
    }
}

// SAFETY: 1 and 5: duties 1 and 3 of the plain allocator, which gets a block back only from `free`.
// 2 to 4: `ReferenceCounts` keeps them.
unsafe impl<A: PlainAllocator, C: ReferenceCounts> FrameAllocator for Counted<A, C> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let refused = OutOfFrames { order, node };
        let block = self.allocator.allocate(order, node).ok_or(refused)?;
        if self.counts.claim(block) {
            return Ok(block);
        }
        // SAFETY: 1 and 2: it was handed out just now and nobody has seen it.
        unsafe { self.allocator.free(block) };
        Err(refused)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let order = Order::BASE;
        let refused = OutOfFrames { order, node };
        let run = self.allocator.allocate_run(at_most, node).ok_or(refused)?;
        let (counted, others) = run.split_at(self.counts.claim_frames(run));
        for frame in others.into_iter().flatten() {
            // SAFETY: 1 and 2: it was handed out just now and nobody has seen it.
            unsafe { self.allocator.free(Block::single(frame)) };
        }
        counted.ok_or(refused)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    fn most_references(&self) -> u64 {
        self.counts.most_references()
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's duties 1 and 2.
        unsafe { self.counts.release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        // SAFETY: the caller vouches for each frame of the run.
        unsafe { self.release_each(run, 1, 1) }
    }

    unsafe fn release_each(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        let step = step.max(1);
        let mut freed = 0;
        let mut rest = Some(frames);
        while let Some(frames) = rest {
            // SAFETY: 1: the caller's duties 1 and 2, for each of the frames.
            let last = unsafe { self.counts.release_last(frames, step, references) };
            for index in 0..last {
                let frame = frames.start().saturating_add(index.saturating_mul(step));
                // SAFETY: 1: by the caller's duty it was handed out here. 2: its last reference has gone.
                unsafe { self.allocator.free(Block::single(frame)) };
            }
            if last == 0 {
                // SAFETY: 1 and 2: the caller's, for this frame.
                let released = unsafe { self.release(Block::single(frames.start()), references) };
                if let Released::Last(block) = released {
                    // SAFETY: 1: released just now.
                    unsafe { self.free(block) };
                    freed += 1;
                }
            }
            freed += last;
            rest = frames.split_at(last.max(1).saturating_mul(step)).1;
        }
        freed
    }

    unsafe fn free(&self, block: OwnedBlock) {
        let block = block.block();
        self.counts.clear(block);
        // SAFETY: 1: by the caller's duty it was handed out by `allocate`, or is a frame of a block
        // that was (duty 2 of the plain allocator). 2: its last reference has gone.
        unsafe { self.allocator.free(block) };
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        self.counts.keep(block.block());
        block.block()
    }

    fn can_split(&self) -> bool {
        self.allocator.takes_back_frames()
    }

    unsafe fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        self.allocator.node_of(frame)
    }
}

impl<A, C: ReferenceCounts> InspectFrames for Counted<A, C> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn tells_free_frames(&self) -> bool {
        C::TELLS_FREE_FRAMES
    }

    fn outstanding(&self) -> Option<u64> {
        self.exclusive.then(|| self.counts.in_use())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{SharedCounts, WordCounts};
    extern crate std;
    use core::sync::atomic::AtomicU32;
    use std::cell::RefCell;
    use std::vec::Vec;

    const NODE: NodeId = NodeId::new(0);

    /// Frames 0 to 15, of which those below 12 are counted.
    struct Plain(RefCell<Vec<u64>>);

    impl Plain {
        fn new() -> Self {
            Self(RefCell::new((0..16).collect()))
        }

        fn free_frames(&self) -> usize {
            self.0.borrow().len()
        }
    }

    // SAFETY: 1: frames leave the list when they are handed out. 2: they are single frames in it.
    // 3: no contents are touched in these tests.
    unsafe impl PlainAllocator for Plain {
        fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
            let mut free = self.0.borrow_mut();
            let first = *free.iter().find(|first| {
                let wanted = **first..**first + order.frames();
                **first % order.frames() == 0 && wanted.clone().all(|frame| free.contains(&frame))
            })?;
            free.retain(|frame| !(first..first + order.frames()).contains(frame));
            Block::new(Pfn::new(first)?, order)
        }

        fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
            let first = self.allocate(Order::BASE, node)?.first();
            let mut frames = 1;
            let mut free = self.0.borrow_mut();
            while frames < at_most && free.first() == Some(&(first.get() + frames)) {
                free.remove(0);
                frames += 1;
            }
            PfnRange::new(first, frames).ok()
        }

        unsafe fn free(&self, block: Block) {
            let mut free = self.0.borrow_mut();
            let first = block.first().get();
            free.extend(first..first + block.order().frames());
            free.sort_unstable();
        }

        fn node_of(&self, _frame: Pfn) -> NodeId {
            NODE
        }
    }

    fn words() -> [AtomicU32; 12] {
        [const { AtomicU32::new(9) }; 12]
    }

    type ByWords<'c> = Counted<&'c Plain, WordCounts<'c>>;

    fn counted<'c>(plain: &'c Plain, words: &'c mut [AtomicU32]) -> ByWords<'c> {
        let frames = PfnRange::new(Pfn::ZERO, 12).unwrap();
        Counted::new(plain, WordCounts::new(frames, words).unwrap())
    }

    #[test]
    fn frames_beyond_the_counts_go_back_at_once() {
        let (plain, mut words) = (Plain::new(), words());
        let counted = counted(&plain, &mut words);
        let run = counted.allocate_run(16, NODE).unwrap();
        assert_eq!((run.start().get(), run.frames()), (0, 12));
        assert_eq!(plain.free_frames(), 4);
        assert!(counted.allocate_run(1, NODE).is_err());
        assert!(counted.allocate(Order::BASE, NODE).is_err());
        assert_eq!(plain.free_frames(), 4);
        // SAFETY: the references are this test's.
        unsafe { counted.release_run(run) };
        assert_eq!(plain.free_frames(), 16);
    }

    #[test]
    fn the_last_reference_frees_and_no_other() {
        let (plain, mut words) = (Plain::new(), words());
        let counted = counted(&plain, &mut words);
        let block = counted.allocate(Order::new(2).unwrap(), NODE).unwrap();
        // SAFETY: 1 and 2: the block is this test's, and so are its references.
        unsafe {
            counted.acquire(block.first(), 4).unwrap();
            assert_eq!(counted.references(block.first()), Some(5));
            assert_eq!(counted.release(block, 3), Released::Shared);
            let Released::Last(owned) = counted.release(block, 2) else {
                panic!("there are no other references");
            };
            assert_eq!(plain.free_frames(), 12);
            assert!(counted.acquire(block.first(), 1).is_err());
            let kept = counted.keep(owned);
            assert_eq!(
                (kept, counted.references(kept.first())),
                (block, Some(1)),
                "a block that is kept has one reference again"
            );
            assert_eq!(plain.free_frames(), 12);
            let Released::Last(owned) = counted.release(kept, 1) else {
                panic!("there are no other references");
            };
            counted.free(owned);
        }
        assert_eq!(plain.free_frames(), 16);
    }

    /// Takes all 12 frames, gives some more references to some of them, and releases of every `step`th of
    /// `frames` so many references as are said. Answers which frames are free then, and what was returned.
    fn freed_by<C: ReferenceCounts>(
        counted: &Counted<&Plain, C>,
        more: &[(u64, u64)],
        (first, frames, step, references): (u64, u64, u64, u64),
    ) -> (Vec<u64>, u64) {
        let run = counted.allocate_run(12, NODE).unwrap();
        assert_eq!((run.start().get(), run.frames()), (0, 12));
        for (frame, references) in more {
            // SAFETY: 1: the frames are this test's. 2: nothing is left of them after it.
            unsafe { counted.acquire(Pfn::new(*frame).unwrap(), *references) }.unwrap();
        }
        let frames = PfnRange::new(Pfn::new(first).unwrap(), frames).unwrap();
        // SAFETY: 1 and 2: the references are this test's.
        let freed = unsafe { counted.release_each(frames, step, references) };
        let free = counted.allocator.0.borrow().clone();
        let below = free.into_iter().filter(|frame| *frame < 12);
        (below.collect(), freed)
    }

    #[test]
    fn every_stepth_frame_is_released_and_no_other() {
        // What is acquired, what is released, and what is free then.
        type Case<'c> = (&'c [(u64, u64)], (u64, u64, u64, u64), &'c [u64]);
        let cases: [Case<'_>; 7] = [
            (&[], (2, 5, 1, 1), &[2, 3, 4, 5, 6]),
            (&[], (2, 5, 2, 1), &[2, 4, 6]),
            (&[], (2, 6, 4, 1), &[2, 6]),
            (&[], (3, 1, 0, 1), &[3]),
            // One that somebody else has too stays.
            (&[(4, 1)], (2, 5, 1, 1), &[2, 3, 5, 6]),
            // Pairs: the second of each has 6 more.
            (&[(3, 6), (5, 6), (7, 6)], (3, 5, 2, 7), &[3, 5, 7]),
            (&[(3, 6), (5, 8), (7, 6)], (3, 5, 2, 7), &[3, 7]),
        ];
        for (more, released, free) in cases {
            let expected = (free.to_vec(), free.len() as u64);
            let (plain, mut words) = (Plain::new(), words());
            let by_words = counted(&plain, &mut words);
            assert_eq!(freed_by(&by_words, more, released), expected);
            let (plain, mut words) = (Plain::new(), [0; 8]);
            let shared = Counted::new(&plain, SharedCounts::new(&mut words));
            // It has no counts for frames from 12 on to refuse.
            plain.0.borrow_mut().truncate(12);
            assert_eq!(freed_by(&shared, more, released), expected);
            assert_eq!(shared.outstanding(), Some(12 - expected.1));
            let left = more.iter().filter(|(_, more)| *more > released.3);
            assert_eq!(shared.counts.shared_frames(), left.count() as u64);
        }
    }

    #[test]
    fn a_split_block_is_counted_frame_by_frame() {
        let (plain, mut words) = (Plain::new(), words());
        let counted = counted(&plain, &mut words);
        let block = counted.allocate(Order::new(3).unwrap(), NODE).unwrap();
        // SAFETY: 1 and 2: the block's one reference is this test's, and then one on each frame.
        unsafe {
            counted.split(block);
            counted.release_run(block.frames());
        }
        assert_eq!(plain.free_frames(), 16);
        assert_eq!(counted.outstanding(), Some(0));
        assert_eq!(counted.shared_with_others().outstanding(), None);
    }
}
