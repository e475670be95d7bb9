//! What entries point at: leaves, and runs of leaves.

use super::Groups;
use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr};

/// What a leaf is to the vmemmap. The entry itself keeps the role, so that the library never
/// mistakes one frame for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Descriptors that only this entry maps.
    Descriptors,
    /// Tail descriptors of one compound page, which other entries map too.
    Tail,
    /// Not written by this library. What it points at is never counted, freed or reused.
    Foreign,
}

impl Role {
    /// Whether leaves of consecutive frames are one run. Tails in different frames belong to
    /// different pages, so they are different runs.
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

/// Consecutive leaves in the virtual address space that form a pattern.
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

    /// The last frame that any of the leaves points at; [`Pfn::MAX`] where that would be beyond the
    /// last frame number.
    #[inline]
    pub const fn last_frame(&self) -> Pfn {
        let frames = match self.step {
            Step::Same => self.leaf.block.order().frames(),
            Step::Next => self.pages(),
        };
        let first = self.leaf.block.first();
        match first.checked_add(frames.saturating_sub(1)) {
            Some(last) => last,
            None => Pfn::MAX,
        }
    }

    /// Splits the run: its first `count` leaves (at least 1), and the rest, if any.
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

    /// Both runs as one, if `next` continues this one.
    pub(crate) fn joined(self, next: Run) -> Option<Run> {
        let alike = |run: &Run| (run.leaf.role, run.leaf.writable, run.leaf.block.order());
        if alike(&self) != alike(&next) {
            return None;
        }
        let count = self.count.checked_add(next.count)?;
        [Step::Same, Step::Next].into_iter().find_map(|step| {
            let has = |run: &Run| run.count == 1 || run.step == step;
            let joined = Run {
                count,
                step,
                ..self
            };
            let possible = step == Step::Same || self.leaf.role.can_step();
            let continues = joined.block(self.count) == Some(next.leaf.block);
            (possible && has(&self) && has(&next) && continues).then_some(joined)
        })
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
/// The page table asks for runs. So a frame is taken only when there is a place for it, and one
/// walk to that place serves many runs.
pub trait RunSource {
    /// Why there is no next run.
    type Error;

    /// The leaves from the address `at` on, for at most `pages` base pages.
    ///
    /// A run may be shorter than that; the page table then asks again. The references that the
    /// entries will own come with the run. `largest` is the order of the largest leaf that can be
    /// entered at `at`. A run consists of one leaf of that order, or of base pages.
    ///
    /// # Errors
    ///
    /// Why there is no run. Nothing was taken by this call.
    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, Self::Error>;

    /// Groups of base-page leaves from the address `at` on, at most `pages` leaves in all, if those are what
    /// comes next; `None` to be asked by [`next_run`](Self::next_run). A page table may ask this first,
    /// wherever it is not within a run.
    ///
    /// The references that the entries will own come with the groups. They stand for the same leaves, in the
    /// same order, as the runs that `next_run` would give.
    ///
    /// # Errors
    ///
    /// As for `next_run`.
    fn next_groups(&mut self, at: VirtAddr, pages: u64) -> Result<Option<Groups>, Self::Error> {
        let _ = (at, pages);
        Ok(None)
    }

    /// Whether a leaf table that a run of [`Step::Same`] tails fills may be linked from several
    /// places, instead of being written each time. The references for entries that are then not
    /// written are [returned](Self::return_unused).
    fn share_tables(&self) -> bool {
        false
    }

    /// Takes back a run from this source that was not mapped, the end of one, or what a group has. Its
    /// references belong to the source again.
    fn return_unused(&mut self, run: Run);
}
