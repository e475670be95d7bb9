//! Provides the frames for the runs of a plan.
//!
//! The page table asks for one run after another. For each of them, the source takes frames from
//! RAM or the altmap and writes the descriptors into them. The frames come with one reference for
//! each entry that will point at them.

use super::batch::{Batch, Described};
use super::descriptor_writer::DescriptorWriter;
use super::error::OnlineError;
use super::frame_pool::FramePool;
use super::note::Notes;
use super::plan::{Plan, PlannedFrames, PlannedRun};
use super::shared_tail::{Tail, new_tail, shared_tail};
use super::workers::LentWorkers;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr};
use crate::descriptor::{Descriptor, Part};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Tables, Tails};
use crate::paging::{GroupTails, Groups, Leaf, MapError, Role, Run, RunSource, Step};
use core::marker::PhantomData;

/// How many frames are allocated at most ahead of the run that needs them.
const PREFETCH: u64 = 512;

/// The same in bytes where workers help to write their descriptors. With more frames at a time, workers wait less
/// for each other.
const PREFETCH_SHARED: u64 = 32 << 20;

/// The tail frame of a compound page, which other pieces of that page have mapped already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExistingTail {
    /// The first frame of the compound page.
    pub(super) head: Pfn,
    /// Its tail frame.
    pub(super) frame: Pfn,
}

/// The [`RunSource`] of one piece: its planned runs, with frames.
pub(super) struct PieceSource<'v, D, A, M> {
    pub(super) pool: FramePool<'v, A, M>,
    pub(super) writer: &'v DescriptorWriter<'v, M>,
    tails: Tails,
    share_tables: bool,
    plan: &'v mut Plan,
    /// The rest of the run that the plan gave last. It may be in two parts: `current` comes first,
    /// then `later`.
    current: Option<PlannedRun>,
    later: Option<PlannedRun>,
    /// Frames that were allocated ahead, with one reference each.
    prefetched: Option<PfnRange>,
    /// Those of them whose descriptors are written already.
    described: Option<Batch>,
    /// Workers that help to write descriptors.
    pub(super) lent: Option<LentWorkers<D, M>>,
    /// Existing tail frames of the compound pages that reach across the ends of the piece.
    existing_tails: &'v [Option<ExistingTail>; 2],
    notes: &'v mut Notes,
    descriptor: PhantomData<fn() -> D>,
}

impl<'v, D: Descriptor, A: FrameAllocator, M: DirectMap> PieceSource<'v, D, A, M> {
    pub(super) fn new(
        pool: FramePool<'v, A, M>,
        writer: &'v DescriptorWriter<'v, M>,
        pagemap: &DevPagemap<'_>,
        plan: &'v mut Plan,
        existing_tails: &'v [Option<ExistingTail>; 2],
        notes: &'v mut Notes,
    ) -> Self {
        Self {
            pool,
            writer,
            tails: pagemap.tails().0,
            share_tables: pagemap.tables() == Tables::Shared,
            plan,
            current: None,
            later: None,
            prefetched: None,
            described: None,
            lent: None,
            existing_tails,
            notes,
            descriptor: PhantomData,
        }
    }

    /// Releases the frames that were allocated ahead and not used, and the references that came back.
    // Not inlined: it uses no stack while frames are taken.
    #[inline(never)]
    pub(super) fn release_unused(&mut self) {
        if let Some(returned) = self.pool.state.returned.take() {
            // SAFETY: 1: it came from `next_run`. 2: it was not mapped.
            unsafe { self.pool.release_run(returned.entries()) };
        }
        if let Some(prefetched) = self.prefetched.take() {
            // SAFETY: 1: the frames came from this pool, and their references are this value's. 2: no entry
            // was made for them.
            unsafe { self.pool.release_frames(prefetched, Role::Descriptors) };
        }
    }

    fn existing_tail(&self, head: Pfn) -> Option<Pfn> {
        self.existing_tails
            .iter()
            .flatten()
            .find(|tail| tail.head == head)
            .map(|tail| tail.frame)
    }

    /// How many single frames `run`, which the plan gave last, and the runs after it need, up to a limit.
    /// The first of them needs at least one.
    #[inline(never)]
    fn frames_to_prefetch(&self, run: Option<&PlannedRun>) -> u64 {
        let most = match self.lent {
            Some(_) => PREFETCH.max(PREFETCH_SHARED / self.writer.model.granule().bytes()),
            None => PREFETCH,
        };
        let mut frames = 0;
        let mut plan = *self.plan;
        let mut later = self.later;
        let mut next = run.copied().or_else(|| plan.next());
        while let Some(run) = next
            && frames < most
        {
            frames += match run.frames {
                PlannedFrames::Own => run.pages,
                PlannedFrames::Stubs => 0,
                PlannedFrames::Tail { .. } if self.tails == Tails::PerOrder => 0,
                PlannedFrames::Tail { head } => u64::from(self.existing_tail(head).is_none()),
                PlannedFrames::HugeLeaves { .. } => break,
            };
            next = later.take().or_else(|| {
                frames += self.skip_compounds(&mut plan);
                plan.next()
            });
        }
        frames.min(most)
    }

    /// Leaves out whole compound pages that come next in `plan`: how many single frames they need.
    fn skip_compounds(&self, plan: &mut Plan) -> u64 {
        let Some(compounds) = plan.whole_compounds(u64::MAX) else {
            return 0;
        };
        plan.skip_frames(compounds.frames());
        let frames_each = match self.tails {
            Tails::PerOrder => 1,
            Tails::PerCompound | Tails::None => 2,
        };
        (compounds.frames() >> self.writer.order.get()) * frames_each
    }

    /// Between 1 and `at_most` consecutive frames for `run`, or for what the plan gives next.
    fn take_frames(
        &mut self,
        run: Option<&PlannedRun>,
        at_most: u64,
    ) -> Result<PfnRange, OnlineError> {
        let prefetched = match self.prefetched.take() {
            Some(prefetched) => prefetched,
            None => {
                let node = self.writer.node;
                let frames = self
                    .pool
                    .allocate_run(self.frames_to_prefetch(run).max(1), node)?;
                let actual = self.pool.node_of(frames.start());
                self.notes.frames_from(node, actual, frames.frames());
                self.describe_ahead(run, frames);
                frames
            }
        };
        let (taken, prefetched) = prefetched.take_first(at_most);
        self.prefetched = prefetched;
        Ok(taken)
    }

    /// Where others help, writes the descriptors of `frames`, which were allocated just now for `run` and what
    /// comes after it, as far as they are for whole compound pages. These are mapped some at a time, which
    /// is too little to ask anybody.
    #[inline(never)]
    fn describe_ahead(&mut self, run: Option<&PlannedRun>, frames: PfnRange) {
        self.described = None;
        let Some(lent) = self.lent else {
            return;
        };
        // A run of tails takes one frame; one that is at a head takes the head's.
        let (skipped, first) = match run.map(|run| (run.frames, run.describes.start())) {
            Some((PlannedFrames::Own, first)) => (0, Some(first)),
            Some((PlannedFrames::Tail { .. }, _)) => (1, self.plan.next_frame()),
            Some((PlannedFrames::HugeLeaves { .. } | PlannedFrames::Stubs, _)) => return,
            None => (0, self.plan.next_frame()),
        };
        let each = match self.tails {
            Tails::PerOrder => 1,
            Tails::PerCompound => 2,
            Tails::None => return,
        };
        let compounds = first.and_then(|first| self.plan.compounds_from(first, u64::MAX));
        let (Some(compounds), Some(frames)) = (compounds, frames.split_at(skipped).1) else {
            return;
        };
        let pages = (compounds.frames() >> self.writer.order.get()).saturating_mul(each);
        let whole = frames.frames().min(pages) / each * each;
        let Some(frames) = frames.split_at(whole).0 else {
            return;
        };
        let batch = first_pages(frames, compounds, each);
        if lent.help_with(self.writer, &batch) {
            // SAFETY: 1: the frames were allocated just now and are not mapped. 2: `Vmemmap::new` has compared the
            // sizes. 3: `compounds_from` gives only such pages.
            unsafe { lent.write(self.writer, batch) };
            self.described = Some(batch);
        }
    }

    /// Whether the vmemmap page number `page` of the compound page at `head` is in `frame`, which was taken just
    /// now.
    // What was written ahead stays as it is until the frame is taken: who takes frames and puts some back has
    // not written to these.
    fn is_described(&self, frame: Pfn, head: Pfn, page: u64) -> bool {
        let order = self.writer.order;
        let holds = |described: &Batch| described.holds(frame, head, page, order);
        self.described.as_ref().is_some_and(holds)
    }

    /// Frames for the first pages of `run`, one for each page.
    fn own_run(&mut self, run: &PlannedRun) -> Result<Run, OnlineError> {
        let frames = self.take_frames(Some(run), run.pages)?;
        if !self.is_described(frames.start(), run.describes.start(), 0) {
            self.write_pages(frames, run);
        }
        Ok(Run::each(frames, Role::Descriptors))
    }

    /// The tail frame of the compound page at `head`, for the first pages of `run`: all
    /// of them, unless the allocator cannot count so many.
    #[inline(never)]
    fn tail_run(&mut self, run: &PlannedRun, head: Pfn) -> Result<Run, OnlineError> {
        let pages = run.pages.min(self.pool.most_references());
        if self.tails == Tails::PerOrder {
            if let Some(tail) = self.returned_tail(pages) {
                return Ok(self.tail_leaves(tail));
            }
            let pool = &mut self.pool;
            let tail = shared_tail::<D, A, M>(pool, self.writer, head, pages, self.notes)?;
            return Ok(self.tail_leaves(tail));
        }
        if let Some(frame) = self.existing_tail(head) {
            // SAFETY: 1: the frame is a tail frame of this library's. 2: the entries of the run own
            // the references.
            if unsafe { self.pool.acquire(frame, pages) } {
                let references = pages;
                return Ok(self.tail_leaves(Tail { frame, references }));
            }
        }
        let frame = self.take_frames(Some(run), 1)?.start();
        if !self.is_described(frame, head, 1) {
            // SAFETY: 1: the frame was allocated just now and is not mapped. 2: `Vmemmap::new` has
            // compared the sizes.
            unsafe { self.writer.write_tails::<D>(frame, head) };
        }
        // SAFETY: 1: as above, and written.
        let tail = unsafe { new_tail(&mut self.pool, frame, pages, self.notes) };
        Ok(self.tail_leaves(tail))
    }

    /// The order's tail frame with `references`, those that came back and some more, if these can be counted.
    fn returned_tail(&mut self, references: u64) -> Option<Tail> {
        let returned = self.pool.state.returned?;
        let more = references.checked_sub(returned.references)?;
        // SAFETY: 1: the references that came back are this value's, so it is a tail frame of this library's. 2: the
        // entries that are about to be made own these.
        if !unsafe { self.pool.acquire(returned.frame, more) } {
            return None;
        }
        self.pool.state.returned = None;
        Some(Tail {
            references,
            ..returned
        })
    }

    /// The leaves of whole compound pages that come next in the plan, at most `pages` leaves.
    fn groups(&mut self, pages: u64) -> Result<Option<Groups>, OnlineError> {
        // A run of tails is not longer either.
        let pages = pages.min(self.pool.most_references());
        let Some(compounds) = self.plan.whole_compounds(pages) else {
            return Ok(None);
        };
        let order = self.writer.order;
        let pages = self.writer.model.vmemmap_pages(order);
        let count = compounds.frames() >> order.get();
        let groups = match self.tails {
            Tails::None => return Ok(None),
            Tails::PerOrder => self.groups_of_one_tail(compounds, count, pages)?,
            Tails::PerCompound => self.groups_with_tails(compounds, count, pages)?,
        };
        if let Some(groups) = groups {
            let described = groups.groups() << order.get();
            self.plan.skip_frames(described);
        }
        Ok(groups)
    }

    /// At most `count` groups for `compounds`, with the tail frame that all of their order share already.
    /// Where there is none, or it is mapped as often as can be counted, the first run makes one.
    #[inline(never)]
    fn groups_of_one_tail(
        &mut self,
        compounds: PfnRange,
        count: u64,
        pages: u64,
    ) -> Result<Option<Groups>, OnlineError> {
        let Some(frame) = self.pool.registered_tail(self.writer.tail_key()) else {
            return Ok(None);
        };
        let frames = self.take_frames(None, count)?;
        let references = frames.frames() * (pages - 1);
        // SAFETY: 1: the frame is a tail frame of this library's, which is registered as long as it has
        // references. 2: the entries of the groups own these.
        if !unsafe { self.pool.acquire(frame, references) } {
            self.put_back(frames);
            return Ok(None);
        }
        // SAFETY: 1: taken above. 2: `whole_compounds` gives only such pages.
        unsafe { self.write_first_pages(frames, compounds, 1) };
        Ok(Some(Groups {
            frames,
            tails: GroupTails::Same(self.tail_leaves(Tail { frame, references }).leaf),
            pages,
        }))
    }

    /// At most `count` groups for `compounds`, each with a tail frame of its own.
    #[inline(never)]
    fn groups_with_tails(
        &mut self,
        compounds: PfnRange,
        count: u64,
        pages: u64,
    ) -> Result<Option<Groups>, OnlineError> {
        let frames = self.take_frames(None, 2 * count)?;
        let start = frames.start();
        let tails = (0..frames.frames() / 2).map(|group| start.saturating_add(2 * group + 1));
        let groups = match pages - 2 {
            0 => frames.frames() / 2,
            // SAFETY: 1: the frames came from the pool just now. 2: the entries of the groups own these and
            // the one that each came with. Where one cannot be counted, a run says so.
            more => unsafe { self.pool.acquire_each(tails, more) },
        };
        let (taken, others) = frames.split_at(2 * groups);
        if let Some(others) = others {
            self.put_back(others);
        }
        let Some(frames) = taken else {
            return Ok(None);
        };
        self.pool.add_tails(frames.start(), groups);
        // SAFETY: 1: taken above. 2: `whole_compounds` gives only such pages.
        unsafe { self.write_first_pages(frames, compounds, 2) };
        Ok(Some(Groups {
            frames,
            tails: GroupTails::Own,
            pages,
        }))
    }

    /// Puts `frames`, which were taken last, back before those that were allocated ahead.
    fn put_back(&mut self, frames: PfnRange) {
        let behind = self.prefetched.map_or(0, |rest| rest.frames());
        self.prefetched = PfnRange::new(frames.start(), frames.frames() + behind).ok();
    }

    /// The leaves of a tail frame. A tail frame for all compound pages of an order is read-only.
    fn tail_leaves(&self, tail: Tail) -> Run {
        let run = tail.entries();
        let leaf = Leaf {
            writable: self.tails != Tails::PerOrder,
            ..run.leaf
        };
        Run { leaf, ..run }
    }

    /// The block for the first huge leaf of `run`. `None` if there is no block, or if the page
    /// table cannot enter the leaf.
    #[inline(never)]
    fn huge_leaf_run(&mut self, run: &PlannedRun, order: Order, largest: Order) -> Option<Run> {
        if order > largest {
            return None;
        }
        let node = self.writer.node;
        let block = self.pool.allocate(order, node).ok()?;
        let actual = self.pool.node_of(block.first());
        self.notes.frames_from(node, actual, order.frames());
        self.write_pages(block.frames(), run);
        Some(Run::once(Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        }))
    }

    /// What base pages map in place of the first huge leaf, of `order`, of `planned`. The rest comes later.
    // Not inlined, and returned from before frames are taken: it uses no stack during that.
    #[inline(never)]
    fn base_pages_instead(&mut self, planned: &PlannedRun, order: Order) -> PlannedRun {
        self.notes.huge_leaf_unavailable();
        let (leaf, later) = planned.split_at(order.frames(), self.writer.model);
        self.later = later;
        PlannedRun {
            frames: PlannedFrames::Own,
            ..leaf
        }
    }

    /// Keeps what is left of `planned` behind its first `pages` pages.
    #[inline(never)]
    fn keep_rest(&mut self, planned: &PlannedRun, pages: u64) {
        self.current = planned.split_at(pages, self.writer.model).1;
    }

    /// Writes the descriptors for the first pages of `run` into `frames`.
    fn write_pages(&self, frames: PfnRange, run: &PlannedRun) {
        // A run lies in what is reserved as a whole, or not at all.
        let is_reserved = |altmap: &dyn Altmap| altmap.contains(run.describes.start());
        let writer = DescriptorWriter {
            order: run.order,
            base: match self.pool.altmap.is_some_and(is_reserved) {
                true => Part::Reserved,
                false => Part::Base,
            },
            ..*self.writer
        };
        let batch = Batch {
            frames,
            first: run.describes.start(),
            described: Described::EachPage,
        };
        // SAFETY: 1: the frames were allocated just now and are not mapped. 2: `Vmemmap::new` has
        // compared the sizes. 3: all pages are described.
        unsafe {
            match self.lent.filter(|lent| lent.help_with(&writer, &batch)) {
                Some(lent) => lent.write(&writer, batch),
                None => writer.write::<D>(batch),
            }
        };
    }

    /// Writes the descriptors of the first vmemmap pages of `compounds` into `frames`, `each` of each, if
    /// that is not done.
    ///
    /// # Safety
    ///
    /// 1. The frames were taken just now, by [`take_frames`](Self::take_frames).
    /// 2. A compound page fills more than one vmemmap page.
    unsafe fn write_first_pages(&self, frames: PfnRange, compounds: PfnRange, each: u64) {
        let batch = first_pages(frames, compounds, each);
        let is_described = |described: &Batch| described.includes(&batch, self.writer.order);
        if self.described.as_ref().is_some_and(is_described) {
            return;
        }
        // SAFETY: 1: the frames were allocated for this, and are not mapped. 2: `Vmemmap::new` has compared the
        // sizes. 3: the caller's duty 2.
        unsafe { self.writer.write::<D>(batch) };
    }
}

/// What `frames` are to hold: the descriptors of the first vmemmap pages of `compounds`, `each` of each.
fn first_pages(frames: PfnRange, compounds: PfnRange, each: u64) -> Batch {
    Batch {
        frames,
        first: compounds.start(),
        described: Described::FirstPages { each },
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> RunSource for PieceSource<'_, D, A, M> {
    type Error = OnlineError;

    fn next_run(&mut self, at: VirtAddr, _pages: u64, largest: Order) -> Result<Run, OnlineError> {
        // The page table asks no further than the piece, which is as far as the plan goes.
        let mut planned = self
            .current
            .take()
            .or_else(|| self.later.take())
            .or_else(|| self.plan.next())
            .ok_or(OnlineError::Table(MapError::Unsupported {
                at,
                order: Order::BASE,
            }))?;
        let mut huge = None;
        if let PlannedFrames::HugeLeaves { order } = planned.frames {
            huge = self.huge_leaf_run(&planned, order, largest);
            if huge.is_none() {
                planned = self.base_pages_instead(&planned, order);
            }
        }
        let run = match (huge, planned.frames) {
            (Some(run), _) => run,
            (None, PlannedFrames::Tail { head }) => self.tail_run(&planned, head)?,
            (None, PlannedFrames::Stubs) => self.tail_run(&planned, planned.describes.start())?,
            (None, PlannedFrames::Own | PlannedFrames::HugeLeaves { .. }) => {
                self.own_run(&planned)?
            }
        };
        if run.pages() < planned.pages {
            self.keep_rest(&planned, run.pages());
        }
        Ok(run)
    }

    fn next_groups(&mut self, _at: VirtAddr, pages: u64) -> Result<Option<Groups>, OnlineError> {
        // Often asked where none fits: at each leaf table that is smaller than a compound page's descriptors.
        let group = self.writer.model.vmemmap_pages(self.writer.order);
        if pages < group || self.current.is_some() || self.later.is_some() {
            return Ok(None);
        }
        self.groups(pages)
    }

    fn share_tables(&self) -> bool {
        self.share_tables
    }

    fn return_unused(&mut self, run: Run) {
        let is_tail = run.leaf.role == Role::Tail && run.step == Step::Same;
        if is_tail && self.tails == Tails::PerOrder && self.pool.state.returned.is_none() {
            self.pool.state.returned = Some(Tail {
                frame: run.leaf.block.first(),
                references: run.count,
            });
            return;
        }
        // SAFETY: 1: it came from `next_run`. 2: it was not mapped.
        unsafe { self.pool.release_run(run) };
    }
}
