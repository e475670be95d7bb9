//! What cleared entries pointed at, collected until it is released.

use crate::addr::{Order, PfnRange};
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::{Leaf, Role, Run, Step};
use crate::vmemmap::frame_pool::FramePool;

/// References of entries by which no CPU translates any more. References of one tail frame are released
/// together, and so are those of single frames that follow each other.
pub(super) struct ToRelease<'v, M> {
    /// A tail frame, and how many of its entries are gone.
    tail: Option<(Leaf, u64)>,
    /// Single frames, up to so many.
    frames: Option<PfnRange>,
    most: u64,
    /// Those before.
    stack: FrameStack<'v, M>,
}

impl<'v, M: DirectMap> ToRelease<'v, M> {
    /// Takes up to `most` frames together: as many as a leaf table maps, which is what a pool takes in one
    /// run.
    pub(super) const fn new(direct_map: &'v M, most: u64) -> Self {
        Self {
            tail: None,
            frames: None,
            most,
            stack: FrameStack::new(direct_map),
        }
    }

    /// Adds the references of `run`.
    ///
    /// # Safety
    ///
    /// 1. `run` was mapped with frames of `pool`, with one reference for each leaf.
    /// 2. No entry depends on those references any more, and no translation that a CPU has cached.
    #[inline]
    pub(super) unsafe fn add<A: FrameAllocator>(
        &mut self,
        run: Run,
        pool: &mut FramePool<'_, A, M>,
    ) {
        if let Some((leaf, count)) = &mut self.tail
            && *leaf == run.leaf
            && run.step == Step::Same
        {
            *count += run.count;
            return;
        }
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.add_other(run, pool) };
    }

    /// # Safety
    ///
    /// 1 and 2. As for [`add`](Self::add).
    // Not inlined: most runs are of the tail frame.
    #[inline(never)]
    unsafe fn add_other<A: FrameAllocator>(&mut self, run: Run, pool: &mut FramePool<'_, A, M>) {
        let is_single = run.leaf.block.order() == Order::BASE;
        match run.leaf.role {
            Role::Tail if is_single && run.step == Step::Same => {
                // SAFETY: 1 and 2: the caller's, for each run that was added.
                unsafe { self.release_tail(pool) };
                self.tail = Some((run.leaf, run.count));
            }
            Role::Descriptors if is_single && (run.count == 1 || run.step == Step::Next) => {
                let Ok(frames) = PfnRange::new(run.leaf.block.first(), run.count) else {
                    return;
                };
                let both = self.frames.and_then(|before| before.joined(frames));
                let both = both.filter(|both| both.frames() <= self.most);
                if both.is_none() {
                    self.push(self.frames);
                }
                self.frames = both.or(Some(frames));
            }
            // SAFETY: 1 and 2: the caller's.
            _ => unsafe { pool.release_run(run) },
        }
    }

    fn push(&mut self, frames: Option<PfnRange>) {
        if let Some(frames) = frames {
            // SAFETY: 1: the entries were the frames' one users, and no CPU translates by them (duties 1 and 2
            // of `add`).
            unsafe { self.stack.push(frames) };
        }
    }

    /// Releases all of it.
    ///
    /// # Safety
    ///
    /// 1. `pool` is that of [`add`](Self::add).
    pub(super) unsafe fn release<A: FrameAllocator>(&mut self, pool: &mut FramePool<'_, A, M>) {
        let last = self.frames.take();
        self.push(last);
        // SAFETY: 1: they were mapped with frames of this pool. 2: duty 2 of `add`.
        unsafe {
            self.release_tail(pool);
            pool.release_stack(&mut self.stack, Role::Descriptors);
        }
    }

    /// # Safety
    ///
    /// 1. As for [`release`](Self::release).
    unsafe fn release_tail<A: FrameAllocator>(&mut self, pool: &mut FramePool<'_, A, M>) {
        if let Some((leaf, count)) = self.tail.take() {
            let step = Step::Same;
            // SAFETY: 1: they were mapped with frames of this pool. 2: duty 2 of `add`.
            unsafe { pool.release_run(Run { leaf, count, step }) };
        }
    }
}
