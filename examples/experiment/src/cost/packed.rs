//! What packed heads cost, by arithmetic alone: their places are numbered as a heap is, and spans of both arrays are
//! counted.
//!
//! ```text
//!   frames of heads    pages that the first place and the last one, and those between, are in
//!   frames of stubs    1
//!   leaf tables        those of the heads; of the stubs, 1 for all that hold nothing else where tables are shared
//!   upper tables       those of either
//! ```

use super::Cost;
use crate::{Case, TableShape};
use core::ops::RangeInclusive;
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::model::MemoryModel;

/// Addresses, by their first and last bytes.
type Bytes = (u64, u64);

/// What `case`, whose heads are packed, costs where nothing else is online; `None` where the model has no place for them.
pub(crate) fn packed_cost(case: &Case, model: &MemoryModel, shape: &TableShape) -> Option<Cost> {
    let size = model.descriptor_bytes();
    let [first, last] = [case.range.start(), case.range.last()];
    let base = model.config().vmemmap_base.get();
    let stubs = (
        base + first.get() * size,
        base + last.get() * size + size - 1,
    );
    let place = |frame| Some(place_of_head(case, model, frame)?.get());
    let heads = (place(first)?, place(last)? + size - 1);
    let (leaf, touched) = (shape.leaf_span(), spans(stubs, shape.leaf_span()));
    let of_stubs = match case.shares_tables(model, shape) {
        false => count(&touched),
        // The first and the last may have stubs of nobody else.
        true => {
            let in_first = u64::from(stubs.0 & ((1 << leaf) - 1) != 0);
            let in_last = u64::from((stubs.1 + 1) & ((1 << leaf) - 1) != 0);
            1 + in_first + in_last
        }
    };
    let upper_tables = shape.upper_spans().map(|shift| {
        let (stubs, heads) = (spans(stubs, shift), spans(heads, shift));
        let common = (*stubs.start()).max(*heads.start())..=(*stubs.end()).min(*heads.end());
        count(&stubs) + count(&heads) - count(&common)
    });
    Some(Cost {
        descriptor_frames: count(&spans(heads, shape.granule.shift())) + 1,
        leaf_tables: of_stubs + count(&spans(heads, leaf)),
        upper_tables: upper_tables.sum(),
        ..Cost::default()
    })
}

/// Where the head of `frame`'s page is: the number of its place is that of a node of a binary heap.
pub(crate) fn place_of_head(case: &Case, model: &MemoryModel, frame: Pfn) -> Option<VirtAddr> {
    let room = model.all_frames().frames().next_power_of_two();
    let index = (room + frame.get()) / case.order.frames();
    let base = model.heads()?.start();
    base.checked_add(index * model.descriptor_bytes())
}

/// The spans of 2^`shift` bytes that addresses are in, by number.
fn spans((first, last): Bytes, shift: u32) -> RangeInclusive<u64> {
    first >> shift..=last >> shift
}

/// How many there are.
fn count(spans: &RangeInclusive<u64>) -> u64 {
    (spans.end() + 1).saturating_sub(*spans.start())
}
