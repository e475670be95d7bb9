//! What a CPU has cached of one size, by address.
//!
//! A CPU is made to cache all that is mapped again and again, and what it caches has neighbours. So
//! there is a row for each few neighbours, and a search is among rows.

use mm_core::addr::{VirtAddr, VirtRange};
use std::collections::BTreeMap;
use std::ops::Range;

/// How many neighbours are in a row.
const ROW: u64 = 16;

type Row<T> = [Option<T>; ROW as usize];

/// Things that span 2^`size` bytes each, at multiples of that: one at a place at most.
#[derive(Debug)]
pub(super) struct Places<T> {
    size: u32,
    rows: BTreeMap<u64, Box<Row<T>>>,
}

impl<T: Copy> Places<T> {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            rows: BTreeMap::new(),
        }
    }

    fn place(&self, at: VirtAddr) -> u64 {
        at.get().checked_shr(self.size).unwrap_or(0)
    }

    /// What is at the place that `at` lies in.
    pub(super) fn at(&self, at: VirtAddr) -> Option<&T> {
        let place = self.place(at);
        let row = self.rows.get(&(place / ROW))?;
        row.get((place % ROW) as usize)?.as_ref()
    }

    /// Puts `new` at the place that `at` lies in. Says whether there was nothing.
    pub(super) fn add(&mut self, at: VirtAddr, new: T) -> bool {
        let place = self.place(at);
        let row = self.rows.entry(place / ROW);
        let row = row.or_insert_with(|| Box::new([None; ROW as usize]));
        match row.get_mut((place % ROW) as usize) {
            Some(free @ None) => {
                *free = Some(new);
                true
            }
            _ => false,
        }
    }

    /// What is at places that overlap `range`, in the order of addresses.
    pub(super) fn overlapping(&self, range: VirtRange) -> impl Iterator<Item = &T> {
        let (first, last) = (self.place(range.start()), self.place(range.last()));
        let rows = self.rows.range(first / ROW..=last / ROW);
        rows.flat_map(move |(number, row)| {
            let part = part_of_row(*number, first, last);
            row.get(part).unwrap_or_default().iter().flatten()
        })
    }

    /// Takes away what is at places that overlap `range`, and shows it.
    pub(super) fn drop_range(&mut self, range: VirtRange, mut dropped: impl FnMut(T)) {
        let (first, last) = (self.place(range.start()), self.place(range.last()));
        let mut empty = Vec::new();
        for (number, row) in self.rows.range_mut(first / ROW..=last / ROW) {
            let part = row.get_mut(part_of_row(*number, first, last));
            let part = part.unwrap_or_default().iter_mut();
            part.filter_map(Option::take).for_each(&mut dropped);
            if row.iter().all(Option::is_none) {
                empty.push(*number);
            }
        }
        for number in empty {
            self.rows.remove(&number);
        }
    }

    /// Keeps what `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.rows.retain(|_, row| {
            let full = row.iter_mut();
            full.filter(|place| place.as_ref().is_some_and(|entry| !keep(entry)))
                .for_each(|place| *place = None);
            row.iter().any(Option::is_some)
        });
    }

    pub(super) fn len(&self) -> usize {
        self.rows
            .values()
            .flat_map(|row| row.iter().flatten())
            .count()
    }
}

/// Which part of the row with this number is between the places `first` and `last`.
fn part_of_row(number: u64, first: u64, last: u64) -> Range<usize> {
    let start = number * ROW;
    let from = first.saturating_sub(start).min(ROW);
    let to = (last - start).min(ROW - 1) + 1;
    from as usize..to as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(page: u64) -> VirtAddr {
        VirtAddr::new(page << 12)
    }

    fn pages(first: u64, last: u64) -> VirtRange {
        VirtRange::between(at(first), VirtAddr::new((last << 12) + 0xfff)).unwrap()
    }

    #[test]
    fn places_are_found_in_the_order_of_addresses_across_rows() {
        let mut places = Places::new(12);
        for page in [40, 15, 16, 3, 31] {
            assert!(places.add(at(page), page));
        }
        assert!(!places.add(at(15), 0), "what is there stays");
        let found = |first, last| {
            let found = places.overlapping(pages(first, last));
            found.copied().collect::<Vec<u64>>()
        };
        assert_eq!(found(0, 63), [3, 15, 16, 31, 40]);
        assert_eq!(found(15, 16), [15, 16]);
        assert_eq!(found(4, 14), []);
        assert_eq!(found(31, 31), [31]);
        assert_eq!(
            [15, 17].map(|page| places.at(at(page)).copied()),
            [Some(15), None]
        );
        assert_eq!(places.len(), 5);
    }

    #[test]
    fn what_is_dropped_is_shown_and_the_rest_stays() {
        let mut places = Places::new(12);
        for page in 10..40 {
            places.add(at(page), page);
        }
        let mut dropped = Vec::new();
        places.drop_range(pages(12, 33), |page| dropped.push(page));
        assert!(dropped.into_iter().eq(12..=33));
        places.retain(|page| page % 2 == 0);
        let left = places.overlapping(pages(0, 63));
        assert_eq!(left.copied().collect::<Vec<u64>>(), [10, 34, 36, 38]);
    }

    #[test]
    fn the_last_place_there_is_can_be_used() {
        let mut places = Places::new(12);
        assert!(places.add(VirtAddr::new(u64::MAX), 1));
        let last = VirtRange::between(VirtAddr::new(u64::MAX), VirtAddr::new(u64::MAX)).unwrap();
        assert_eq!(places.overlapping(last).count(), 1);
        places.drop_range(last, |_| {});
        assert_eq!(places.len(), 0);
    }
}
