//! What tables say of addresses: plain data, which knows neither memory nor who reads it.
//!
//! The log of violations names translations, memory has the log, and walkers read memory. So what
//! walkers answer is not theirs.

use mm_core::addr::{Granule, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use std::fmt;

/// A table, as a walk comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The table's frame.
    pub frame: Pfn,
    /// The table's level: 1 where all entries are leaves of base pages, one more for each level
    /// above.
    pub level: u8,
    /// The addresses that the table translates on this walk.
    pub span: VirtRange,
    /// Whether the entries on the way here all allow stores.
    pub writable: bool,
    /// Whether the entries on the way here all allow instruction fetches.
    pub executable: bool,
}

/// A leaf entry, as a walk comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The addresses that the leaf translates.
    pub span: VirtRange,
    /// The first frame of what it points at.
    pub frame: Pfn,
    /// Where the entry lies.
    pub entry: PhysAddr,
    /// Whether the translation outlives a switch of address spaces.
    pub global: bool,
    /// Whether all entries on the way allow stores.
    pub writable: bool,
    /// Whether all entries on the way allow instruction fetches.
    pub executable: bool,
}

impl Translation {
    /// What `at`, an address of the span, translates to.
    pub fn address(&self, at: VirtAddr, granule: Granule) -> PhysAddr {
        let offset = at.get().wrapping_sub(self.span.start().get());
        PhysAddr::new(self.frame.base(granule).get().wrapping_add(offset))
    }

    /// The frames that the leaf points at.
    pub fn frames(&self, granule: Granule) -> PfnRange {
        let frames = self.span.pages(granule);
        PfnRange::new(self.frame, frames).unwrap_or(PfnRange::single(self.frame))
    }

    /// The size of the leaf.
    pub fn order(&self, granule: Granule) -> Order {
        let pages = self.span.pages(granule);
        Order::new(pages.trailing_zeros() as u8).unwrap_or(Order::BASE)
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = if self.writable {
            "writable"
        } else {
            "read-only"
        };
        let fetches = if self.executable { ", executable" } else { "" };
        write!(
            f,
            "frame {} for {}, {stores}{fetches}",
            self.frame, self.span
        )
    }
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleKind {
    /// An entry is not present.
    NotPresent,
    /// The architecture does not translate such addresses.
    NotCanonical,
    /// An entry is present and has bits set that have to be zero.
    ReservedBits {
        /// Where the entry lies.
        entry: PhysAddr,
    },
    /// A leaf is valid, but its access flag is not set and the hardware does not set it.
    AccessFlag {
        /// Where the entry lies.
        entry: PhysAddr,
    },
    /// A leaf is valid, and not for loads by the kernel.
    NotAllowed {
        /// Where the entry lies.
        entry: PhysAddr,
    },
    /// An entry would lie where there is no memory.
    NoMemory {
        /// Where.
        entry: PhysAddr,
    },
}

/// Addresses without a translation, all for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Which addresses.
    pub span: VirtRange,
    /// Why.
    pub kind: HoleKind,
}
