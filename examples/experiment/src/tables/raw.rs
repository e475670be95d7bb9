//! A kernel's tables in use, written as another part of the kernel would: without the bits by which
//! the library knows its own entries.

use super::{EntryBits, Place, Tables};
use conformance::Seen;
use core::cell::Cell;
use core::fmt;
use core::sync::atomic::Ordering;
use mm_core::addr::{Block, Order, Pfn, PfnRange, VirtAddr};
use mm_core::frame::DirectMap;

/// How many foreign tables there can be at a time.
const MOST_TABLES: usize = 8;

/// How many frames [`ForeignTables`] can use.
pub const FOREIGN_TABLES: u64 = MOST_TABLES as u64;

/// The tables that the CPU walks, whatever their format.
///
/// The CPU may have cached what is changed through this. The caller flushes.
pub trait RawTables: fmt::Debug {
    /// What `at` translates to, read from memory.
    fn translate(&self, at: VirtAddr) -> Option<Seen>;

    /// Maps `block` at `at` as other code of the kernel would, in existing tables or new ones. Says
    /// whether there was a place for it.
    fn map_foreign(&self, at: VirtAddr, block: Block) -> bool;

    /// Links empty tables down to that of pages for `at`. Says whether there was a place for them.
    fn link_tables(&self, at: VirtAddr) -> bool;

    /// Whether all foreign tables are linked where they were.
    fn tables_are_linked(&self) -> bool;

    /// Keeps something that is not present in the entry for `at` of a leaf of `order`. Says whether
    /// there was a place for it.
    fn reserve(&self, at: VirtAddr, order: Order) -> bool;

    /// Takes out what `reserve` keeps. Says whether it was there.
    fn take_reserved(&self) -> bool;

    /// Clears the entry of the page or block at `at`. Tables stay.
    fn clear_leaf(&self, at: VirtAddr);

    /// Unlinks the foreign tables that are empty.
    fn unlink_empty(&self);
}

/// [`Tables`], with frames for foreign tables.
#[derive(Debug)]
pub struct ForeignTables<B, M> {
    tables: Tables<B, M>,
    frames: PfnRange,
    /// Where the table in each of the frames is linked.
    links: [Cell<Option<Place>>; MOST_TABLES],
    /// What is kept in an entry that is not present.
    reserved: Cell<Option<(Place, u64)>>,
}

impl<B: EntryBits, M: DirectMap> ForeignTables<B, M> {
    /// `tables`, and `frames` for what somebody else has to add.
    ///
    /// # Safety
    ///
    /// 1. The frames are nobody's, and `tables` reaches them.
    /// 2. One thread uses the tables.
    pub const unsafe fn new(tables: Tables<B, M>, frames: PfnRange) -> Self {
        Self {
            tables,
            frames,
            links: [const { Cell::new(None) }; MOST_TABLES],
            reserved: Cell::new(None),
        }
    }

    /// Each frame, and where it is linked.
    fn slots(&self) -> impl Iterator<Item = (Pfn, &Cell<Option<Place>>)> {
        let frames = 0..self.frames.frames();
        let frames = frames.filter_map(|index| self.frames.start().checked_add(index));
        frames.zip(&self.links)
    }

    /// Links a frame that is not in use.
    fn link(&self, place: Place) -> Option<Pfn> {
        let (frame, slot) = self.slots().find(|(_, slot)| slot.get().is_none())?;
        self.tables.link(place, frame);
        slot.set(Some(place));
        Some(frame)
    }

    /// The free place of a leaf of `order` for `at`, below tables that are there or new ones.
    fn free_place(&self, at: VirtAddr, order: Order) -> Option<Place>
    where
        B: fmt::Debug,
        M: fmt::Debug,
    {
        let shift = self.tables.shape.granule.shift() + u32::from(order.get());
        if self.tables.shape.leaf_shifts(shift).next() != Some(shift) {
            return None;
        }
        let mut link = |_: &Tables<B, M>, place| self.link(place);
        let place = self.tables.descend(at, shift, &mut link);
        if place.is_none() {
            self.unlink_empty();
        }
        place
    }

    fn is_empty(&self, table: Pfn) -> bool {
        let entries = self.tables.shape.granule.entries_per_table();
        (0..entries).all(|index| self.tables.entry(table, index).load(Ordering::Relaxed) == 0)
    }
}

impl<B: EntryBits + fmt::Debug, M: DirectMap + fmt::Debug> RawTables for ForeignTables<B, M> {
    fn translate(&self, at: VirtAddr) -> Option<Seen> {
        self.tables.translate(at)
    }

    fn map_foreign(&self, at: VirtAddr, block: Block) -> bool {
        let granule = self.tables.shape.granule;
        let Some(place) = self.free_place(at, block.order()) else {
            return false;
        };
        let last = self.tables.is_last(place);
        let entry = B::leaf(block.first().base(granule), B::DATA, last);
        self.tables.write(place, entry);
        true
    }

    fn link_tables(&self, at: VirtAddr) -> bool {
        self.free_place(at, Order::BASE).is_some()
    }

    fn tables_are_linked(&self) -> bool {
        let granule = self.tables.shape.granule;
        self.slots().all(|(frame, slot)| {
            let place = slot.get();
            place.is_none_or(|place| self.tables.read(place) == B::link(frame.base(granule)))
        })
    }

    fn reserve(&self, at: VirtAddr, order: Order) -> bool {
        let Some(place) = self.free_place(at, order) else {
            return false;
        };
        let first = self.frames.start().base(self.tables.shape.granule);
        // By the lowest bit all architectures say "present".
        let entry = B::leaf(first, B::DATA, self.tables.is_last(place)) & !1;
        self.tables.write(place, entry);
        self.reserved.set(Some((place, entry)));
        true
    }

    fn take_reserved(&self) -> bool {
        let Some((place, entry)) = self.reserved.take() else {
            return true;
        };
        let stayed = self.tables.read(place) == entry;
        if stayed {
            self.tables.write(place, 0);
        }
        stayed
    }

    fn clear_leaf(&self, at: VirtAddr) {
        if let Some((place, ..)) = self.tables.walk(at) {
            self.tables.write(place, 0);
        }
    }

    fn unlink_empty(&self) {
        // A table that goes may leave another one empty.
        for _ in 0..MOST_TABLES {
            for (frame, slot) in self.slots() {
                if let Some(place) = slot.get().filter(|_| self.is_empty(frame)) {
                    self.tables.write(place, 0);
                    slot.set(None);
                }
            }
        }
    }
}
