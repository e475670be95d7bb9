//! Where the runs of a plan get their frames.
//!
//! The page table pulls; each pull takes frames from RAM or the altmap, describes them, and hands
//! them over with one reference for each entry that will point at them.

use super::describe::Describe;
use super::error::OnlineError;
use super::note::Notes;
use super::plan::{Plan, PlannedFrames, PlannedRun};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange, VirtAddr};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator, OutOfFrames, Released};
use crate::paging::{Leaf, MapError, Role, Run, RunSource, Step};
use core::marker::PhantomData;

/// How many frames are asked for ahead of the run that needs them.
const AHEAD: u64 = 512;

/// Frames for descriptors: from the altmap if there is one, else from RAM. Given back to where they came from.
#[derive(Clone, Copy)]
pub(super) struct Pool<'v, A> {
    pub(super) ram: &'v A,
    pub(super) altmap: Option<&'v dyn Altmap>,
}

impl<A: FrameAllocator> Pool<'_, A> {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        match self.altmap {
            Some(altmap) => altmap.allocate(order, node),
            None => self.ram.allocate(order, node),
        }
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OnlineError> {
        match self.altmap {
            Some(altmap) => {
                altmap
                    .allocate_run(at_most, node)
                    .map_err(|_| OnlineError::AltmapExhausted {
                        reserved: altmap.reserved(),
                    })
            }
            None => self
                .ram
                .allocate_run(at_most, node)
                .map_err(OnlineError::OutOfFrames),
        }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        match self.altmap_of(frame) {
            Some(altmap) => altmap.node_of(frame),
            None => self.ram.node_of(frame),
        }
    }

    fn altmap_of(&self, frame: Pfn) -> Option<&dyn Altmap> {
        self.altmap.filter(|altmap| altmap.contains(frame))
    }

    /// # Safety
    ///
    /// As for [`FrameAllocator::acquire`].
    unsafe fn acquire(&self, frame: Pfn, references: u64) -> bool {
        // SAFETY: 1: the frame goes to the allocator that it came from. 2: the caller's.
        unsafe {
            match self.altmap_of(frame) {
                Some(altmap) => altmap.acquire(frame, references),
                None => self.ram.acquire(frame, references),
            }
        }
        .is_ok()
    }

    /// Gives back `references` of `block`, and the block with the last one.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release`].
    unsafe fn release(&self, block: Block, references: u64) {
        match self.altmap_of(block.first()) {
            Some(altmap) => {
                // SAFETY: 1: the block lies in the altmap, so it came from there. 2: the caller's.
                if let Released::Last(owned) = unsafe { altmap.release(block, references) } {
                    altmap.free(owned);
                }
            }
            None => {
                // SAFETY: 1: the block lies in no altmap, so it came from RAM. 2: the caller's.
                if let Released::Last(owned) = unsafe { self.ram.release(block, references) } {
                    self.ram.free(owned);
                }
            }
        }
    }

    /// Gives back one reference of each frame.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release_run`].
    unsafe fn release_frames(&self, frames: PfnRange) {
        let Some(altmap) = self.altmap else {
            // SAFETY: the caller's; all frames came from RAM.
            return unsafe { self.ram.release_run(frames) };
        };
        // Frames of both kinds may follow each other in memory.
        let reserved = altmap.reserved();
        let start = frames.start().get();
        let below = frames
            .split_at(reserved.start().get().saturating_sub(start))
            .0;
        let above = frames
            .split_at((reserved.last().get() + 1).saturating_sub(start))
            .1;
        for part in [below, above].into_iter().flatten() {
            // SAFETY: the caller's; frames outside the altmap came from RAM.
            unsafe { self.ram.release_run(part) };
        }
        if let Some(within) = frames.intersection(reserved) {
            // SAFETY: the caller's; frames of the altmap came from there.
            unsafe { altmap.release_run(within) };
        }
    }

    /// Gives back the references that the entries of `run` owned.
    ///
    /// # Safety
    ///
    /// 1. `run` was mapped with frames of this pool, or was about to be, one reference for each leaf.
    /// 2. No entry, and no translation cached by a CPU, depends on those any more.
    pub(super) unsafe fn release_run(&self, run: Run) {
        // SAFETY: 1 and 2 are the caller's, for each frame and block of the run.
        unsafe {
            if let Some(frames) = run.frames() {
                return self.release_frames(frames);
            }
            match run.step {
                Step::Same => self.release(run.leaf.block, run.count),
                Step::Next => (0..run.count)
                    .filter_map(|index| run.block(index))
                    .for_each(|block| self.release(block, 1)),
            }
        }
    }
}

/// The tail frame that other pieces of a compound page have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundTail {
    /// The first frame of the compound page.
    pub(super) head: Pfn,
    /// Its tail frame.
    pub(super) frame: Pfn,
}

/// The runs of one piece, with frames.
pub(super) struct Supply<'v, D, A, M> {
    pub(super) pool: Pool<'v, A>,
    pub(super) describe: Describe<'v, M>,
    plan: Plan,
    /// What is left of the run that the plan gave last, the nearer part first.
    current: Option<PlannedRun>,
    later: Option<PlannedRun>,
    /// Frames taken ahead, each with its one reference.
    stock: Option<PfnRange>,
    /// Tail frames of the compound pages that reach across the ends of the piece.
    found: [Option<FoundTail>; 2],
    pub(super) notes: Notes,
    descriptor: PhantomData<fn() -> D>,
}

impl<'v, D: Descriptor, A: FrameAllocator, M: DirectMap> Supply<'v, D, A, M> {
    pub(super) fn new(
        pool: Pool<'v, A>,
        describe: Describe<'v, M>,
        plan: Plan,
        found: [Option<FoundTail>; 2],
        notes: Notes,
    ) -> Self {
        Self {
            pool,
            describe,
            plan,
            current: None,
            later: None,
            stock: None,
            found,
            notes,
            descriptor: PhantomData,
        }
    }

    /// Gives back what was taken ahead and not used.
    pub(super) fn finish(mut self) -> Notes {
        if let Some(stock) = self.stock.take() {
            // SAFETY: the stock's references are this value's and no entry was made for them.
            unsafe { self.pool.release_frames(stock) };
        }
        self.notes
    }

    fn found_tail(&self, head: Pfn) -> Option<Pfn> {
        self.found
            .iter()
            .flatten()
            .find(|found| found.head == head)
            .map(|found| found.frame)
    }

    /// How many single frames `run`, which needs some, and the runs after it need, up to a limit.
    fn frames_ahead(&self, run: &PlannedRun) -> u64 {
        let mut frames = 0;
        let known = [Some(*run), self.later].into_iter().flatten();
        for run in known.chain(self.plan) {
            frames += match run.frames {
                PlannedFrames::Own => run.pages,
                PlannedFrames::Tail { head } => u64::from(self.found_tail(head).is_none()),
                PlannedFrames::HugeLeaves { .. } => break,
            };
            if frames >= AHEAD {
                break;
            }
        }
        frames.min(AHEAD)
    }

    /// Between 1 and `at_most` frames for `run`, which follow each other.
    fn take_frames(&mut self, run: &PlannedRun, at_most: u64) -> Result<PfnRange, OnlineError> {
        let stock = match self.stock.take() {
            Some(stock) => stock,
            None => {
                let node = self.describe.node;
                let frames = self.pool.allocate_run(self.frames_ahead(run), node)?;
                let actual = self.pool.node_of(frames.start());
                self.notes.frames_from(node, actual, frames.frames());
                frames
            }
        };
        let (taken, stock) = stock.take_first(at_most);
        self.stock = stock;
        Ok(taken)
    }

    /// Frames for the first pages of the run, one for each.
    fn own(&mut self, run: &PlannedRun) -> Result<Run, OnlineError> {
        let frames = self.take_frames(run, run.pages)?;
        self.describe_pages(frames, run);
        Ok(Run::each(frames, Role::Descriptors))
    }

    /// The tail frame of a compound page, for every page of the run.
    fn tail(&mut self, run: &PlannedRun, head: Pfn) -> Result<Run, OnlineError> {
        if let Some(frame) = self.found_tail(head) {
            // SAFETY: 1: the frame is a tail frame of this library's. 2: the entries of the run own
            // the references.
            if unsafe { self.pool.acquire(frame, run.pages) } {
                return Ok(Run::repeat(frame, run.pages, Role::Tail));
            }
        }
        let frame = self.take_frames(run, 1)?.start();
        // SAFETY: 1: the frame was allocated just now and is not mapped. 2: `Vmemmap::new` has
        // compared the sizes.
        unsafe { self.describe.tails::<D>(frame, head) };
        // SAFETY: 1: the frame was allocated just now. 2: the entries of the run own the references, and the
        // one that the frame came with.
        if run.pages > 1 && !unsafe { self.pool.acquire(frame, run.pages - 1) } {
            // The allocator cannot count so many references.
            self.put_back(Run::repeat(frame, 1, Role::Tail));
            return Err(OnlineError::OutOfFrames(OutOfFrames {
                order: Order::BASE,
                node: self.describe.node,
            }));
        }
        Ok(Run::repeat(frame, run.pages, Role::Tail))
    }

    /// The block of the first huge leaf of the run, if there is one and the page table can enter it.
    fn huge_leaf(&mut self, run: &PlannedRun, order: Order, largest: Order) -> Option<Run> {
        if order > largest {
            return None;
        }
        let node = self.describe.node;
        let block = self.pool.allocate(order, node).ok()?;
        let actual = self.pool.node_of(block.first());
        self.notes.frames_from(node, actual, order.frames());
        self.describe_pages(block.frames(), run);
        Some(Run::once(Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        }))
    }

    /// Describes the memory of the first pages of `run`, in `frames`, which were allocated just now.
    fn describe_pages(&self, frames: PfnRange, run: &PlannedRun) {
        let per_page = self.describe.model.descriptors_per_page();
        for index in 0..frames.frames() {
            let frame = frames.start().saturating_add(index);
            let first = run.describes.start().saturating_add(index * per_page);
            // SAFETY: 1: the frame was allocated just now and is not mapped. 2: `Vmemmap::new` has
            // compared the sizes.
            unsafe { self.describe.page::<D>(frame, first) };
        }
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> RunSource for Supply<'_, D, A, M> {
    type Error = OnlineError;

    fn next_run(&mut self, at: VirtAddr, _pages: u64, largest: Order) -> Result<Run, OnlineError> {
        // The page table asks no further than the piece, which is as far as the plan goes.
        let planned = self
            .current
            .take()
            .or_else(|| self.later.take())
            .or_else(|| self.plan.next())
            .ok_or(OnlineError::Table(MapError::Unsupported {
                at,
                order: Order::BASE,
            }))?;
        let taken = match planned.frames {
            PlannedFrames::Own => self.own(&planned),
            PlannedFrames::Tail { head } => self.tail(&planned, head),
            PlannedFrames::HugeLeaves { order } => match self.huge_leaf(&planned, order, largest) {
                Some(run) => Ok(run),
                None => {
                    self.notes.huge_leaf_unavailable();
                    let (leaf, later) = planned.split_at(order.frames(), self.describe.model);
                    let small = PlannedRun {
                        frames: PlannedFrames::Own,
                        ..leaf
                    };
                    self.later = later;
                    let run = self.own(&small)?;
                    self.current = small.split_at(run.pages(), self.describe.model).1;
                    return Ok(run);
                }
            },
        };
        let run = taken?;
        self.current = planned.split_at(run.pages(), self.describe.model).1;
        Ok(run)
    }

    fn put_back(&mut self, run: Run) {
        // SAFETY: 1: it came from `next_run`. 2: it was not mapped.
        unsafe { self.pool.release_run(run) };
    }
}
