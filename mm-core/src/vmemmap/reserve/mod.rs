//! Frames that a change of order takes from, and gives to, so that it needs no allocator.
//!
//! ```text
//!   fill_reserve   allocator ──▶ frames, huge leaves      page table's allocator ──▶ tables
//!   reorder        reserve ◀──▶ entries
//!   empty_reserve  all of them go back
//! ```
//!
//! The reserve is the vmemmap's, so its frames are counted and audited, and never meet another
//! allocator than their own. The lists are in the frames (`stacks`). `from_reserve` is what a change of order
//! has in place of the allocator.

mod from_reserve;
mod stacks;

#[cfg(doc)]
use super::Note;
use super::fold::FoldError;
use super::frames_ahead::block_of;
use super::{Notes, Vmemmap};
use crate::addr::{Block, NodeId, Pfn, PfnRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, Released};
use crate::paging::{FrameOutOfReach, InUse, PageTable, Replace};
use crate::readers::ReadersOf;
pub(super) use from_reserve::FromReserve;
use stacks::NodeStacks;

/// How much is in the reserve of a node, or is [needed](Vmemmap::reserve_needed) there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Frames for descriptors.
    pub frames: u64,
    /// Frames for page tables.
    pub tables: u64,
    /// Blocks for huge leaves of vmemmap.
    pub huge_leaves: u64,
}

/// What is in the reserve.
#[derive(Debug)]
pub(super) struct ReserveState {
    frames: NodeStacks,
    tables: NodeStacks,
    huge_leaves: NodeStacks,
}

impl ReserveState {
    pub(super) const fn new() -> Self {
        Self {
            frames: NodeStacks::new(),
            tables: NodeStacks::new(),
            huge_leaves: NodeStacks::new(),
        }
    }

    fn len<M: DirectMap>(&self, node: NodeId, memory: &M) -> Reserve {
        Reserve {
            frames: self.frames.len(node, memory).1,
            tables: self.tables.len(node, memory).1,
            huge_leaves: self.huge_leaves.len(node, memory).0,
        }
    }

    /// Takes a frame out, of `node` if there is one.
    pub(super) fn take_frame<M: DirectMap>(&mut self, node: NodeId, memory: &M) -> Option<Pfn> {
        self.frames.take(1, node, memory).map(PfnRange::start)
    }

    /// Puts a frame in.
    ///
    /// # Safety
    ///
    /// 1. It came from the vmemmap's allocator, with the one reference that it has, and nobody uses it.
    pub(super) unsafe fn put_frame<M: DirectMap>(&mut self, frame: Pfn, node: NodeId, memory: &M) {
        // SAFETY: 1: the caller's, and the direct map reaches it by duty 2 of `Vmemmap::new`.
        unsafe { self.frames.push(PfnRange::single(frame), node, memory) };
    }

    /// Shows each run of frames that the state is in: one of single frames, or a block.
    pub(super) fn for_each_run<M: DirectMap>(
        &self,
        memory: &M,
        visit: &mut dyn FnMut(PfnRange, bool),
    ) {
        self.frames.for_each(memory, &mut |run| visit(run, false));
        self.tables.for_each(memory, &mut |run| visit(run, false));
        self.huge_leaves
            .for_each(memory, &mut |run| visit(run, true));
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// What is in the reserve for `node`.
    pub fn reserve(&self, node: NodeId) -> Reserve {
        self.reserve.len(node, &self.direct_map)
    }

    /// Allocates what is missing in the reserve for `node`, so that it has at least `wanted`. Where the
    /// node has no memory left the frames are another's, as the allocator gives them; they are kept for
    /// `node` nevertheless.
    ///
    /// Where there is no block for a huge leaf, it has the single frames and the table that do instead,
    /// and [notes](Note::HugeLeavesUnavailable) it.
    ///
    /// A page table that needs no tables to exchange entries gives none, whatever is wanted.
    ///
    /// A kernel calls this when it may allocate. [`reorder`](Self::reorder) does not allocate.
    ///
    /// # Errors
    ///
    /// [`FoldError`], and the reserve is as it was.
    pub fn fill_reserve<P: PageTable>(
        &mut self,
        table: &mut P,
        node: NodeId,
        wanted: Reserve,
    ) -> Result<Notes, FoldError> {
        let before = self.reserve(node);
        let mut notes = Notes::default();
        let filled = self.fill(table, node, wanted, &mut notes);
        if filled.is_err() {
            let now = self.reserve(node);
            // What was pushed last is taken first.
            self.take_out(
                table,
                node,
                Reserve {
                    frames: now.frames.saturating_sub(before.frames),
                    tables: now.tables.saturating_sub(before.tables),
                    huge_leaves: now.huge_leaves.saturating_sub(before.huge_leaves),
                },
            );
        }
        filled.map(|()| notes)
    }

    fn fill<P: PageTable>(
        &mut self,
        table: &mut P,
        node: NodeId,
        wanted: Reserve,
        notes: &mut Notes,
    ) -> Result<(), FoldError> {
        let last = table.last_frame();
        let mut wanted = wanted;
        while let Some(order) = table.huge_leaf()
            && self.reserve(node).huge_leaves < wanted.huge_leaves
        {
            let block = self.frames.allocate(order, node).ok();
            let block = block.filter(|block| {
                let reaches = block.frames().last() <= last;
                if !reaches {
                    // SAFETY: 1 and 2: it was allocated just now, with one reference.
                    unsafe { release(&self.frames, *block) };
                }
                reaches
            });
            let Some(block) = block else {
                let missing = wanted.huge_leaves - self.reserve(node).huge_leaves;
                for _ in 0..missing {
                    notes.huge_leaf_unavailable();
                }
                wanted.frames = wanted
                    .frames
                    .saturating_add(missing.saturating_mul(order.frames()));
                if table.takes_tables() {
                    wanted.tables = wanted.tables.saturating_add(missing);
                }
                break;
            };
            let actual = self.frames.node_of(block.first());
            notes.frames_from(node, actual, order.frames());
            // SAFETY: 1: allocated just now, and reached by duty 2 of `new`.
            unsafe {
                self.reserve
                    .huge_leaves
                    .push(block.frames(), node, &self.direct_map)
            };
        }
        loop {
            let missing = wanted.frames.saturating_sub(self.reserve(node).frames);
            if missing == 0 {
                break;
            }
            let run = self
                .frames
                .allocate_run(missing, node)
                .map_err(FoldError::OutOfFrames)?;
            if run.last() > last {
                for frame in run {
                    // SAFETY: 1 and 2: it was allocated just now, with one reference.
                    unsafe { release(&self.frames, Block::single(frame)) };
                }
                let frame = run.last();
                return Err(FoldError::FrameOutOfReach(FrameOutOfReach { frame, last }));
            }
            let actual = self.frames.node_of(run.start());
            notes.frames_from(node, actual, run.frames());
            // SAFETY: 1: allocated just now, and reached by duty 2 of `new`.
            unsafe { self.reserve.frames.push(run, node, &self.direct_map) };
        }
        if !table.takes_tables() {
            return Ok(());
        }
        for _ in self.reserve(node).tables..wanted.tables {
            let spare = PfnRange::single(P::Replace::take_spare_table(table, node)?);
            // SAFETY: 1: taken just now, and reached by duty 2 of `new`.
            unsafe { self.reserve.tables.push(spare, node, &self.direct_map) };
        }
        Ok(())
    }

    /// Gives all of the reserve back, of all nodes. Before a vmemmap is dropped, this has to be called, or
    /// the frames are lost.
    pub fn empty_reserve<P: PageTable>(&mut self, table: &mut P) {
        let all = Reserve {
            frames: u64::MAX,
            tables: u64::MAX,
            huge_leaves: u64::MAX,
        };
        self.take_out(table, NodeId::new(0), all);
    }

    /// Frees as much of the reserve for `node`, and then of other nodes.
    fn take_out<P: PageTable>(&mut self, table: &mut P, node: NodeId, amount: Reserve) {
        let memory = &self.direct_map;
        let mut left = amount.frames;
        while left > 0
            && let Some(run) = self.reserve.frames.take(left, node, memory)
        {
            left -= run.frames();
            // SAFETY: 1 and 2: the frames came from there, and nobody uses them.
            unsafe { self.frames.release_run(run) };
        }
        let mut left = amount.tables;
        while left > 0
            && let Some(spare) = self.reserve.tables.take(1, node, memory)
        {
            left -= 1;
            // SAFETY: 1: it is in the reserve, where only such tables are.
            unsafe { P::Replace::free_spare_table(table, spare.start()) };
        }
        let mut left = amount.huge_leaves;
        while left > 0
            && let Some(run) = self.reserve.huge_leaves.take(u64::MAX, node, memory)
        {
            left -= 1;
            if let Some(block) = block_of(run) {
                // SAFETY: 1 and 2: the block came from there, and nobody uses it.
                unsafe { release(&self.frames, block) };
            }
        }
    }

    /// How many frames of the reserve are on `node`.
    pub(super) fn reserve_frames_on(&self, node: NodeId) -> u64 {
        let mut frames = 0;
        self.for_each_reserve_block(&mut |first, count| {
            frames += if self.frames.node_of(first) == node {
                count
            } else {
                0
            };
        });
        frames
    }

    /// Shows the first frame of each block in the reserve, and how many frames it has.
    pub(super) fn for_each_reserve_block(&self, visit: &mut dyn FnMut(Pfn, u64)) {
        self.reserve
            .for_each_run(&self.direct_map, &mut |run, is_block| match is_block {
                true => visit(run.start(), run.frames()),
                false => run.into_iter().for_each(|frame| visit(frame, 1)),
            });
    }
}

/// Releases the one reference of `block`, and frees it.
///
/// # Safety
///
/// 1. It came from `frames` in this size.
/// 2. The reference is the caller's, and nobody uses the block.
unsafe fn release<A: FrameAllocator>(frames: &A, block: Block) {
    // SAFETY: 1 and 2: the caller's.
    if let Released::Last(owned) = unsafe { frames.release(block, 1) } {
        // SAFETY: 1: released just now.
        unsafe { frames.free(owned) };
    }
}
