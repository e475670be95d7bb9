//! Folding and unfolding memory that is online.

mod contents;
mod frames;
mod parts;
mod refusals;
mod shared_tables;

use mm_core::addr::PfnRange;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece};
use testkit::testbed::{SHARED_TAILS, Sizes, pagemap as compound};

/// Base pages, in one piece, so that huge leaves have a place on every granule.
fn base_pages<'p>(model: &MemoryModel, ranges: &'p [PfnRange], huge: bool) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::BASE_PAGES)
        .unwrap()
        .with_piece(Piece::Range)
        .with_huge_leaves(huge)
}

/// As much as `leaves` huge leaves of vmemmap describe. With 64K pages that is 512 GiB each.
fn memory(sizes: Sizes, leaves: u64) -> PfnRange {
    sizes.blocks(sizes.table(), 4, leaves)
}

/// Less than a huge leaf describes: 16 compound pages.
fn little_memory(sizes: Sizes) -> PfnRange {
    sizes.blocks(sizes.natural(), 16, 16)
}
