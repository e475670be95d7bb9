//! Reference counts in memory that somebody else owns: one word for each frame.

use super::{AcquireError, OwnedBlock, Released};
use crate::addr::{Block, Pfn, PfnRange};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Of a frame that belongs to a block which is counted at its first frame.
const INSIDE_BLOCK: u64 = u64::MAX;

/// The memory for the counts is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewCounts {
    /// How many words there have to be: one for each frame.
    pub needed: u64,
    /// How many there are.
    pub given: usize,
}

impl fmt::Display for TooFewCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames need a count for each of them; only {} were given",
            self.needed, self.given
        )
    }
}

impl core::error::Error for TooFewCounts {}

/// Counts for the frames of a range.
///
/// A count of zero means that the frame is free.
#[derive(Debug)]
pub(super) struct Counts<'c> {
    frames: PfnRange,
    counts: &'c [AtomicU64],
}

impl<'c> Counts<'c> {
    /// Counts for `frames`, all zero at first.
    pub(super) fn new(frames: PfnRange, counts: &'c [AtomicU64]) -> Result<Self, TooFewCounts> {
        let too_few = TooFewCounts {
            needed: frames.frames(),
            given: counts.len(),
        };
        let needed = usize::try_from(frames.frames()).map_err(|_| too_few)?;
        let counts = counts.get(..needed).ok_or(too_few)?;
        for count in counts {
            count.store(0, Ordering::Relaxed);
        }
        Ok(Self { frames, counts })
    }

    pub(super) fn frames(&self) -> PfnRange {
        self.frames
    }

    fn count(&self, frame: Pfn) -> Option<&AtomicU64> {
        let index = frame.get().checked_sub(self.frames.start().get())?;
        self.counts.get(usize::try_from(index).ok()?)
    }

    /// The count of the block that starts at `first`.
    pub(super) fn references(&self, first: Pfn) -> Option<u64> {
        let count = self.count(first)?.load(Ordering::Acquire);
        Some(if count == INSIDE_BLOCK { 0 } else { count })
    }

    /// How many frames are not free.
    pub(super) fn in_use(&self) -> u64 {
        let used = |count: &&AtomicU64| count.load(Ordering::Relaxed) != 0;
        self.counts.iter().filter(used).count() as u64
    }

    /// Takes `block` with one reference, if all of it lies here and is free.
    pub(super) fn claim(&self, block: Block) -> bool {
        if !self.frames.contains_range(block.frames()) {
            return false;
        }
        let first = block.first().get();
        for index in 0..block.order().frames() {
            let value = if index == 0 { 1 } else { INSIDE_BLOCK };
            let claimed = Pfn::new(first + index)
                .and_then(|frame| self.count(frame))
                .is_some_and(|count| {
                    count
                        .compare_exchange(0, value, Ordering::Acquire, Ordering::Relaxed)
                        .is_ok()
                });
            if !claimed {
                self.store(first, index, 0);
                return false;
            }
        }
        true
    }

    /// Gives each frame of `block` a count of its own, 1.
    pub(super) fn split(&self, block: Block) {
        self.store(block.first().get(), block.order().frames(), 1);
    }

    /// Makes all of `block` free.
    pub(super) fn clear(&self, block: Block) {
        self.store(block.first().get(), block.order().frames(), 0);
    }

    fn store(&self, first: u64, frames: u64, value: u64) {
        for index in 0..frames {
            if let Some(count) = Pfn::new(first + index).and_then(|frame| self.count(frame)) {
                count.store(value, Ordering::Release);
            }
        }
    }

    pub(super) fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        let refused = AcquireError { frame: first };
        let count = self.count(first).ok_or(refused)?;
        count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| match count {
                0 | INSIDE_BLOCK => None,
                count => count
                    .checked_add(references)
                    .filter(|sum| *sum != INSIDE_BLOCK),
            })
            .map(drop)
            .map_err(|_| refused)
    }

    /// # Safety
    ///
    /// 1. The caller owns `references` references of `block`, which was claimed here in this size or split.
    pub(super) unsafe fn release(&self, block: Block, references: u64) -> Released {
        let Some(count) = self.count(block.first()) else {
            return Released::Shared;
        };
        let before = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            match count.checked_sub(references)? {
                // Not zero yet: it must not be claimed before it is freed.
                0 => Some(INSIDE_BLOCK),
                left => Some(left),
            }
        });
        if references == 0 || before != Ok(references) {
            return Released::Shared;
        }
        // SAFETY: 1: the last reference has just gone. 2: it goes once, since no reference can
        // be acquired after it.
        Released::Last(unsafe { OwnedBlock::new(block) })
    }
}
