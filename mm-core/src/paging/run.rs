//! What entries point at: leaves, and runs of leaves.

use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr};

/// What a leaf means to the vmemmap. Kept in the entry, so that a frame is never taken for what it
/// is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Descriptors that only this entry maps.
    Descriptors,
    /// Tail descriptors of one compound page, which other entries map too.
    Tail,
    /// Not written by this library: seen, never counted, never freed, never reused.
    Foreign,
}

impl Role {
    /// Whether leaves whose frames follow each other are one run. Tails of different frames are
    /// tails of different pages, and different runs.
    #[inline]
    pub(super) const fn can_step(self) -> bool {
        !matches!(self, Self::Tail)
    }
}

/// One leaf entry: a block of frames mapped at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// The frames.
    pub block: Block,
    /// What they hold.
    pub role: Role,
    /// Whether stores through the mapping are allowed.
    pub writable: bool,
}

impl Leaf {
    /// A writable leaf of one frame.
    #[inline]
    pub const fn single(frame: Pfn, role: Role) -> Self {
        Self {
            block: Block::single(frame),
            role,
            writable: true,
        }
    }
}

/// How the leaves of a run differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// All of them point at the same block.
    Same,
    /// Each points at the block that follows the one before it in physical memory.
    Next,
}

/// Leaves that follow each other in the virtual address space and form a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first of them.
    pub leaf: Leaf,
    /// How many; at least 1.
    pub count: u64,
    /// What the others point at.
    pub step: Step,
}

impl Run {
    /// One leaf.
    #[inline]
    pub const fn once(leaf: Leaf) -> Self {
        Self {
            leaf,
            count: 1,
            step: Step::Same,
        }
    }

    /// `count` leaves, at least 1, all of `frame`.
    #[inline]
    pub const fn repeat(frame: Pfn, count: u64, role: Role) -> Self {
        Self {
            leaf: Leaf::single(frame, role),
            count,
            step: Step::Same,
        }
    }

    /// A leaf for each frame of `frames`.
    #[inline]
    pub const fn each(frames: PfnRange, role: Role) -> Self {
        Self {
            leaf: Leaf::single(frames.start(), role),
            count: frames.frames(),
            step: Step::Next,
        }
    }

    /// How many base pages of virtual address space the run covers.
    #[inline]
    pub const fn pages(&self) -> u64 {
        self.count.saturating_mul(self.leaf.block.order().frames())
    }

    /// The block that the leaf number `index` points at; `None` beyond the last frame number.
    #[inline]
    pub const fn block(&self, index: u64) -> Option<Block> {
        let order = self.leaf.block.order();
        match self.step {
            Step::Same => Some(self.leaf.block),
            Step::Next => match index.checked_mul(order.frames()) {
                Some(frames) => match self.leaf.block.first().checked_add(frames) {
                    Some(first) => Block::new(first, order),
                    None => None,
                },
                None => None,
            },
        }
    }

    /// Takes the first `count` leaves (at least 1) off this run; what remains is `None` once
    /// nothing does.
    #[inline]
    pub(crate) const fn take(self, count: u64) -> (Run, Option<Run>) {
        if count >= self.count {
            return (self, None);
        }
        let Some(block) = self.block(count) else {
            return (self, None);
        };
        let taken = Run { count, ..self };
        let rest = Run {
            leaf: Leaf { block, ..self.leaf },
            count: self.count - count,
            step: self.step,
        };
        (taken, Some(rest))
    }

    /// The frames of a run of [`Step::Next`] single frames.
    #[inline]
    pub const fn frames(&self) -> Option<PfnRange> {
        if self.leaf.block.order().get() != Order::BASE.get() {
            return None;
        }
        match self.step {
            Step::Next => match PfnRange::new(self.leaf.block.first(), self.count) {
                Ok(frames) => Some(frames),
                Err(_) => None,
            },
            Step::Same => None,
        }
    }
}

/// Where a page table gets the runs that it maps.
///
/// The page table pulls, so that frames are taken only when there is a place for them, and the walk
/// to that place is made once for many runs.
pub trait RunSource {
    /// Why there is no next run.
    type Error;

    /// The leaves for the address `at` and on, for at most `pages` base pages.
    ///
    /// A run may be shorter than that, and is then followed by another. The references that its
    /// entries will own come with it. `largest` is the order of the largest leaf that can be
    /// entered at `at`: a run starts with leaves of that order, one at a time, or of base
    /// pages.
    ///
    /// # Errors
    ///
    /// What stopped it; nothing was taken by this call.
    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, Self::Error>;

    /// Whether leaf tables that a run of [`Step::Same`] tails fills may be linked from several
    /// places instead of being written each time. The references that the run had for entries
    /// which are then not written are [put back](Self::return_unused).
    fn share_tables(&self) -> bool {
        false
    }

    /// Takes back a run, or the end of one, that came from here and was not mapped: its references
    /// are the source's again.
    fn return_unused(&mut self, run: Run);
}
