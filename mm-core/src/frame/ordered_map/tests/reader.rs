//! Reading what is in frames, byte by byte.

use super::pool::Pool;
use crate::addr::Pfn;
extern crate std;
use std::vec::Vec;

/// Reads a map's frames as numbers in memory, without the map's own code.
pub(super) struct Reader<'p> {
    pub(super) pool: &'p Pool,
    pub(super) value_bytes: usize,
    pub(super) keys: Vec<u64>,
    pub(super) frames: Vec<u64>,
}

impl Reader<'_> {
    /// What is below `frame`, where all keys are at least `lowest` and below `end`.
    pub(super) fn node(&mut self, frame: Pfn, level: u32, lowest: u64, end: Option<u64>) -> u64 {
        self.frames.push(frame.get());
        let row = match level {
            0 => 8 + self.value_bytes,
            _ => 16,
        };
        let capacity = (self.pool.granule.bytes() as usize - 8) / row;
        let len = self.pool.word(frame, 0);
        assert!((1..=capacity as u64).contains(&len), "{frame} has {len}");
        let at = |number: u64| 8 + number as usize * row;
        let mut keys: Vec<_> = (0..len).map(|n| self.pool.word(frame, at(n))).collect();
        if level == 0 {
            assert!(keys[0] >= lowest && end.is_none_or(|end| keys[len as usize - 1] < end));
            self.keys.extend(&keys);
            return len;
        }
        assert!(
            len > 1 || end.is_some() || lowest > 0,
            "{frame} is not needed"
        );
        keys[0] = lowest;
        assert!(keys.is_sorted_by(|one, next| one < next));
        assert!(end.is_none_or(|end| keys[len as usize - 1] < end));
        let below: Vec<_> = (0..len)
            .map(|n| {
                let child = Pfn::new(self.pool.word(frame, at(n) + 8)).unwrap();
                let next = keys.get(n as usize + 1).copied().or(end);
                self.node(child, level - 1, keys[n as usize], next)
            })
            .collect();
        // Of the children, whose rows are of another size if they are buckets.
        let half = match level {
            1 => {
                let row = 8 + self.value_bytes;
                (self.pool.granule.bytes() as usize - 8) / row / 2
            }
            _ => capacity / 2,
        };
        assert!(below.windows(2).all(|two| two[0] + two[1] > half as u64));
        len
    }
}
