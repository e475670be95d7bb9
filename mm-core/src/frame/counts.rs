//! Reference counts of the frames of a range, wherever they are kept.

use super::{AcquireError, OwnedBlock, Released};
use crate::addr::{Block, Pfn, PfnRange};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

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

/// Where counts are kept: one for each frame of a range.
pub(super) trait CountStore {
    /// The largest value that a count can have. Of a frame that belongs to a block which is counted
    /// at its first frame.
    const INSIDE_BLOCK: u64;

    /// The frames.
    fn frames(&self) -> PfnRange;

    /// The count of `frame`, if it is one of these.
    fn load(&self, frame: Pfn) -> Option<u64>;

    /// Makes the count of `frame`, if it is one of these, `value`.
    fn store(&self, frame: Pfn, value: u64);

    /// Changes the count of `frame` in one step, unless `change` or the frame is none, and tells
    /// what it was.
    fn update(&self, frame: Pfn, change: impl FnMut(u64) -> Option<u64>) -> Option<u64>;
}

/// Counts in memory that was lent for that alone: a word for each frame.
#[derive(Debug)]
pub(super) struct Words<'c> {
    frames: PfnRange,
    words: &'c [AtomicU64],
}

impl Words<'_> {
    fn word(&self, frame: Pfn) -> Option<&AtomicU64> {
        let index = frame.get().checked_sub(self.frames.start().get())?;
        self.words.get(usize::try_from(index).ok()?)
    }
}

impl CountStore for Words<'_> {
    const INSIDE_BLOCK: u64 = u64::MAX;

    fn frames(&self) -> PfnRange {
        self.frames
    }

    fn load(&self, frame: Pfn) -> Option<u64> {
        Some(self.word(frame)?.load(Ordering::Acquire))
    }

    fn store(&self, frame: Pfn, value: u64) {
        if let Some(word) = self.word(frame) {
            word.store(value, Ordering::Release);
        }
    }

    fn update(&self, frame: Pfn, change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let word = self.word(frame)?;
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .ok()
    }
}

/// Counts for the frames of a range.
///
/// A count of zero means that the frame is free.
#[derive(Debug)]
pub(super) struct Counts<S> {
    store: S,
}

impl<'c> Counts<Words<'c>> {
    /// Counts for `frames` in `words`, all zero at first.
    pub(super) fn in_words(
        frames: PfnRange,
        words: &'c mut [AtomicU64],
    ) -> Result<Self, TooFewCounts> {
        let too_few = TooFewCounts {
            needed: frames.frames(),
            given: words.len(),
        };
        let needed = usize::try_from(frames.frames()).map_err(|_| too_few)?;
        let words: &'c [AtomicU64] = words;
        let words = words.get(..needed).ok_or(too_few)?;
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        Ok(Self::new(Words { frames, words }))
    }

    /// How many frames are not free.
    pub(super) fn in_use(&self) -> u64 {
        let used = |word: &&AtomicU64| word.load(Ordering::Relaxed) != 0;
        self.store.words.iter().filter(used).count() as u64
    }
}

impl<S: CountStore> Counts<S> {
    /// Counts where `store` keeps them, with the values that they have there.
    pub(super) const fn new(store: S) -> Self {
        Self { store }
    }

    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// The count of the block that starts at `first`.
    pub(super) fn references(&self, first: Pfn) -> Option<u64> {
        let count = self.store.load(first)?;
        Some(if count == S::INSIDE_BLOCK { 0 } else { count })
    }

    /// Takes `block` with one reference, if all of it lies here and is free.
    pub(super) fn claim(&self, block: Block) -> bool {
        if !self.store.frames().contains_range(block.frames()) {
            return false;
        }
        let first = block.first();
        for index in 0..block.order().frames() {
            let value = if index == 0 { 1 } else { S::INSIDE_BLOCK };
            let claimed = self
                .store
                .update(first.saturating_add(index), |count| {
                    (count == 0).then_some(value)
                })
                .is_some();
            if !claimed {
                self.fill(first, index, 0);
                return false;
            }
        }
        true
    }

    /// Gives each frame of `block` a count of its own, 1.
    pub(super) fn split(&self, block: Block) {
        self.fill(block.first(), block.order().frames(), 1);
    }

    /// Makes all of `block` free.
    pub(super) fn clear(&self, block: Block) {
        self.fill(block.first(), block.order().frames(), 0);
    }

    /// Makes the counts of the `frames` frames from `first` on, which may be none, `value`.
    fn fill(&self, first: Pfn, frames: u64, value: u64) {
        for index in 0..frames {
            self.store.store(first.saturating_add(index), value);
        }
    }

    pub(super) fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.store
            .update(first, |count| match count {
                0 => None,
                count if count == S::INSIDE_BLOCK => None,
                count => count
                    .checked_add(references)
                    .filter(|sum| *sum < S::INSIDE_BLOCK),
            })
            .map(drop)
            .ok_or(AcquireError { frame: first })
    }

    /// # Safety
    ///
    /// 1. The caller owns `references` references of `block`, which was claimed here in this size
    ///    or split.
    pub(super) unsafe fn release(&self, block: Block, references: u64) -> Released {
        if references == 0 {
            return Released::Shared;
        }
        let before = self.store.update(block.first(), |count| {
            match count.checked_sub(references)? {
                // Not zero yet: it must not be claimed before it is freed.
                0 => Some(S::INSIDE_BLOCK),
                left => Some(left),
            }
        });
        if before != Some(references) {
            return Released::Shared;
        }
        // SAFETY: 1: the last reference has just gone. 2: it goes once, since no reference can
        // be acquired after it.
        Released::Last(unsafe { OwnedBlock::new(block) })
    }
}
