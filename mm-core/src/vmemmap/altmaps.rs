//! Which altmaps have frames in the vmemmap.
//!
//! A frame goes back to where it came from, and where that is, only the pagemap knows that it was
//! taken with. What is known here is enough to tell that another pagemap does not.

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::frame::Altmap;
use crate::paging::Run;

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

    /// Writes `altmap` down. Says whether there was room.
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

    /// Strikes `altmap` off if none of its frames has a descriptor any more.
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

    /// The reserved frames of an altmap other than `own` that some leaves of `run` point at.
    pub(super) fn other(&self, run: &Run, own: Option<&dyn Altmap>) -> Option<PfnRange> {
        if !self.any_other(own) {
            return None;
        }
        let own = own.map(Altmap::reserved);
        let last = run.block(run.count - 1)?.frames().last();
        let first = run.leaf.block.first();
        let frames = PfnRange::new(first, last.get().checked_sub(first.get())? + 1).ok()?;
        let known = self.known.iter().flatten();
        known
            .map(|(reserved, _)| *reserved)
            .filter(|reserved| Some(*reserved) != own)
            .find(|reserved| reserved.overlaps(frames))
    }
}
