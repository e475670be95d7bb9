//! Memory from before there is an allocator.

use core::cell::Cell;
use mm_core::addr::{Pfn, PfnRange};

/// Takes frames off the low end of a range, and never gives them back.
#[derive(Debug)]
pub struct EarlyFrames {
    rest: Cell<Option<PfnRange>>,
}

impl EarlyFrames {
    /// Frames from `range`.
    pub const fn new(range: PfnRange) -> Self {
        Self {
            rest: Cell::new(Some(range)),
        }
    }

    /// `frames` frames that follow each other; `None` where fewer are left.
    pub fn take(&self, frames: u64) -> Option<PfnRange> {
        let rest = self.rest.get()?;
        if rest.frames() < frames {
            return None;
        }
        let (taken, rest) = rest.split_at(frames);
        self.rest.set(rest);
        taken
    }

    /// One frame.
    pub fn take_one(&self) -> Option<Pfn> {
        self.take(1).map(PfnRange::start)
    }

    /// What was not taken. There is nothing to take afterwards.
    pub fn finish(&self) -> Option<PfnRange> {
        self.rest.take()
    }
}
