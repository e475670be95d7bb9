//! Runs for the engine, and what became of them.

use super::{HUGE, Mapped, NODE, PAGE};
use arch_sim::SimFrames;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{Leaf, Role, Run, RunSource, Step};

/// Which runs a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// As many frames that follow each other as are asked for.
    Distinct,
    /// One frame at a time.
    Single,
    /// A page of its own, then the same read-only page until the next multiple of so many pages.
    Compound(u64),
    /// Leaves of 2 MiB where the page table takes them, single frames elsewhere.
    Huge,
}

/// A source whose frames come from the machine. Keeps book of what is mapped with it.
pub(crate) struct Source<'m> {
    frames: &'m SimFrames,
    plan: Plan,
    /// How many calls succeed; the next one fails.
    pub(crate) calls_left: Option<u64>,
    pub(crate) calls: u64,
    /// Frames that were taken for the source before: the machine's allocator is not asked while
    /// any is left.
    pub(crate) stock: Vec<Pfn>,
    tail: Option<Pfn>,
    /// What it gave and was not put back.
    pub(crate) mapped: Mapped,
}

impl<'m> Source<'m> {
    pub(crate) fn new(frames: &'m SimFrames, plan: Plan) -> Self {
        Self {
            frames,
            plan,
            calls_left: None,
            calls: 0,
            stock: Vec::new(),
            tail: None,
            mapped: Mapped::new(),
        }
    }

    /// Takes `count` frames beforehand.
    pub(crate) fn with_stock(mut self, count: u64) -> Self {
        let frame = |_| self.frames.allocate(Order::BASE, NODE).unwrap().first();
        self.stock = (0..count).map(frame).rev().collect();
        self
    }

    /// Gives the rest of the stock back.
    pub(crate) fn drain_stock(&mut self) {
        for frame in self.stock.drain(..) {
            // SAFETY: 1 and 2: taken for this source, used by nobody.
            unsafe { self.frames.release_run(PfnRange::single(frame)) };
        }
    }

    fn single(&mut self) -> Pfn {
        let frame = self.stock.pop();
        frame.unwrap_or_else(|| self.frames.allocate(Order::BASE, NODE).unwrap().first())
    }

    fn run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Run {
        match self.plan {
            Plan::Distinct if self.stock.is_empty() => Run::each(
                self.frames.allocate_run(pages, NODE).unwrap(),
                Role::Descriptors,
            ),
            Plan::Distinct | Plan::Single => Run::repeat(self.single(), 1, Role::Descriptors),
            Plan::Huge => {
                if largest == HUGE {
                    assert!(at.is_aligned(PAGE << 9) && pages >= 512);
                    let block = self.frames.allocate(HUGE, NODE).unwrap();
                    return Run::once(Leaf {
                        block,
                        role: Role::Descriptors,
                        writable: true,
                    });
                }
                Run::repeat(self.single(), 1, Role::Descriptors)
            }
            Plan::Compound(size) => {
                let offset = at.get() / PAGE % size;
                if offset == 0 {
                    self.tail = None;
                    return Run::repeat(self.single(), 1, Role::Descriptors);
                }
                let count = (size - offset).min(pages);
                let tail = match self.tail {
                    Some(tail) => {
                        // SAFETY: 1: from this allocator. 2: given back with the entries.
                        unsafe { self.frames.acquire(tail, count) }.unwrap();
                        tail
                    }
                    None => {
                        let tail = self.single();
                        if count > 1 {
                            // SAFETY: as above.
                            unsafe { self.frames.acquire(tail, count - 1) }.unwrap();
                        }
                        tail
                    }
                };
                self.tail = Some(tail);
                let mut run = Run::repeat(tail, count, Role::Tail);
                run.leaf.writable = false;
                run
            }
        }
    }
}

impl RunSource for Source<'_> {
    type Error = &'static str;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, Self::Error> {
        match &mut self.calls_left {
            Some(0) => return Err("no run"),
            Some(left) => *left -= 1,
            None => {}
        }
        self.calls += 1;
        let run = self.run(at, pages, largest);
        for index in 0..run.count {
            let block = run.block(index).unwrap();
            let at = at
                .checked_add(index * block.order().frames() * PAGE)
                .unwrap();
            let before = self.mapped.insert(at, Leaf { block, ..run.leaf });
            assert_eq!(before, None, "{at} was asked for twice");
        }
        assert!(run.pages() <= pages);
        Ok(run)
    }

    fn return_unused(&mut self, run: Run) {
        for index in (0..run.count).rev() {
            let block = run.block(index).unwrap();
            let (_, leaf) = self.mapped.pop_last().unwrap();
            assert_eq!(
                leaf,
                Leaf { block, ..run.leaf },
                "what was given last is put back"
            );
            // SAFETY: 1 and 2: given by this source, with a reference for each leaf.
            if let Released::Last(owned) = unsafe { self.frames.release(block, 1) } {
                // SAFETY: 1: it released the block just now.
                unsafe { self.frames.free(owned) };
                if run.step == Step::Same {
                    self.tail = None;
                }
            }
        }
    }
}
