//! Tail frames, with references for entries that are still to be made.

use super::target::ORDERS;
use crate::addr::Pfn;

/// A tail frame, with references for entries that are still to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldTail {
    pub(super) frame: Pfn,
    pub(super) references: u64,
    /// The tail frame of this order that was in use before; the same one if there was none. Entries that map it
    /// stay.
    pub(super) before: Pfn,
}

impl HeldTail {
    pub(super) const fn new(frame: Pfn, references: u64) -> Self {
        Self {
            frame,
            references,
            before: frame,
        }
    }

    /// Takes references. Says whether there were enough.
    pub(super) fn draw(&mut self, references: u64) -> bool {
        match self.references.checked_sub(references) {
            Some(left) => {
                self.references = left;
                true
            }
            None => false,
        }
    }
}

/// The tail frames of orders whose pages share one, by the [slot](super::target::Target::slot) of the order.
///
/// Only while a change of orders is under way. It lies in the [`Vmemmap`](crate::vmemmap::Vmemmap), since it is
/// too large for the stack.
#[derive(Debug)]
pub(in crate::vmemmap) struct HeldTails {
    all: [HeldTail; ORDERS],
    /// The packed heads that the pages had before.
    pub(super) before: OldPlaces,
    /// The slots that have one, by their bits.
    used: u32,
}

impl HeldTails {
    pub(in crate::vmemmap) const fn new() -> Self {
        Self {
            all: [HeldTail::new(Pfn::MAX, 0); ORDERS],
            before: OldPlaces::new(),
            used: 0,
        }
    }

    /// The packed heads that the pages had before.
    pub(in crate::vmemmap) fn old_places(&mut self) -> &mut OldPlaces {
        &mut self.before
    }

    /// Forgets all tail frames.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        for held in &mut self.all {
            held.references = 0;
        }
    }

    /// Counts `entries` more that need a reference of the tail frame in `slot`, before there is one.
    #[inline]
    pub(super) fn need(&mut self, slot: usize, entries: u64) {
        if let Some(place) = self.all.get_mut(slot) {
            place.references += entries;
        }
    }

    /// How many references are needed in `slot`.
    pub(super) fn needed(&self, slot: usize) -> u64 {
        self.all.get(slot).map_or(0, |held| held.references)
    }

    pub(super) fn insert(&mut self, slot: usize, held: HeldTail) {
        if let Some(place) = self.all.get_mut(slot) {
            *place = held;
            self.used |= 1 << slot;
        }
    }

    fn has(&self, slot: usize) -> bool {
        slot < ORDERS && self.used >> slot & 1 != 0
    }

    pub(super) fn get(&self, slot: usize) -> Option<&HeldTail> {
        self.all.get(slot).filter(|_| self.has(slot))
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut HeldTail> {
        let has = self.has(slot);
        self.all.get_mut(slot).filter(|_| has)
    }

    /// The one whose frame is `frame`.
    pub(super) fn of_frame(&mut self, frame: Pfn) -> Option<&mut HeldTail> {
        let used = self.used;
        let mut all = self.all.iter_mut().enumerate();
        let found = all.find(|(slot, held)| used >> slot & 1 != 0 && held.frame == frame);
        found.map(|(_, held)| held)
    }

    /// Takes one out.
    pub(super) fn pop(&mut self) -> Option<HeldTail> {
        let slot = self.used.checked_ilog2()?;
        self.used &= !(1 << slot);
        self.all.get(slot as usize).copied()
    }
}

/// How many pages of places [`OldPlaces`] knows.
const OLD_PLACES: usize = 24;

/// The pages of places with packed heads of a unit, before that changes: what its pages keep of these is copied
/// while its entries are exchanged, when nobody can look up where they are.
#[derive(Debug)]
pub(in crate::vmemmap) struct OldPlaces {
    /// The number of each page, counted from the start of all addresses, and its frame.
    pages: [(u64, Pfn); OLD_PLACES],
    used: usize,
}

impl OldPlaces {
    const fn new() -> Self {
        Self {
            pages: [(0, Pfn::MAX); OLD_PLACES],
            used: 0,
        }
    }

    pub(in crate::vmemmap) fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds the page with the number `page`. Says whether there was room.
    pub(in crate::vmemmap) fn add(&mut self, page: u64, holder: Pfn) -> bool {
        let Some(place) = self.pages.get_mut(self.used) else {
            return false;
        };
        *place = (page, holder);
        self.used += 1;
        true
    }

    /// The frame of the page with the number `page`.
    pub(super) fn find(&self, page: u64) -> Option<Pfn> {
        let mut known = self.pages.iter().take(self.used);
        known.find(|(at, _)| *at == page).map(|(_, holder)| *holder)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }
}
