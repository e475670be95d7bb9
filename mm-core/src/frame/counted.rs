//! Reference counts for an allocator that has none.

use super::counts::{Counts, TooFewCounts, Words};
use super::{AcquireError, FrameAllocator, InspectFrames, OutOfFrames, OwnedBlock, Released};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use core::sync::atomic::AtomicU64;

/// An allocator of frames that only hands them out and takes them back.
///
/// # Safety
///
/// 1. A block that was handed out belongs to the caller alone, aligned to its size, all of it on
///    one node, until it is given back.
/// 2. A block that was handed out can be given back frame by frame, if
///    [`takes_back_frames`](Self::takes_back_frames) says so.
/// 3. Every frame is reachable through the kernel's [`DirectMap`](super::DirectMap) while it is
///    out.
pub unsafe trait PlainAllocator {
    /// Hands out a block of `order`, from `node` if it has one; `None` where there is none.
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block>;

    /// Hands out between 1 and `at_most` single frames that follow each other, all on one node. The
    /// library asks for at least 1. Worth overriding where it saves calls.
    fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        let _ = at_most;
        self.allocate(Order::BASE, node).map(Block::frames)
    }

    /// Takes a block, or a frame of one, back.
    ///
    /// # Safety
    ///
    /// 1. The frames were handed out by `allocate` and not given back since.
    /// 2. Nobody uses them any more.
    unsafe fn free(&self, block: Block);

    /// Whether a block can be given back frame by frame. Where it cannot, huge leaves of vmemmap are
    /// used only where they will never be split.
    fn takes_back_frames(&self) -> bool {
        true
    }

    /// The node that `frame` is on.
    fn node_of(&self, frame: Pfn) -> NodeId;
}

// SAFETY: 1 to 3 hold because they hold for the allocator behind the reference.
unsafe impl<T: PlainAllocator + ?Sized> PlainAllocator for &T {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        (**self).allocate(order, node)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Option<PfnRange> {
        (**self).allocate_run(at_most, node)
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).free(block) }
    }

    fn takes_back_frames(&self) -> bool {
        (**self).takes_back_frames()
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        (**self).node_of(frame)
    }
}

/// A [`PlainAllocator`] with reference counts, in memory that the caller supplies.
///
/// A frame that the allocator hands out from beyond the counted range is given back at once and
/// counts as none left.
#[derive(Debug)]
pub struct Counted<'c, A> {
    allocator: A,
    counts: Counts<Words<'c>>,
    /// Whether nobody but the vmemmap takes frames from here.
    exclusive: bool,
}

impl<'c, A: PlainAllocator> Counted<'c, A> {
    /// Counts the frames of `frames` that `allocator` hands out in `counts`, which has a word for
    /// each of them and is overwritten. The words are this value's alone for as long as they are
    /// borrowed:
    ///
    /// ```compile_fail,E0502
    /// use core::sync::atomic::{AtomicU64, Ordering};
    /// use mm_core::addr::PfnRange;
    /// use mm_core::frame::{Counted, FrameAllocator, PlainAllocator};
    ///
    /// fn stores(ram: &impl PlainAllocator, frames: PfnRange, mut counts: [AtomicU64; 16]) {
    ///     let counted = Counted::new(ram, frames, &mut counts);
    ///     counts[0].store(7, Ordering::Relaxed);
    ///     drop(counted);
    /// }
    /// ```
    ///
    /// ```compile_fail,E0499
    /// use core::sync::atomic::AtomicU64;
    /// use mm_core::addr::PfnRange;
    /// use mm_core::frame::{Counted, PlainAllocator};
    ///
    /// fn counts_twice(ram: &impl PlainAllocator, frames: PfnRange, mut counts: [AtomicU64; 16]) {
    ///     let first = Counted::new(ram, frames, &mut counts);
    ///     let second = Counted::new(ram, frames, &mut counts);
    ///     drop((first, second));
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TooFewCounts`].
    pub fn new(
        allocator: A,
        frames: PfnRange,
        counts: &'c mut [AtomicU64],
    ) -> Result<Self, TooFewCounts> {
        let counts = Counts::in_words(frames, counts)?;
        Ok(Self {
            allocator,
            counts,
            exclusive: true,
        })
    }

    /// Says that others take frames from here too, for purposes of their own. An audit then looks
    /// for wrong counts, and cannot look for frames that have leaked.
    pub fn shared_with_others(self) -> Self {
        Self {
            exclusive: false,
            ..self
        }
    }

    /// The allocator without its counts.
    pub fn allocator(&self) -> &A {
        &self.allocator
    }
}

// SAFETY: 1 and 5: duties 1 and 3 of the plain allocator, which gets a block back only from `free`.
// 2 to 4: `Counts` keeps them.
unsafe impl<A: PlainAllocator> FrameAllocator for Counted<'_, A> {
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
        let frames = (0..run.frames()).filter_map(|index| run.start().checked_add(index));
        let counted = frames
            .clone()
            .take_while(|frame| self.counts.claim(Block::single(*frame)))
            .count() as u64;
        for frame in frames.skip(usize::try_from(counted).unwrap_or(usize::MAX)) {
            // SAFETY: 1 and 2: it was handed out just now and nobody has seen it.
            unsafe { self.allocator.free(Block::single(frame)) };
        }
        run.split_at(counted).0.ok_or(refused)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's duties 1 and 2.
        unsafe { self.counts.release(block, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        let block = block.block();
        self.counts.clear(block);
        // SAFETY: 1: by the caller's duty it was handed out by `allocate`, or is a frame of a block
        // that was (duty 2 of the plain allocator). 2: its last reference has gone.
        unsafe { self.allocator.free(block) };
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

impl<A> InspectFrames for Counted<'_, A> {
    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn outstanding(&self) -> Option<u64> {
        self.exclusive.then(|| self.counts.in_use())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
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

    fn words() -> [AtomicU64; 12] {
        [const { AtomicU64::new(9) }; 12]
    }

    fn counted<'c>(plain: &'c Plain, words: &'c mut [AtomicU64]) -> Counted<'c, &'c Plain> {
        Counted::new(plain, PfnRange::new(Pfn::ZERO, 12).unwrap(), words).unwrap()
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
            counted.free(owned);
        }
        assert_eq!(plain.free_frames(), 16);
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
