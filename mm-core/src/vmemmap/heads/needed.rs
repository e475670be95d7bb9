//! How much the heads of pages that change their order can take from the reserve.

use crate::addr::{PfnRange, VirtRange};
use crate::model::MemoryModel;
use crate::vmemmap::reorder::Target;
use core::iter;

/// How many frames, and how many tables, the packed heads take that pages of `whole` are to have, if nothing is
/// mapped where they are to be. A page table has `levels` levels of tables.
pub(in crate::vmemmap) fn heads_needed(
    model: &MemoryModel,
    target: &Target<'_>,
    whole: PfnRange,
    levels: u32,
) -> (u64, u64) {
    let granule = model.granule();
    let bits = granule.entries_per_table().trailing_zeros();
    let places = || {
        let mut rest = Some(whole);
        let packed = iter::from_fn(move || target.next_packed(&mut rest));
        packed.filter_map(|(frames, order)| model.packed_heads(frames, order))
    };
    // How many blocks of `1 << shift` bytes have some of the places: ranges of them, whose ends may be in blocks
    // of others.
    let blocks = |shift: u32| {
        let all = places().enumerate().map(|(index, range)| {
            let (mut first, mut last) = ends(range, shift);
            for (start, end) in places().take(index).map(|range| ends(range, shift)) {
                if (start..=end).contains(&first) {
                    first = end + 1;
                }
                if first <= last && (start..=end).contains(&last) {
                    // `first` is not in it, so it is not 0.
                    last = start.saturating_sub(1);
                }
            }
            (last + 1).saturating_sub(first)
        });
        all.sum::<u64>()
    };
    // The root is there.
    let below_root = 1..levels;
    let tables = below_root.map(|level| {
        let shift = granule.shift() + level * bits;
        if shift < u64::BITS { blocks(shift) } else { 0 }
    });
    (blocks(granule.shift()), tables.sum())
}

/// The first and the last block of `1 << shift` bytes that some of `range` is in.
fn ends(range: VirtRange, shift: u32) -> (u64, u64) {
    (range.start().get() >> shift, range.last().get() >> shift)
}
