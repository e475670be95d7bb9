//! The handle of memory that is online.

use super::Vmemmap;
use super::note::Notes;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads, Tables, Tails};
use crate::paging::PageTable;
use crate::readers::ReadersOf;
use core::iter::Sum;
use core::ops::AddAssign;

/// Memory that goes offline as a whole: it was brought [online](super::Vmemmap::online) so, or by
/// pieces ([`Vmemmap::region`](super::Vmemmap::region)).
///
/// Dropping it leaves the memory online. A [`Vmemmap`](super::Vmemmap) can still take it offline
/// piece by piece, or give another handle.
#[must_use = "the memory stays online until this is given to `Vmemmap::offline`"]
#[derive(Debug)]
pub struct Region<'p> {
    pub(super) pagemap: DevPagemap<'p>,
    pub(super) tables: Tables,
    pub(super) notes: Notes,
}

// Regions lie in a `static` under a kernel's lock.
static_assertions::assert_impl_all!(Region<'static>: Send, Sync);

impl<'p> Region<'p> {
    /// What was asked for.
    pub const fn pagemap(&self) -> &DevPagemap<'p> {
        &self.pagemap
    }

    /// Where the heads of compound pages are.
    pub fn heads(&self) -> Heads {
        self.pagemap.heads().0
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

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The region of `pagemap` on `table`, with what is known of it before anything is mapped.
    #[inline(never)]
    pub(super) fn region_of<'p, P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'p>,
    ) -> Region<'p> {
        let (huge_leaf, can_share) = (self.huge_leaf_of(table, pagemap), table.can_share_tables());
        let mut notes = Notes::known_ahead(pagemap, huge_leaf, can_share);
        self.note_whole_blocks(table, pagemap, &mut notes);
        Region {
            pagemap: *pagemap,
            tables: pagemap.tables_on(can_share).0,
            notes,
        }
    }
}

/// What went offline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offlined {
    /// How many of the frames were marked. Their marks are gone;
    /// [`Vmemmap::marked`](super::Vmemmap::marked) names them before.
    pub marked: u64,
    /// How many of the frames are still online, for one of two reasons:
    ///
    /// - A huge leaf or a shared table maps their descriptors, at an end of a range, together with
    ///   others, and there was no frame for a table to split it.
    /// - Their descriptors are in frames of another altmap than the pagemap's.
    pub kept: u64,
}

impl AddAssign for Offlined {
    fn add_assign(&mut self, other: Self) {
        self.marked += other.marked;
        self.kept += other.kept;
    }
}

impl Sum for Offlined {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}
