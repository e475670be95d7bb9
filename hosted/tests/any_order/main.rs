//! Pieces in any order and grouping, regions side by side, and whoever else lives there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod alignment;
mod borders;
mod permutations;
mod strangers;

use mm_core::addr::{Order, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};

const SHARED_TAILS: [Tails; 2] = [Tails::PerCompound, Tails::PerOrder];

fn pagemap<'p>(
    model: &MemoryModel,
    ranges: &'p [PfnRange],
    order: Order,
    tails: Tails,
) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::compound(order))
        .unwrap()
        .with_tails(tails)
}
