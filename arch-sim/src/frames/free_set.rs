//! Free frames of one node, as intervals.

use mm_core::addr::Order;
use std::collections::BTreeMap;

/// Free frames: intervals that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct FreeSet {
    /// Lengths by first frame.
    intervals: BTreeMap<u64, u64>,
}

impl FreeSet {
    /// Takes the lowest aligned block of `order`.
    pub(super) fn take(&mut self, order: Order) -> Option<u64> {
        let first = self.lowest(order)?;
        let (&start, &length) = self.intervals.range(..=first).next_back()?;
        self.intervals.remove(&start);
        let end = start + length;
        let after = first + order.frames();
        if start < first {
            self.intervals.insert(start, first - start);
        }
        if after < end {
            self.intervals.insert(after, end - after);
        }
        Some(first)
    }

    /// Takes up to `at_most` frames that follow each other from the lowest free frame on.
    pub(super) fn take_run(&mut self, at_most: u64) -> Option<(u64, u64)> {
        let (start, length) = self.intervals.pop_first()?;
        let taken = length.min(at_most);
        if taken < length {
            self.intervals.insert(start + taken, length - taken);
        }
        Some((start, taken))
    }

    /// Whether there is an aligned block of `order`.
    pub(super) fn has(&self, order: Order) -> bool {
        self.lowest(order).is_some()
    }

    /// Puts the `frames` frames from `start` on in, which are not in yet.
    pub(super) fn insert(&mut self, start: u64, frames: u64) {
        let end = start + frames;
        let after = self.intervals.remove(&end).unwrap_or(0);
        if let Some((before, length)) = self.intervals.range_mut(..start).next_back()
            && before + *length == start
        {
            *length += frames + after;
            return;
        }
        self.intervals.insert(start, frames + after);
    }

    /// The first frame of the lowest aligned block of `order`.
    fn lowest(&self, order: Order) -> Option<u64> {
        self.intervals.iter().find_map(|(&start, &length)| {
            let first = start.next_multiple_of(order.frames());
            (first + order.frames() <= start + length).then_some(first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(order: u8) -> Order {
        Order::new(order).unwrap()
    }

    #[test]
    fn freed_frames_join_both_neighbours() {
        let mut free = FreeSet::default();
        free.insert(10, 5);
        free.insert(20, 5);
        free.insert(15, 5);
        assert_eq!(free.intervals, BTreeMap::from([(10, 15)]));
        free.insert(5, 5);
        free.insert(30, 1);
        assert_eq!(free.intervals, BTreeMap::from([(5, 20), (30, 1)]));
    }

    #[test]
    fn blocks_are_the_lowest_that_are_aligned() {
        let mut free = FreeSet::default();
        free.insert(3, 20);
        assert_eq!(free.take(order(3)), Some(8));
        assert_eq!(free.take(order(0)), Some(3));
        assert_eq!(free.take(order(2)), Some(4));
        assert_eq!(free.intervals, BTreeMap::from([(16, 7)]));
        assert!(!free.has(order(3)) && free.has(order(2)));
    }

    #[test]
    fn a_run_ends_with_its_interval() {
        let mut free = FreeSet::default();
        free.insert(0, 3);
        free.insert(10, 10);
        assert_eq!(free.take_run(8), Some((0, 3)));
        assert_eq!(free.take_run(8), Some((10, 8)));
        assert_eq!(free.take_run(8), Some((18, 2)));
        assert_eq!(free.take_run(8), None);
    }
}
