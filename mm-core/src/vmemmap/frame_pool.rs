//! Where frames for descriptors come from, and where they are released to: RAM, or the altmap.

use super::altmaps::AltmapsInUse;
use super::error::OnlineError;
use super::node_rows::NodeRows;
use super::registry::{TailKey, TailRegistry};
use super::shared_tail::Tail;
use super::stats::{NodeCounters, Origin};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use crate::frame::{
    AllocatorOrReserve, Altmap, DirectMap, FrameAllocator, FrameStack, MapMemory, OutOfFrames,
    Released,
};
use crate::paging::{FrameOutOfReach, Role, Run, Step};

/// What a vmemmap remembers of the frames that hold its descriptors.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) registry: TailRegistry,
    pub(super) altmaps: AltmapsInUse,
    pub(super) counters: NodeRows<NodeCounters>,
    /// References of an order's tail frame that came back while memory comes online, since a shared table has the
    /// entries that they were for: the next compound page takes them. None between operations; it is here since
    /// the stack is small.
    pub(super) returned: Option<Tail>,
}

impl PoolState {
    pub(super) const fn new() -> Self {
        Self {
            registry: TailRegistry::new(),
            altmaps: AltmapsInUse::new(),
            counters: NodeRows::new(),
            returned: None,
        }
    }

    /// Shows each frame that the state is in.
    pub(super) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: MapMemory<'_, A, M>,
        visit: &mut dyn FnMut(Pfn),
    ) {
        self.registry.for_each_frame(memory, visit);
        self.counters.map().for_each_frame(&memory, visit);
    }
}

/// Frames for descriptors: from the altmap if there is one, else from RAM. Each frame is released
/// to where it came from.
///
/// The pool lives as long as one operation; its state belongs to the [`Vmemmap`](super::Vmemmap).
pub(super) struct FramePool<'v, A, M> {
    /// RAM.
    memory: MapMemory<'v, A, M>,
    pub(super) altmap: Option<&'v dyn Altmap>,
    pub(super) state: &'v mut PoolState,
    /// The last frame that the page table's entries can hold.
    last: Pfn,
}

impl<'v, A: FrameAllocator, M: DirectMap> FramePool<'v, A, M> {
    pub(super) fn new(
        memory: MapMemory<'v, A, M>,
        altmap: Option<&'v dyn Altmap>,
        state: &'v mut PoolState,
    ) -> Self {
        Self {
            memory,
            altmap,
            state,
            last: Pfn::MAX,
        }
    }

    /// What gives frames of RAM.
    const fn ram(&self) -> AllocatorOrReserve<'v, A> {
        self.memory.allocator()
    }

    /// Changes the figures of `node`.
    // Not inlined: what it takes of the stack is not needed while frames are allocated.
    #[inline(never)]
    fn count(&mut self, node: NodeId, change: &mut dyn FnMut(&mut NodeCounters)) {
        self.state.counters.update(node, self.memory, change);
    }

    /// The tail frame that is registered for `key`.
    pub(super) fn registered_tail(&self, key: TailKey) -> Option<Pfn> {
        self.state.registry.find(key, self.memory)
    }

    /// Registers `frame` for `key`. Says whether there was memory for that.
    pub(super) fn register_tail(&mut self, key: TailKey, frame: Pfn) -> bool {
        let registered = self.state.registry.insert(key, frame, self.memory);
        registered.is_ok()
    }

    /// Gives frames behind `last`, the last that the page table's entries can hold, back to where
    /// they came from.
    pub(super) fn up_to(self, last: Pfn) -> Self {
        Self { last, ..self }
    }

    /// A block, if there is one that entries can hold.
    pub(super) fn allocate(&mut self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        let block = match self.altmap {
            Some(altmap) => altmap.allocate(order, node),
            None => self.ram().allocate(order, node),
        }?;
        self.count_taken(block.frames());
        match self.check_reach(block.frames()) {
            Ok(()) => Ok(block),
            Err(_) => {
                // SAFETY: 1 and 2: allocated just now, with one reference, and not mapped.
                unsafe { self.release(block, 1, Role::Descriptors) };
                Err(OutOfFrames { order, node })
            }
        }
    }

    /// Whether entries can hold `frames`.
    fn check_reach(&self, frames: PfnRange) -> Result<(), OnlineError> {
        let (frame, last) = (frames.last(), self.last);
        if frame <= last {
            return Ok(());
        }
        Err(OnlineError::FrameOutOfReach(FrameOutOfReach {
            frame,
            last,
        }))
    }

    pub(super) fn allocate_run(
        &mut self,
        at_most: u64,
        node: NodeId,
    ) -> Result<PfnRange, OnlineError> {
        let run = match self.altmap {
            Some(altmap) => {
                altmap
                    .allocate_run(at_most, node)
                    .map_err(|_| OnlineError::AltmapExhausted {
                        reserved: altmap.reserved(),
                    })
            }
            None => self
                .ram()
                .allocate_run(at_most, node)
                .map_err(OnlineError::OutOfFrames),
        }?;
        self.count_taken(run);
        self.give_back_behind(run)?;
        Ok(run)
    }

    /// A frame of RAM, whether there is an altmap or not.
    pub(super) fn allocate_ram(&mut self, node: NodeId) -> Result<Pfn, OnlineError> {
        let block = self.ram().allocate(Order::BASE, node);
        let block = block.map_err(OnlineError::OutOfFrames)?;
        self.count_taken(block.frames());
        self.give_back_behind(block.frames())?;
        Ok(block.first())
    }

    /// Gives single frames that were allocated just now back if entries cannot hold all of them.
    fn give_back_behind(&mut self, frames: PfnRange) -> Result<(), OnlineError> {
        self.check_reach(frames).inspect_err(|_| {
            // SAFETY: 1 and 2: allocated just now, each with one reference, and not mapped.
            unsafe { self.release_frames(frames, Role::Descriptors) };
        })
    }

    /// Counts that `frames`, which are all on one node, were taken.
    fn count_taken(&mut self, frames: PfnRange) {
        let origin = self.origin(frames.start());
        self.count(origin.node, &mut |row| {
            row.add_frames(origin, frames.frames())
        });
        if let Some(altmap) = self.altmap.filter(|_| origin.altmap)
            && let Some(counts) = self.state.altmaps.taken(altmap, frames.frames())
        {
            self.count(origin.node, &mut |row| row.add_count_frames(counts));
        }
    }

    /// Counts that `frames` of one origin, whose last entries had this role, are free, and that
    /// `reused` entries went that had no frame of their own.
    fn count_freed(&mut self, origin: Origin, frames: u64, role: Role, reused: u64) {
        self.count(origin.node, &mut |row| {
            row.remove_frames(origin, frames, role);
            row.remove_reused(reused);
        });
        if let Some(altmap) = self.altmap.filter(|_| origin.altmap)
            && let Some(counts) = self.state.altmaps.released(altmap, frames)
        {
            self.count(origin.node, &mut |row| row.remove_count_frames(counts));
        }
    }

    fn origin(&self, frame: Pfn) -> Origin {
        match self.altmap_of(frame) {
            Some(altmap) => Origin {
                node: altmap.node_of(frame),
                altmap: true,
            },
            None => Origin {
                node: self.ram().node_of(frame),
                altmap: false,
            },
        }
    }

    /// Counts that `frame` holds only tails from now on, and that its entries say so.
    pub(super) fn add_tail(&mut self, frame: Pfn) {
        self.add_tails(frame, 1);
    }

    /// The same for `tails` frames, of which `first` is one, all of one allocation.
    pub(super) fn add_tails(&mut self, first: Pfn, tails: u64) {
        let node = self.node_of(first);
        self.count(node, &mut |row| row.add_tails(tails));
    }

    /// Counts that `frame`, which held only tails, belongs to one vmemmap page from now on.
    pub(super) fn remove_tail(&mut self, frame: Pfn) {
        let node = self.node_of(frame);
        self.count(node, &mut NodeCounters::remove_tail);
    }

    pub(super) fn node_of(&self, frame: Pfn) -> NodeId {
        self.origin(frame).node
    }

    fn altmap_of(&self, frame: Pfn) -> Option<&dyn Altmap> {
        self.altmap.filter(|altmap| altmap.contains(frame))
    }

    /// How many entries can map one frame.
    pub(super) fn most_references(&self) -> u64 {
        let of_altmap = self
            .altmap
            .map_or(u64::MAX, |altmap| altmap.most_references());
        self.ram().most_references().min(of_altmap).max(1)
    }

    /// # Safety
    ///
    /// As for [`FrameAllocator::acquire`].
    pub(super) unsafe fn acquire(&mut self, frame: Pfn, references: u64) -> bool {
        // SAFETY: 1: the frame goes to the allocator that it came from. 2: the caller's.
        let acquired = unsafe {
            match self.altmap_of(frame) {
                Some(altmap) => altmap.acquire(frame, references),
                None => self.ram().acquire(frame, references),
            }
        };
        if acquired.is_ok() {
            let node = self.node_of(frame);
            self.count(node, &mut |row| row.add_reused(references));
        }
        acquired.is_ok()
    }

    /// Takes `references` more, at least 1, of each of `frames`, which are all of one allocation, until one
    /// cannot be counted; says of how many frames.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::acquire`], for each of them.
    pub(super) unsafe fn acquire_each(
        &mut self,
        frames: impl Iterator<Item = Pfn> + Clone,
        references: u64,
    ) -> u64 {
        let Some(first) = frames.clone().next() else {
            return 0;
        };
        // SAFETY: 1: all of them go to the allocator that they came from. 2: the caller's.
        let acquired = |frame: &Pfn| unsafe {
            match self.altmap_of(first) {
                Some(altmap) => altmap.acquire(*frame, references),
                None => self.ram().acquire(*frame, references),
            }
            .is_ok()
        };
        let acquired = frames.take_while(acquired).count() as u64;
        let node = self.node_of(first);
        self.count(node, &mut |row| row.add_reused(acquired * references));
        acquired
    }

    /// Splits a block into single frames.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::split`].
    pub(super) unsafe fn split(&self, block: Block) {
        // SAFETY: 1: the block goes to the allocator that it came from. 2: the caller's.
        unsafe {
            match self.altmap_of(block.first()) {
                Some(altmap) => altmap.split(block),
                None => self.ram().split(block),
            }
        }
    }

    /// Releases `references` of `block`, whose entries had this role. Frees the block with its last
    /// reference.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release`].
    unsafe fn release(&mut self, block: Block, references: u64, role: Role) {
        let origin = self.origin(block.first());
        // SAFETY: 1: the block goes to the allocator that it came from. 2: the caller's.
        let released = unsafe {
            match self.altmap_of(block.first()) {
                Some(altmap) => altmap.release(block, references),
                None => self.ram().release(block, references),
            }
        };
        let Released::Last(owned) = released else {
            return self.count(origin.node, &mut |row| row.remove_reused(references));
        };
        let reused = references.saturating_sub(1);
        self.count_freed(origin, block.order().frames(), role, reused);
        match self.altmap_of(block.first()) {
            // SAFETY: 1: the altmap released it just now.
            Some(altmap) => unsafe { altmap.free(owned) },
            None => {
                self.state.registry.forget(block.first(), self.memory);
                // SAFETY: 1: RAM's allocator released it just now.
                unsafe { self.ram().free(owned) };
            }
        }
    }

    /// Releases one reference of each frame, whose entries had this role.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release_run`].
    pub(super) unsafe fn release_frames(&mut self, frames: PfnRange, role: Role) {
        let mut rest = Some(frames);
        while let Some(frames) = rest {
            let (alike, others) = frames.take_first(self.of_one_origin(frames));
            let origin = self.origin(alike.start());
            // SAFETY: the caller's; the frames go to the allocator that all of them came from.
            let freed = unsafe {
                match self.altmap_of(alike.start()) {
                    Some(altmap) => altmap.release_run(alike),
                    None => self.ram().release_run(alike),
                }
            };
            let kept = alike.frames().saturating_sub(freed);
            self.count_freed(origin, freed, role, kept);
            rest = others;
        }
    }

    /// Releases, of `frames` that come in pairs, one reference of the first of each pair, which held
    /// descriptors, and `references`, at least 1, of the second, which held tails of one compound page.
    ///
    /// # Safety
    ///
    /// 1. Of each frame the caller owns so many references, and the frames came from this pool.
    /// 2. No entry depends on those references any more, and no translation that a CPU has cached.
    pub(super) unsafe fn release_pairs(&mut self, frames: PfnRange, references: u64) {
        let origin = self.origin(frames.start());
        let pairs = frames.frames() / 2;
        if self.of_one_origin(frames) != frames.frames() {
            for pair in 0..pairs {
                let head = frames.start().saturating_add(2 * pair);
                let tail = head.saturating_add(1);
                // SAFETY: 1 and 2: the caller's.
                unsafe {
                    self.release(Block::single(head), 1, Role::Descriptors);
                    self.release(Block::single(tail), references, Role::Tail);
                }
            }
            return;
        }
        let (_, from_tail) = frames.split_at(1);
        let Some(from_tail) = from_tail else { return };
        // SAFETY: 1 and 2: the caller's; the frames go to the allocator that all of them came from.
        let (heads, tails) = unsafe {
            match self.altmap_of(frames.start()) {
                Some(altmap) => (
                    altmap.release_each(frames, 2, 1),
                    altmap.release_each(from_tail, 2, references),
                ),
                None => (
                    self.ram().release_each(frames, 2, 1),
                    self.ram().release_each(from_tail, 2, references),
                ),
            }
        };
        let kept = pairs.saturating_sub(heads);
        self.count_freed(origin, heads, Role::Descriptors, kept);
        let reused = pairs.saturating_mul(references).saturating_sub(tails);
        self.count_freed(origin, tails, Role::Tail, reused);
    }

    /// Releases all of `stack`, one reference of each frame, whose entries had this role.
    ///
    /// # Safety
    ///
    /// As for [`FrameAllocator::release_run`].
    pub(super) unsafe fn release_stack(&mut self, stack: &mut FrameStack<'_, M>, role: Role) {
        let mut alike: Option<(Origin, u64, u64)> = None;
        while let Some(frames) = stack.pop() {
            // A run of more frames may be of several origins.
            if frames.frames() > 1 {
                // SAFETY: the caller's.
                unsafe { self.release_frames(frames, role) };
                continue;
            }
            let origin = self.origin(frames.start());
            // SAFETY: the caller's; the frame goes to the allocator that it came from.
            let freed = unsafe {
                match self.altmap_of(frames.start()) {
                    Some(altmap) => altmap.release_run(frames),
                    None => self.ram().release_run(frames),
                }
            };
            alike = match alike {
                Some((same, all, kept)) if same == origin => {
                    Some((origin, all + freed, kept + 1 - freed.min(1)))
                }
                other => {
                    if let Some((origin, all, kept)) = other {
                        self.count_freed(origin, all, role, kept);
                    }
                    Some((origin, freed, 1 - freed.min(1)))
                }
            };
        }
        if let Some((origin, all, kept)) = alike {
            self.count_freed(origin, all, role, kept);
        }
    }

    /// How many of the first of `frames` have the same origin as the first one. Consecutive frames
    /// may have come from several allocations.
    fn of_one_origin(&self, frames: PfnRange) -> u64 {
        let all = frames.frames();
        let start = frames.start().get();
        let same_source = match self.altmap.map(Altmap::reserved) {
            None => all,
            Some(reserved) if frames.start() < reserved.start() => {
                all.min(reserved.start().get() - start)
            }
            Some(reserved) if reserved.contains(frames.start()) => {
                all.min(reserved.last().get() - start + 1)
            }
            Some(_) => all,
        };
        let node = |index: u64| self.node_of(frames.start().saturating_add(index));
        let first = node(0);
        // A node lies within another one's memory by larger pieces than a table's worth of frames.
        if node(same_source - 1) == first {
            return same_source;
        }
        (1..same_source)
            .find(|index| node(*index) != first)
            .unwrap_or(same_source)
    }

    /// Releases the references that the entries of `run` owned.
    ///
    /// # Safety
    ///
    /// 1. `run` was mapped with frames of this pool, or was about to be, with one reference for
    ///    each leaf.
    /// 2. No entry depends on those references any more, and no translation that a CPU has cached.
    pub(super) unsafe fn release_run(&mut self, run: Run) {
        let role = run.leaf.role;
        // SAFETY: 1 and 2 are the caller's, for each frame and block of the run.
        unsafe {
            // Of a tail frame it matters which one it is.
            let one = run.leaf.block;
            let one = (run.count == 1 && one.order() == Order::BASE).then(|| one.frames());
            if role != Role::Tail
                && let Some(frames) = one.or_else(|| run.frames())
            {
                return self.release_frames(frames, role);
            }
            match run.step {
                Step::Same => self.release(run.leaf.block, run.count, role),
                Step::Next => {
                    for block in (0..run.count).filter_map(|index| run.block(index)) {
                        self.release(block, 1, role);
                    }
                }
            }
        }
    }
}
