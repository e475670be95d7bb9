//! Runs for the engine, and what became of them.

use crate::machine::{Mapped, NODE, Paging};
use arch_sim::SimFrames;
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{Leaf, Role, Run, RunSource};
use std::marker::PhantomData;

/// Which runs a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// As many frames that follow each other as are asked for.
    Distinct,
    /// One frame, then one read-only frame for all that follows.
    Compound,
    /// Huge leaves where they fit, single frames elsewhere.
    Huge,
}

/// A source whose frames come from the machine. Keeps book of what it gave and did not get back.
pub(crate) struct Source<'m, F> {
    frames: &'m SimFrames,
    plan: Plan,
    calls: u64,
    tail: Option<Pfn>,
    pub(crate) mapped: Mapped,
    format: PhantomData<F>,
}

impl<'m, F: Paging> Source<'m, F> {
    pub(crate) fn new(frames: &'m SimFrames, plan: Plan) -> Self {
        Self {
            frames,
            plan,
            calls: 0,
            tail: None,
            mapped: Mapped::new(),
            format: PhantomData,
        }
    }

    fn single(&self) -> Result<Pfn, &'static str> {
        let block = self.frames.allocate(Order::BASE, NODE);
        block.map(|block| block.first()).map_err(|_| "no frame")
    }

    fn run(&mut self, pages: u64, largest: Order) -> Result<Run, &'static str> {
        let own = |frame| Run::repeat(frame, 1, Role::Descriptors);
        match self.plan {
            Plan::Distinct => {
                let frames = self.frames.allocate_run(pages, NODE);
                frames
                    .map(|frames| Run::each(frames, Role::Descriptors))
                    .map_err(|_| "no frames")
            }
            Plan::Huge if largest != Order::BASE => {
                let block = self
                    .frames
                    .allocate(largest, NODE)
                    .map_err(|_| "no block")?;
                let role = Role::Descriptors;
                Ok(Run::once(Leaf {
                    block,
                    role,
                    writable: true,
                }))
            }
            Plan::Huge => self.single().map(own),
            Plan::Compound if self.calls == 0 => self.single().map(own),
            Plan::Compound => {
                let (tail, more) = match self.tail {
                    Some(tail) => (tail, pages),
                    None => (self.single()?, pages - 1),
                };
                if more > 0 {
                    // SAFETY: 1: from this allocator. 2: given back with the entries.
                    unsafe { self.frames.acquire(tail, more) }.unwrap();
                }
                self.tail = Some(tail);
                let mut run = Run::repeat(tail, pages, Role::Tail);
                run.leaf.writable = false;
                Ok(run)
            }
        }
    }
}

impl<F: Paging> RunSource for Source<'_, F> {
    type Error = &'static str;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, Self::Error> {
        let run = self.run(pages, largest)?;
        self.calls += 1;
        for index in 0..run.count {
            let block = run.block(index).unwrap();
            let offset = index * block.order().frames() * F::PAGE;
            let leaf = Leaf { block, ..run.leaf };
            let before = self.mapped.insert(at.checked_add(offset).unwrap(), leaf);
            assert_eq!(before, None, "{at} was asked for twice");
        }
        Ok(run)
    }

    fn return_unused(&mut self, run: Run) {
        for index in (0..run.count).rev() {
            let block = run.block(index).unwrap();
            let (_, leaf) = self.mapped.pop_last().unwrap();
            assert_eq!(leaf, Leaf { block, ..run.leaf });
            // SAFETY: 1 and 2: given by this source, with a reference for each leaf.
            if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                // SAFETY: 1: it released the block just now.
                unsafe { self.frames.free(owned) };
            }
        }
    }
}
