//! Frames that are taken before entries are exchanged, so that nothing can fail any more.

use super::error::OnlineError;
use super::frame_pool::FramePool;
use super::note::Notes;
use crate::addr::{Block, NodeId, Order, PfnRange};
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::{Leaf, Role, Run};

/// Frames of a pool for vmemmap pages, in lists that are in the frames.
pub(super) struct FramesAhead<'v, M> {
    /// Frames for single vmemmap pages.
    pub(super) singles: FrameStack<'v, M>,
    /// Blocks for huge leaves.
    blocks: FrameStack<'v, M>,
}

impl<'v, M: DirectMap> FramesAhead<'v, M> {
    pub(super) fn new(direct_map: &'v M) -> Self {
        Self {
            singles: FrameStack::new(direct_map),
            blocks: FrameStack::new(direct_map),
        }
    }

    /// Takes blocks of `pool` for up to `leaves` huge leaves of `order`. Says how many it got.
    pub(super) fn take_blocks<A: FrameAllocator>(
        &mut self,
        pool: &mut FramePool<'_, A, M>,
        leaves: u64,
        order: Order,
        node: NodeId,
        notes: &mut Notes,
    ) -> u64 {
        for taken in 0..leaves {
            let Ok(block) = pool.allocate(order, node) else {
                for _ in taken..leaves {
                    notes.huge_leaf_unavailable();
                }
                return taken;
            };
            let actual = pool.node_of(block.first());
            notes.frames_from(node, actual, order.frames());
            // SAFETY: 1: allocated just now.
            unsafe { self.blocks.push(block.frames()) };
        }
        leaves
    }

    /// Takes `frames` single frames of `pool`. After a failure, [`release`](Self::release) gives back those
    /// that were taken.
    pub(super) fn take_singles<A: FrameAllocator>(
        &mut self,
        pool: &mut FramePool<'_, A, M>,
        frames: u64,
        node: NodeId,
        notes: &mut Notes,
    ) -> Result<(), OnlineError> {
        let mut left = frames;
        while left > 0 {
            let run = pool.allocate_run(left, node)?;
            let actual = pool.node_of(run.start());
            notes.frames_from(node, actual, run.frames());
            left = left.saturating_sub(run.frames());
            // SAFETY: 1: allocated just now.
            unsafe { self.singles.push(run) };
        }
        Ok(())
    }

    /// A block for a huge leaf, if one is left.
    pub(super) fn next_block(&mut self) -> Option<Block> {
        self.blocks.pop().and_then(block_of)
    }

    /// Gives back the frames that were not needed.
    ///
    /// # Safety
    ///
    /// 1. All that is left came from `pool`, and no entry maps it.
    pub(super) unsafe fn release<A: FrameAllocator>(&mut self, pool: &mut FramePool<'_, A, M>) {
        while let Some(frames) = self.singles.pop() {
            // SAFETY: 1: the references came with the frames, from this pool (duty 1). 2: duty 1.
            unsafe { pool.release_frames(frames, Role::Descriptors) };
        }
        while let Some(block) = self.next_block() {
            let leaf = Leaf {
                block,
                role: Role::Descriptors,
                writable: true,
            };
            // SAFETY: 1 and 2: duty 1.
            unsafe { pool.release_run(Run::once(leaf)) };
        }
    }
}

/// The block that `frames` are.
pub(super) fn block_of(frames: PfnRange) -> Option<Block> {
    let order = u8::try_from(frames.frames().trailing_zeros()).ok()?;
    Block::new(frames.start(), Order::new(order)?)
}
