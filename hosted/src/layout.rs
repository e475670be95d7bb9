//! Where the simulated machine's RAM lies: where no requested range does.

use mm_core::addr::{Pfn, PfnRange};

/// The first run of `frames` frames that overlaps none of `taken`, from `lowest` on and at most up
/// to `last`. Starts at a multiple of `align` frames, a power of two.
pub fn find_gap(
    taken: &[PfnRange],
    lowest: Pfn,
    last: Pfn,
    frames: u64,
    align: u64,
) -> Option<PfnRange> {
    let mut start = lowest.get().checked_next_multiple_of(align)?;
    loop {
        let gap = PfnRange::new(Pfn::new(start)?, frames).ok()?;
        if gap.last() > last {
            return None;
        }
        match taken.iter().find(|range| range.overlaps(gap)) {
            None => return Some(gap),
            Some(range) => {
                start = (range.last().get() + 1).checked_next_multiple_of(align)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    #[test]
    fn a_gap_overlaps_nothing_that_is_taken() {
        let last = Pfn::new(99).unwrap();
        let find = |taken: &[PfnRange], size| find_gap(taken, Pfn::ZERO, last, size, 4);
        assert_eq!(find(&[], 10), Some(frames(0, 10)));
        assert_eq!(
            find(&[frames(40, 1), frames(2, 3)], 10),
            Some(frames(8, 10))
        );
        assert_eq!(
            find(&[frames(40, 1), frames(2, 3)], 40),
            Some(frames(44, 40))
        );
        assert_eq!(find(&[frames(40, 1)], 60), None);
        assert_eq!(find(&[], 101), None);
    }
}
