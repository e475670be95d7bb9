//! The handle of memory that is online.

use super::note::Notes;
use crate::pagemap::{DevPagemap, Tables, Tails};

/// Memory that was brought online as a whole, and will go offline as a whole.
///
/// Dropping it leaves the memory online for good.
#[must_use = "the memory stays online until this is given to `Vmemmap::offline`"]
#[derive(Debug)]
pub struct Region<'p> {
    pub(super) pagemap: DevPagemap<'p>,
    pub(super) tables: Tables,
    pub(super) notes: Notes,
}

impl<'p> Region<'p> {
    /// What was asked for.
    pub const fn pagemap(&self) -> &DevPagemap<'p> {
        &self.pagemap
    }

    /// How tails are shared.
    pub fn tails(&self) -> Tails {
        self.pagemap.tails().0
    }

    /// How tables are shared.
    pub const fn tables(&self) -> Tables {
        self.tables
    }

    /// What was done otherwise than asked.
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// What went offline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offlined {
    /// How many of the frames were marked. Their marks are gone;
    /// [`Vmemmap::marked`](super::Vmemmap::marked) names them before.
    pub marked: u64,
    /// How many frames at the ends of a region are online still, since a huge leaf or a shared
    /// table maps their descriptors together with those of other memory, and could not be parted
    /// for want of a frame for a table.
    pub kept: u64,
}
