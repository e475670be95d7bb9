//! Which altmaps have frames in the vmemmap.
//!
//! A frame must go back to the altmap that it came from, but only the pagemap knows that altmap.
//! The list here is enough to see that a pagemap has another altmap, or none.

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::frame::Altmap;
use crate::paging::{Run, Step};
use core::ops::Range;

/// How many altmaps can be in use at a time.
pub(super) const CAPACITY: usize = 16;

/// The reserved frames of altmaps some of whose frames have descriptors here, with their node.
#[derive(Debug)]
pub(super) struct AltmapsInUse {
    known: [Option<(PfnRange, NodeId)>; CAPACITY],
}

impl AltmapsInUse {
    pub(super) const fn new() -> Self {
        Self {
            known: [None; CAPACITY],
        }
    }

    /// Registers `altmap`. Says whether there was room.
    pub(super) fn insert(&mut self, altmap: &dyn Altmap) -> bool {
        let reserved = altmap.reserved();
        let mut known = self.known.iter().flatten();
        if known.any(|(known, _)| *known == reserved) {
            return true;
        }
        match self.known.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => {
                *slot = Some((reserved, altmap.node_of(reserved.start())));
                true
            }
            None => false,
        }
    }

    /// Removes `altmap` if none of its frames has a descriptor any more.
    pub(super) fn remove_unused(&mut self, altmap: &dyn Altmap) {
        let reserved = altmap.reserved();
        if altmap.undescribed() != Some(reserved) {
            return;
        }
        for slot in &mut self.known {
            if slot.is_some_and(|(known, _)| known == reserved) {
                *slot = None;
            }
        }
    }

    /// The node of the altmap that has `frame`.
    pub(super) fn node_of(&self, frame: Pfn) -> Option<NodeId> {
        let mut known = self.known.iter().flatten();
        let found = known.find(|(reserved, _)| reserved.contains(frame));
        found.map(|(_, node)| *node)
    }

    /// Whether there is an altmap other than `own`.
    pub(super) fn any_other(&self, own: Option<&dyn Altmap>) -> bool {
        let own = own.map(Altmap::reserved);
        let mut known = self.known.iter().flatten();
        known.any(|(reserved, _)| Some(*reserved) != own)
    }

    /// The reserved frames of an altmap other than `own`, if leaves of `run` point at some of them.
    pub(super) fn other_altmap_of(&self, run: &Run, own: Option<&dyn Altmap>) -> Option<PfnRange> {
        self.first_other(run, own).map(|(reserved, _)| reserved)
    }

    /// The numbers of those leaves of `run`. If there are several such altmaps, the leaves of the
    /// one that comes first in the run.
    pub(super) fn leaves_in_other(
        &self,
        run: &Run,
        own: Option<&dyn Altmap>,
    ) -> Option<Range<u64>> {
        self.first_other(run, own).map(|(_, leaves)| leaves)
    }

    fn first_other(&self, run: &Run, own: Option<&dyn Altmap>) -> Option<(PfnRange, Range<u64>)> {
        if !self.any_other(own) {
            return None;
        }
        let own = own.map(Altmap::reserved);
        let known = self.known.iter().flatten();
        known
            .map(|(reserved, _)| *reserved)
            .filter(|reserved| Some(*reserved) != own)
            .filter_map(|reserved| Some((reserved, leaves_in(run, reserved)?)))
            .min_by_key(|(_, leaves)| leaves.start)
    }
}

/// The numbers of the leaves of `run` that point at some of `frames`.
fn leaves_in(run: &Run, frames: PfnRange) -> Option<Range<u64>> {
    let first = run.leaf.block.first().get();
    let last = run.block(run.count.checked_sub(1)?)?.frames().last();
    let all = PfnRange::new(run.leaf.block.first(), last.get().checked_sub(first)? + 1).ok()?;
    let common = all.intersection(frames)?;
    match run.step {
        Step::Same => Some(0..run.count),
        Step::Next => {
            let order = run.leaf.block.order().get();
            let leaf_of = |frame: Pfn| frame.get().saturating_sub(first) >> order;
            Some(leaf_of(common.start())..leaf_of(common.last()) + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Block, Order};
    use crate::paging::{Leaf, Role};

    fn frames(start: u64, count: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
    }

    fn run(first: u64, order: u8, count: u64, step: Step) -> Run {
        let order = Order::new(order).unwrap();
        let block = Block::new(Pfn::new(first).unwrap(), order).unwrap();
        let leaf = Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        };
        Run { leaf, count, step }
    }

    #[test]
    fn of_a_run_that_runs_into_an_altmap_only_those_leaves_are_in_it() {
        let next = |count| run(0x100, 0, count, Step::Next);
        assert_eq!(leaves_in(&next(16), frames(0x108, 0x100)), Some(8..16));
        assert_eq!(leaves_in(&next(16), frames(0x104, 4)), Some(4..8));
        assert_eq!(leaves_in(&next(16), frames(0xf0, 0x18)), Some(0..8));
        assert_eq!(leaves_in(&next(16), frames(0x110, 16)), None);
        assert_eq!(leaves_in(&next(16), frames(0xf0, 16)), None);
    }

    #[test]
    fn a_block_or_a_tail_is_in_an_altmap_as_a_whole() {
        let blocks = run(0x400, 9, 3, Step::Next);
        assert_eq!(leaves_in(&blocks, frames(0x7ff, 1)), Some(1..2));
        let tails = run(0x108, 0, 7, Step::Same);
        assert_eq!(leaves_in(&tails, frames(0x108, 1)), Some(0..7));
        assert_eq!(leaves_in(&tails, frames(0x109, 8)), None);
    }
}
