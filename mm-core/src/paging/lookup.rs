//! What is at an address.

use super::Leaf;
use crate::addr::{Granule, Pfn, VirtAddr, VirtRange};

/// A translation, at any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address that the leaf translates.
    pub at: VirtAddr,
    /// What it points at.
    pub leaf: Leaf,
}

impl Mapping {
    /// The frame that `at` translates to; `at` is within the leaf.
    pub const fn frame_of(&self, at: VirtAddr, granule: Granule) -> Option<Pfn> {
        match at.get().checked_sub(self.at.get()) {
            Some(offset) => self
                .leaf
                .block
                .first()
                .checked_add(offset >> granule.shift()),
            None => None,
        }
    }

    /// The last address that the leaf translates.
    pub const fn last(&self, granule: Granule) -> VirtAddr {
        let bytes = self.leaf.block.order().frames() << granule.shift();
        VirtAddr::new(self.at.get().saturating_add(bytes.saturating_sub(1)))
    }
}

/// What [`PageTable::lookup`](super::PageTable::lookup) finds at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A leaf translates it.
    Mapped(Mapping),
    /// Nothing. These addresses, the one asked for among them, are not mapped, and no entry for
    /// them is in use. There may be more of them.
    Hole(VirtRange),
    /// Nothing translates it, but the entry for these addresses, the one asked for among them, is
    /// in use: other code of the kernel keeps something there.
    Reserved(VirtRange),
}

impl Lookup {
    /// The leaf, if there is one.
    pub const fn mapping(self) -> Option<Mapping> {
        match self {
            Self::Mapped(mapping) => Some(mapping),
            Self::Hole(_) | Self::Reserved(_) => None,
        }
    }

    /// The last address that the answer is about. It is not below the last one of the page of `at`,
    /// which was asked for.
    pub(crate) fn last(self, at: VirtAddr, granule: Granule) -> VirtAddr {
        let last = match self {
            Self::Mapped(mapping) => mapping.last(granule),
            Self::Hole(range) | Self::Reserved(range) => range.last(),
        };
        last.max(VirtAddr::new(at.get() | (granule.bytes() - 1)))
    }
}
