//! Where the simulated machine's RAM lies: where no requested range does.

use mm_core::addr::{Granule, Pfn, PfnRange};

/// The last frame that physical addresses of `address_bits` bits reach.
pub const fn last_frame(address_bits: u32, granule: Granule) -> Pfn {
    match Pfn::new((1 << (address_bits - granule.shift())) - 1) {
        Some(frame) => frame,
        None => Pfn::MAX,
    }
}

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
    fn the_last_frame_depends_on_the_page_size() {
        let last = |granule| last_frame(48, granule).get();
        assert_eq!(last(Granule::Size4K), 0xf_ffff_ffff);
        assert_eq!(last(Granule::Size16K), 0x3_ffff_ffff);
        assert_eq!(last(Granule::Size64K), 0xffff_ffff);
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
