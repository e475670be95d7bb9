//! Leaves in groups, as compound pages have them.

use super::{Leaf, Role, Run, Step};
use crate::addr::{Pfn, PfnRange};

/// What the leaves of a group behind its first one are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupTails {
    /// One leaf, the same for all groups.
    Same(Leaf),
    /// For each group a writable leaf of its own: of the frame behind that of its head.
    Own,
}

/// Leaves of base pages in groups: each starts with a frame of its own, the head, and the others are one
/// tail leaf.
///
/// ```text
///   Same   H T T T  I T T T  J T T T      frames: H I J
///   Own    H h h h  I i i i  J j j j      frames: H h I i J j
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// One frame for each group, or two where it has [a tail of its own](GroupTails::Own).
    pub frames: PfnRange,
    /// What the others are.
    pub tails: GroupTails,
    /// How many leaves a group has; at least 1, or 2 where it has a tail of its own.
    pub pages: u64,
}

impl Groups {
    /// How many frames are one group's alone.
    #[inline]
    pub const fn frames_each(&self) -> u64 {
        match self.tails {
            GroupTails::Same(_) => 1,
            GroupTails::Own => 2,
        }
    }

    /// How many groups there are.
    #[inline]
    pub const fn groups(&self) -> u64 {
        self.frames.frames() / self.frames_each()
    }

    /// How many leaves there are.
    #[inline]
    pub const fn leaves(&self) -> u64 {
        self.groups().saturating_mul(self.pages)
    }

    /// The last frame that any of the leaves points at.
    #[inline]
    pub const fn last_frame(&self) -> Pfn {
        let last = self.frames.last();
        match self.tails {
            GroupTails::Same(tail) if tail.block.frames().last().get() > last.get() => {
                tail.block.frames().last()
            }
            _ => last,
        }
    }

    /// The first leaf of the group number `index`, and the others.
    #[inline]
    pub fn group(&self, index: u64) -> (Leaf, Leaf) {
        let start = self.frames.start();
        let head = start.saturating_add(index.saturating_mul(self.frames_each()));
        let tail = match self.tails {
            GroupTails::Same(tail) => tail,
            GroupTails::Own => Leaf::single(head.saturating_add(1), Role::Tail),
        };
        (Leaf::single(head, Role::Descriptors), tail)
    }

    /// The same leaves as runs, in the order of addresses: what a page table that does not know groups
    /// enters.
    pub fn runs(self) -> impl Iterator<Item = Run> {
        let tails = self.pages.saturating_sub(1);
        (0..self.groups()).flat_map(move |index| {
            let (head, tail) = self.group(index);
            let tails = Run {
                leaf: tail,
                count: tails,
                step: Step::Same,
            };
            [Run::once(head), tails]
                .into_iter()
                .filter(|run| run.count != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn leaves(groups: Groups) -> Vec<(u64, Role, bool)> {
        let leaf = |run: Run| {
            let block = run.leaf.block.first().get();
            let leaf = (block, run.leaf.role, run.leaf.writable);
            std::iter::repeat_n(leaf, run.count as usize)
        };
        groups.runs().flat_map(leaf).collect()
    }

    #[test]
    fn groups_are_runs_of_heads_and_tails() {
        let frames = PfnRange::new(Pfn::new(4).unwrap(), 2).unwrap();
        let tail = Leaf {
            writable: false,
            ..Leaf::single(Pfn::new(9).unwrap(), Role::Tail)
        };
        let (head, shared, own) = (Role::Descriptors, (9, Role::Tail, false), Role::Tail);
        let mut groups = Groups {
            frames,
            tails: GroupTails::Same(tail),
            pages: 3,
        };
        let same = [
            (4, head, true),
            shared,
            shared,
            (5, head, true),
            shared,
            shared,
        ];
        assert_eq!(leaves(groups), same);
        assert_eq!((groups.leaves(), groups.last_frame().get()), (6, 9));
        groups.tails = GroupTails::Own;
        let pair = [(4, head, true), (5, own, true), (5, own, true)];
        assert_eq!(leaves(groups), pair);
        assert_eq!((groups.leaves(), groups.last_frame().get()), (3, 5));
        groups = Groups {
            tails: GroupTails::Same(tail),
            pages: 1,
            ..groups
        };
        assert_eq!(leaves(groups), [(4, head, true), (5, head, true)]);
    }
}
