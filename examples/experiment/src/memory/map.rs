//! What memory there is.

use core::fmt::Write;
use mm_core::addr::{Granule, Order, Pfn, PfnRange};

/// How many ranges of one kind are kept; firmware reports fewer.
const RANGES: usize = 32;

/// A few ranges, by address, none touching another.
#[derive(Clone, Copy, Debug)]
pub struct RangeList {
    ranges: [PfnRange; RANGES],
    used: usize,
}

impl Default for RangeList {
    fn default() -> Self {
        Self {
            ranges: [PfnRange::single(Pfn::ZERO); RANGES],
            used: 0,
        }
    }
}

impl RangeList {
    /// How many ranges there is room for.
    pub const CAPACITY: usize = RANGES;

    /// Adds `range`, joined with those that it touches. False where there is no room for it, and
    /// nothing has changed.
    #[must_use = "the range may not have fitted"]
    pub fn add(&mut self, range: PfnRange) -> bool {
        let mut joined = range;
        let mut kept = Self::default();
        for &other in self.as_slice() {
            match join(joined, other) {
                Some(both) => joined = both,
                None => kept.push(other),
            }
        }
        if kept.used == RANGES {
            return false;
        }
        kept.push(joined);
        if let Some(used) = kept.ranges.get_mut(..kept.used) {
            used.sort_unstable_by_key(|range| range.start());
        }
        *self = kept;
        true
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[PfnRange] {
        self.ranges.get(..self.used).unwrap_or_default()
    }

    fn push(&mut self, range: PfnRange) {
        if let Some(slot) = self.ranges.get_mut(self.used) {
            *slot = range;
            self.used += 1;
        }
    }
}

/// One range for both, where they overlap or touch.
fn join(a: PfnRange, b: PfnRange) -> Option<PfnRange> {
    let (low, high) = if a.start() <= b.start() {
        (a, b)
    } else {
        (b, a)
    };
    if high.start().get() > low.last().get() + 1 {
        return None;
    }
    let last = low.last().max(high.last());
    PfnRange::new(low.start(), last.get() - low.start().get() + 1).ok()
}

/// RAM, and memory of devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryMap {
    /// RAM that the kernel may use.
    pub ram: RangeList,
    /// Memory that a device brings.
    pub device: RangeList,
}

impl MemoryMap {
    /// RAM in whole blocks of `subsection`: what the kernel has descriptors of. A hole within a
    /// block has some too.
    pub fn described(&self, subsection: Order) -> RangeList {
        let mut described = RangeList::default();
        for range in self.ram.as_slice() {
            let start = range.start().align_down(subsection);
            let last = range.last().get() | (subsection.frames() - 1);
            // Cannot fail to fit, since there are no more of them than before.
            let _ = PfnRange::new(start, last - start.get() + 1)
                .is_ok_and(|rounded| described.add(rounded));
        }
        described
    }

    /// Prints all of it, in frames of `granule`.
    pub fn print(&self, granule: Granule, out: &mut dyn Write) {
        for (name, list) in [("RAM", &self.ram), ("device memory", &self.device)] {
            for range in list.as_slice() {
                let start = range.start().base(granule);
                let kib = (range.frames() << granule.shift()) >> 10;
                // What cannot be printed is missed by whoever reads it.
                let _ = writeln!(out, "{name}: {kib} KiB at {start}");
            }
        }
    }

    /// The highest frame of RAM.
    pub fn last_ram_frame(&self) -> Option<Pfn> {
        self.ram.as_slice().last().map(|range| range.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    #[test]
    fn ranges_that_touch_are_one_and_all_are_in_order() {
        let mut list = RangeList::default();
        for range in [frames(100, 10), frames(0, 5), frames(50, 10), frames(5, 45)] {
            assert!(list.add(range));
        }
        assert_eq!(list.as_slice(), [frames(0, 60), frames(100, 10)]);
    }

    #[test]
    fn ram_is_described_in_whole_subsections() {
        let mut map = MemoryMap::default();
        for range in [frames(0, 0x9f), frames(0x100, 0x7fee0), frames(0x100100, 1)] {
            assert!(map.ram.add(range));
        }
        let described = map.described(Order::new(9).unwrap());
        assert_eq!(
            described.as_slice(),
            [frames(0, 0x80000), frames(0x100000, 512)]
        );
    }

    #[test]
    fn a_range_too_many_is_refused() {
        let mut list = RangeList::default();
        for index in 0..RANGES as u64 {
            assert!(list.add(frames(index * 10, 1)));
        }
        assert!(!list.add(frames(5, 1)));
        assert!(list.add(frames(1, 9)));
    }
}
