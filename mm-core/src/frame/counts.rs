//! Reference counts of 32 bits for the frames of a range, wherever they are kept.

use super::{AcquireError, OwnedBlock, Released};
use crate::addr::{Block, Pfn, PfnRange};
use core::sync::atomic::{AtomicU32, Ordering};

/// Where counts are kept: one for each frame of a range.
pub(super) trait CountStore {
    /// The frames.
    fn frames(&self) -> PfnRange;

    /// The count of `frame`, if it is one of these.
    fn count(&self, frame: Pfn) -> Option<&AtomicU32>;
}

/// The count of a frame that belongs to a block which is counted at its first frame, and of a frame
/// without references that is not free yet.
const INSIDE_BLOCK: u32 = u32::MAX;

/// How many references a frame can have.
pub(super) const MOST_REFERENCES: u64 = INSIDE_BLOCK as u64 - 1;

/// Counts for the frames of a range.
///
/// A count of zero means that the frame is free.
#[derive(Debug)]
pub(super) struct Counts<S> {
    store: S,
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
        let count = self.store.count(first)?.load(Ordering::Acquire);
        Some(if count == INSIDE_BLOCK {
            0
        } else {
            count.into()
        })
    }

    /// Takes `block` with one reference, if all of it lies here and is free.
    pub(super) fn claim(&self, block: Block) -> bool {
        if !self.store.frames().contains_range(block.frames()) {
            return false;
        }
        let first = block.first();
        for index in 0..block.order().frames() {
            let value = if index == 0 { 1 } else { INSIDE_BLOCK };
            let claimed = self
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

    /// Gives `block`, whose last reference has gone, one again.
    pub(super) fn keep(&self, block: Block) {
        self.fill(block.first(), 1, 1);
    }

    /// Makes all of `block` free.
    pub(super) fn clear(&self, block: Block) {
        self.fill(block.first(), block.order().frames(), 0);
    }

    /// Makes the counts of the `frames` frames from `first` on, which may be none, `value`.
    fn fill(&self, first: Pfn, frames: u64, value: u32) {
        for index in 0..frames {
            if let Some(count) = self.store.count(first.saturating_add(index)) {
                count.store(value, Ordering::Release);
            }
        }
    }

    /// Changes the count of `frame` in one step, unless `change` or the frame is none, and tells
    /// what it was.
    fn update(&self, frame: Pfn, change: impl FnMut(u32) -> Option<u32>) -> Option<u32> {
        let count = self.store.count(frame)?;
        count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .ok()
    }

    pub(super) fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        let refused = AcquireError { frame: first };
        let references = u32::try_from(references).map_err(|_| refused)?;
        self.update(first, |count| match count {
            0 | INSIDE_BLOCK => None,
            count => count
                .checked_add(references)
                .filter(|sum| *sum < INSIDE_BLOCK),
        })
        .map(drop)
        .ok_or(refused)
    }

    /// # Safety
    ///
    /// 1. The caller owns `references` references of `block`, which was claimed here in this size
    ///    or split.
    pub(super) unsafe fn release(&self, block: Block, references: u64) -> Released {
        // Nobody owns more than can be counted.
        let Ok(references @ 1..) = u32::try_from(references) else {
            return Released::Shared;
        };
        let before = self.update(block.first(), |count| {
            match count.checked_sub(references)? {
                // Not zero yet: it must not be claimed before it is freed.
                0 => Some(INSIDE_BLOCK),
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
