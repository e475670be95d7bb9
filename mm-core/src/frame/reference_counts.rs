//! Where [`Counted`](super::Counted) keeps reference counts.

use sealed::CountFrames;

/// Reference counts of the frames that an allocator hands out: [`WordCounts`](super::WordCounts) or
/// [`SharedCounts`](super::SharedCounts).
pub trait ReferenceCounts: CountFrames {}

impl<C: CountFrames> ReferenceCounts for C {}

pub(super) mod sealed {
    use super::super::{AcquireError, Released};
    use crate::addr::{Block, Pfn, PfnRange};

    /// What [`Counted`](super::super::Counted) asks of counts. Nobody else can call or implement it.
    pub trait CountFrames {
        /// Whether `references` is 0 for free frames.
        const TELLS_FREE_FRAMES: bool;

        /// How many references a frame can have.
        fn most_references(&self) -> u64;

        /// Takes `block` with one reference, if it can be counted and is free as far as is known.
        fn claim(&self, block: Block) -> bool;

        /// Takes single frames, the first of `run`, with one reference each. Says how many.
        fn claim_frames(&self, run: PfnRange) -> u64;

        /// Gives each frame of `block`, which has one reference, a reference of its own.
        fn split(&self, block: Block);

        /// Gives `block`, whose last reference has gone, one again.
        fn keep(&self, block: Block);

        /// Makes all of `block`, whose last reference has gone, free.
        fn clear(&self, block: Block);

        /// Adds references to the block that starts at `first`.
        fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError>;

        /// Takes references of `block`.
        ///
        /// # Safety
        ///
        /// 1. The caller owns `references` references of `block`, which was claimed here in this size
        ///    or split.
        unsafe fn release(&self, block: Block, references: u64) -> Released;

        /// Takes `references` of one frame after the other, every `step`th of `frames` (a step is at least
        /// 1), and makes these frames free, as long as they have no references then. Says how many it made
        /// free: where it is none, the first one is to be released by itself.
        ///
        /// # Safety
        ///
        /// 1. The caller owns `references` references of each of these frames, which were claimed here as
        ///    single frames or split.
        unsafe fn release_last(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
            let _ = (frames, step, references);
            0
        }

        /// The references of the block that starts at `first`.
        fn references(&self, first: Pfn) -> Option<u64>;

        /// How many frames are not free.
        fn in_use(&self) -> u64;
    }
}
