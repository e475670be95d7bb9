//! The tail frames that all compound pages of an order share: one for each order and node.
//!
//! The registry holds no reference. A tail frame lives as long as entries point at it. When its
//! last reference is released, it is removed from the registry.

use crate::addr::{NodeId, Order, Pfn};

/// How many tail frames the registry has room for.
pub(super) const CAPACITY: usize = 32;

/// What a shared tail frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TailKey {
    pub(super) order: Order,
    pub(super) node: NodeId,
}

/// See the module.
#[derive(Debug)]
pub(super) struct TailRegistry {
    tails: [Option<(TailKey, Pfn)>; CAPACITY],
}

impl TailRegistry {
    pub(super) const fn new() -> Self {
        Self {
            tails: [None; CAPACITY],
        }
    }

    /// The tail frame for `key`.
    pub(super) fn find(&self, key: TailKey) -> Option<Pfn> {
        let mut known = self.tails.iter().flatten();
        known
            .find(|(found, _)| *found == key)
            .map(|(_, frame)| *frame)
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.tails.iter().any(Option::is_none)
    }

    /// Registers `frame` for `key`, in place of the frame that was registered for it. Says whether
    /// there was room.
    pub(super) fn insert(&mut self, key: TailKey, frame: Pfn) -> bool {
        let same = |slot: &Option<(TailKey, Pfn)>| slot.is_some_and(|(found, _)| found == key);
        let slot = match self.tails.iter().position(same) {
            Some(index) => Some(index),
            None => self.tails.iter().position(Option::is_none),
        };
        match slot.and_then(|index| self.tails.get_mut(index)) {
            Some(slot) => {
                *slot = Some((key, frame));
                true
            }
            None => false,
        }
    }

    /// Removes `frame`, if it is registered.
    pub(super) fn forget(&mut self, frame: Pfn) {
        for slot in &mut self.tails {
            if slot.is_some_and(|(_, known)| known == frame) {
                *slot = None;
            }
        }
    }
}
