//! Releases what was unmapped: neighbours together, whether they were reported together or not.

use super::frame_pool::FramePool;
use crate::addr::{Order, PfnRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{GroupTails, Groups, Leaf, Role, Run, RunSink, Step};

/// Releases the references of leaves that a page table reports, to the pool that their frames came from.
///
/// References of one tail frame are gathered, and single frames that follow each other, until there are
/// others. [`finish`](Self::finish) releases the last of them.
pub(super) struct Releases<'p, 'v, A, M> {
    pool: &'p mut FramePool<'v, A, M>,
    /// A tail leaf, and how many references of it there are.
    tail: Option<(Leaf, u64)>,
    /// Single frames with one reference each, up to so many.
    frames: Option<PfnRange>,
    most: u64,
}

impl<'p, 'v, A: FrameAllocator, M: DirectMap> Releases<'p, 'v, A, M> {
    /// Releases to `pool`. Up to `most` frames are released together: as many as a leaf table maps, which is what a
    /// pool takes in one run.
    ///
    /// # Safety
    ///
    /// 1. All leaves that are reported were mapped with frames of `pool`, with one reference each.
    /// 2. They are reported when no entry depends on those references any more, and no translation that a
    ///    CPU has cached.
    pub(super) const unsafe fn new(pool: &'p mut FramePool<'v, A, M>, most: u64) -> Self {
        Self {
            pool,
            tail: None,
            frames: None,
            most,
        }
    }

    /// Releases what is still gathered.
    pub(super) fn finish(mut self) {
        self.release_frames();
        self.release_tail();
    }

    fn add_frames(&mut self, frames: PfnRange) {
        let both = self.frames.and_then(|before| before.joined(frames));
        let both = both.filter(|both| both.frames() <= self.most);
        if both.is_none() {
            self.release_frames();
        }
        self.frames = both.or(Some(frames));
    }

    fn add_tail(&mut self, leaf: Leaf, references: u64) {
        match &mut self.tail {
            Some((same, sum)) if *same == leaf => *sum = sum.saturating_add(references),
            _ => {
                self.release_tail();
                self.tail = Some((leaf, references));
            }
        }
    }

    #[inline(never)]
    fn release_frames(&mut self) {
        if let Some(frames) = self.frames.take() {
            // SAFETY: 1 and 2: duties 1 and 2 of `new`.
            unsafe { self.pool.release_frames(frames, Role::Descriptors) };
        }
    }

    #[inline(never)]
    fn release_tail(&mut self) {
        if let Some((leaf, count)) = self.tail.take() {
            let step = Step::Same;
            // SAFETY: 1 and 2: duties 1 and 2 of `new`.
            unsafe { self.pool.release_run(Run { leaf, count, step }) };
        }
    }
}

impl<A: FrameAllocator, M: DirectMap> RunSink for Releases<'_, '_, A, M> {
    fn run(&mut self, run: Run) {
        let is_single = run.leaf.block.order() == Order::BASE;
        let frames = match run.leaf.role {
            Role::Descriptors if run.count == 1 && is_single => Some(run.leaf.block.frames()),
            Role::Descriptors => run.frames(),
            Role::Tail | Role::Foreign => None,
        };
        match frames {
            Some(frames) => self.add_frames(frames),
            None if run.leaf.role == Role::Tail && run.step == Step::Same => {
                self.add_tail(run.leaf, run.count);
            }
            // SAFETY: 1 and 2: duties 1 and 2 of `new`.
            None => unsafe { self.pool.release_run(run) },
        }
    }

    fn groups(&mut self, groups: Groups) {
        let tails = groups.pages.saturating_sub(1);
        match groups.tails {
            GroupTails::Same(tail) => {
                self.add_frames(groups.frames);
                self.add_tail(tail, tails.saturating_mul(groups.groups()));
            }
            // There may be more entries of its tail.
            GroupTails::Own if groups.groups() == 1 => {
                let (head, tail) = groups.group(0);
                self.add_frames(head.block.frames());
                self.add_tail(tail, tails);
            }
            // SAFETY: 1 and 2: duties 1 and 2 of `new`.
            GroupTails::Own => unsafe { self.pool.release_pairs(groups.frames, tails) },
        }
    }
}
