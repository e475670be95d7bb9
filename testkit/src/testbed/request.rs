//! What most tests ask for.

use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};

/// The ways to share tails.
pub const SHARED_TAILS: [Tails; 2] = [Tails::PerCompound, Tails::PerOrder];

/// `ranges`, used in pages of `order`, with `tails`.
pub fn pagemap<'p>(
    model: &MemoryModel,
    ranges: &'p [PfnRange],
    order: Order,
    tails: Tails,
) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::compound(order))
        .unwrap()
        .with_tails(tails)
}
