//! Frames of RAM with reference counts.

use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};
use core::fmt;

/// There is no memory for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames {
    /// The size of the requested block.
    pub order: Order,
    /// The requested node.
    pub node: NodeId,
}

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Order::BASE => f.write_str("no frame"),
            order => write!(f, "no block of {} frames", order.frames()),
        }?;
        write!(
            f,
            " left for node {}; free memory there or ask another node",
            self.node
        )
    }
}

impl core::error::Error for OutOfFrames {}

/// References were requested on a frame that has none (it is free, or is about to be freed), or were
/// more than can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireError {
    /// The frame.
    pub frame: Pfn,
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame {} has no reference left, or there is no room to count more; look its owner up again, or use another frame",
            self.frame
        )
    }
}

impl core::error::Error for AcquireError {}

/// A block without references that is not freed yet.
///
/// Its owner may still read its contents (the entries of a table), and then passes it to
/// [`FrameAllocator::free`] of the allocator that released it. It does not know which one that is,
/// so to free it is `unsafe`:
///
/// ```compile_fail,E0133
/// use mm_core::frame::{FrameAllocator, OwnedBlock};
///
/// fn free_elsewhere(other: &dyn FrameAllocator, block: OwnedBlock) {
///     other.free(block);
/// }
/// ```
#[must_use = "the block leaks unless it is given to `FrameAllocator::free`"]
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedBlock {
    block: Block,
}

impl OwnedBlock {
    /// Takes ownership of `block`.
    ///
    /// # Safety
    ///
    /// 1. `block` was allocated as one, its last reference has gone, and it has not been freed.
    /// 2. There is no other `OwnedBlock` for it.
    pub const unsafe fn new(block: Block) -> Self {
        Self { block }
    }

    /// Which frames these are.
    pub const fn block(&self) -> Block {
        self.block
    }
}

/// The result of releasing references.
#[must_use = "the last holder has to free the block"]
#[derive(Debug, PartialEq, Eq)]
pub enum Released {
    /// Others still hold references.
    Shared,
    /// These were the last ones. The caller has to free the block.
    Last(OwnedBlock),
}

/// Frames of RAM with reference counts.
///
/// # The rule
///
/// Every present entry of a page table that this library writes owns one reference on the block
/// that it points to: a leaf entry on a block of descriptors, a table entry on a table. `allocate`
/// hands out a block with one reference, for the entry that is about to point to it. Further
/// entries acquire a reference before they are made. Cleared entries release theirs after the
/// flush. The block is freed when its last reference is released. A block has one count, whatever
/// its order. [`split`](Self::split) gives each of its frames a count.
///
/// # For callers
///
/// Acquire and release references in groups: one call for a run of entries.
///
/// # For implementers
///
/// Methods take `&self`: the allocator has its own lock, or uses atomics. It is called with the
/// kernel's page-table lock held, so it must not take that lock and must not sleep on it. Counts
/// have 32 bits or more; an allocator with fewer says so by
/// [`most_references`](Self::most_references).
///
/// Which trait suits which allocator:
///
/// | the kernel's allocator | implements |
/// |---|---|
/// | counts references, and leaves a frame whose count became zero to its last holder | this |
/// | counts, and frees a frame by itself when its count becomes zero | [`PlainAllocator`](crate::frame::PlainAllocator): a frame that is out keeps one reference of the kernel's, which `free` gives back. [`Counted`](crate::frame::Counted) counts entries |
/// | does not count | `PlainAllocator`, with `Counted` |
/// | is a buddy allocator that takes a block back only as it was handed out | either, and says so: [`can_split`](Self::can_split), [`PlainAllocator::takes_back_frames`](crate::frame::PlainAllocator::takes_back_frames) |
///
/// A request names a node. The allocator may return memory of another node (the nearest, if the
/// node has none). The library compares with [`node_of`](Self::node_of) and reports it.
///
/// # Safety
///
/// 1. A block that was handed out belongs to the caller alone until it is freed, and is not handed
///    out twice in between. It is aligned to its size, and all of it is on one node.
/// 2. Its count is then 1. It changes by what `acquire` and `release` are called for, and by
///    nothing else. `split` gives each frame of a block a count of its own, 1, and `release_run`
///    does what releasing and freeing each frame does.
/// 3. A count never wraps. `acquire` fails on a block whose count is zero, if the allocator [tells free
///    frames](InspectFrames::tells_free_frames).
/// 4. `release` returns [`Released::Last`] exactly when the count becomes zero, and frees nothing.
///    `keep` makes it 1 again.
/// 5. Every frame is reachable through the kernel's [`DirectMap`](crate::frame::DirectMap) from
///    when it is handed out until it is freed.
pub unsafe trait FrameAllocator {
    /// Hands out a block of `order` with one reference, from `node` if it has one. The contents are
    /// arbitrary.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`], and nothing has changed.
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames>;

    /// Hands out between 1 and `at_most` consecutive single frames, each with one reference, all on
    /// one node. The caller calls again for the rest. The library asks for at least 1.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] where there is not even one.
    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        let _ = at_most;
        self.allocate(Order::BASE, node).map(Block::frames)
    }

    /// Adds `references` to the count of the block that starts at `first`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] where the count is known to be zero, or cannot become so large, and nothing has
    /// changed.
    ///
    /// # Safety
    ///
    /// 1. The block came from this allocator, and is not free if the allocator does not tell.
    /// 2. The references are released by [`release`](Self::release) or
    ///    [`release_run`](Self::release_run).
    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError>;

    /// How many references a block can have for certain: `acquire` may refuse more. At least 2. The
    /// default is for counts of 32 bits and more. With a lower limit, more frames hold tails.
    fn most_references(&self) -> u64 {
        1 << 31
    }

    /// Releases `references` of `block`.
    ///
    /// # Safety
    ///
    /// 1. The block came from this allocator in this size, or it is a single frame of a block that
    ///    was split since.
    /// 2. The caller owns that many references and uses none of them any more: no entry, and no
    ///    translation cached by a CPU, depends on them.
    unsafe fn release(&self, block: Block, references: u64) -> Released;

    /// Releases one reference of each frame of `run`, and frees those without references. Returns
    /// how many it freed.
    ///
    /// # Safety
    ///
    /// As for [`release`](Self::release) with each frame, one reference each.
    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        // SAFETY: the caller vouches for each frame of the run.
        unsafe { release_one_by_one(self, run, 1, 1) }
    }

    /// Releases `references` of every `step`th frame of `frames`, from the first one on, and frees those
    /// without references. Returns how many it freed. A step of 0 counts as 1.
    ///
    /// # Safety
    ///
    /// As for [`release`](Self::release) with each of these frames, `references` each.
    unsafe fn release_each(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        // SAFETY: the caller's.
        unsafe { release_one_by_one(self, frames, step, references) }
    }

    /// Frees a block without references.
    ///
    /// # Safety
    ///
    /// 1. The block came from [`release`](Self::release) of this allocator.
    unsafe fn free(&self, block: OwnedBlock);

    /// Keeps a block without references, in place of freeing it: it has one reference again, which is
    /// the caller's. Nothing is allocated and nothing can fail.
    ///
    /// A [reserve](crate::vmemmap::Reserve) keeps what a change of order frees.
    ///
    /// # Safety
    ///
    /// 1. The block came from [`release`](Self::release) of this allocator.
    unsafe fn keep(&self, block: OwnedBlock) -> Block;

    /// Whether [`split`](Self::split) makes single frames of a block. An allocator that takes a block
    /// back only as it was handed out answers no. It is then never asked to split one: where a huge
    /// leaf may have to be split later, its memory is mapped by base pages instead, with a
    /// [`Note`](crate::vmemmap::Note::BlocksStayWhole).
    fn can_split(&self) -> bool {
        true
    }

    /// Makes single frames of a block: each then has a count of its own, 1.
    ///
    /// # Safety
    ///
    /// 1. The block came from this allocator, in this size, and its count is 1. The allocator
    ///    [can split](Self::can_split).
    /// 2. The caller owns that reference, and afterwards one on each frame.
    unsafe fn split(&self, block: Block);

    /// The node that `frame` is on.
    fn node_of(&self, frame: Pfn) -> NodeId;
}

/// What [`FrameAllocator::release_each`] does, by a call for each frame.
///
/// # Safety
///
/// As there.
pub(super) unsafe fn release_one_by_one<A: FrameAllocator + ?Sized>(
    allocator: &A,
    frames: PfnRange,
    step: u64,
    references: u64,
) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX).max(1);
    let mut freed = 0;
    for frame in frames.into_iter().step_by(step) {
        // SAFETY: 1 and 2: the caller vouches for each of these frames.
        let released = unsafe { allocator.release(Block::single(frame), references) };
        if let Released::Last(block) = released {
            // SAFETY: 1: released just now.
            unsafe { allocator.free(block) };
            freed += 1;
        }
    }
    freed
}

/// Reading an allocator's counts, for audits.
///
/// Not needed to bring memory online: only [`Vmemmap::audit`](crate::vmemmap::Vmemmap::audit) asks
/// for it.
pub trait InspectFrames {
    /// The count of the block that starts at `first`: 0 for a free frame, `None` for a frame that is known
    /// not to be this allocator's.
    fn references(&self, first: Pfn) -> Option<u64>;

    /// Whether [`references`](Self::references) is 0 for free frames. Otherwise it is 1 for a free frame, or
    /// for all frames that are not counted: see [`SharedCounts`](crate::frame::SharedCounts).
    fn tells_free_frames(&self) -> bool {
        true
    }

    /// How many frames are handed out, if the allocator can tell and serves only the vmemmap that
    /// is audited. A frame that is handed out and reached by no entry has leaked.
    fn outstanding(&self) -> Option<u64> {
        None
    }
}

// SAFETY: 1 to 5 hold because they hold for the allocator behind the reference.
unsafe impl<T: FrameAllocator + ?Sized> FrameAllocator for &T {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        (**self).allocate(order, node)
    }

    fn allocate_run(&self, at_most: u64, node: NodeId) -> Result<PfnRange, OutOfFrames> {
        (**self).allocate_run(at_most, node)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).acquire(first, references) }
    }

    fn most_references(&self) -> u64 {
        (**self).most_references()
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).release(block, references) }
    }

    unsafe fn release_run(&self, run: PfnRange) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).release_run(run) }
    }

    unsafe fn release_each(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).release_each(frames, step, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: the caller's duty is the same.
        unsafe { (**self).free(block) }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: the caller's duty is the same.
        unsafe { (**self).keep(block) }
    }

    fn can_split(&self) -> bool {
        (**self).can_split()
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: the caller's duties are the same.
        unsafe { (**self).split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        (**self).node_of(frame)
    }
}

impl<T: InspectFrames + ?Sized> InspectFrames for &T {
    fn references(&self, first: Pfn) -> Option<u64> {
        (**self).references(first)
    }

    fn tells_free_frames(&self) -> bool {
        (**self).tells_free_frames()
    }

    fn outstanding(&self) -> Option<u64> {
        (**self).outstanding()
    }
}
