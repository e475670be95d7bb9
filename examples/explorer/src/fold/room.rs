//! How much an altmap has to reserve so that a region can be folded and unfolded again.
//!
//! Base pages need a frame for each vmemmap page. Unfolding needs more for a time: a huge leaf is a
//! block, all of whose frames are taken before those go back that held the heads. A fold leaves the
//! whole block free only where no head was in it.
//!
//! ```text
//!   a huge leaf's block      | H T . . . . . . | H T . . . . . . |   2M: heads are in every block
//!                            | H T . . . . . . | . . . . . . . . |   1G: in one of eight
//! ```

use crate::failure::Failure;
use crate::refusal;
use mm_core::addr::{Granule, Order, PfnRange};
use mm_core::pagemap::{DevPagemap, PagemapError};

/// How many blocks of each range single frames may spoil: at both of its ends, when it comes online
/// and when it is unfolded.
const SCATTERED_BLOCKS: u64 = 4;

/// The fewest subsections at the start of the first range that suffice for all steps, where huge
/// leaves of the order `leaf` map the base pages of `base`, the same memory as `compound`.
///
/// Where there are several ranges, or one starts or ends within what a huge leaf describes, a few
/// blocks more: single frames may lie where a block could.
///
/// # Errors
///
/// The library's, as a [`Failure`], where the first range is too small.
pub(super) fn needed(
    base: &DevPagemap<'_>,
    compound: &DevPagemap<'_>,
    leaf: Option<Order>,
) -> Result<PfnRange, Failure> {
    let granule = base.model().granule();
    let refused = |error| refusal::of_pagemap(error, granule);
    let base_alone = base.altmap_needed().map_err(refused)?;
    let subsection = base.model().subsection().frames();
    let Some(leaf) = leaf.map(|leaf| HugeLeaf::of(compound, leaf)) else {
        return Ok(base_alone);
    };
    let pages: u64 = base.ranges().iter().map(|range| range.frames()).sum();
    let pages = pages / base.model().descriptors_per_page();
    let block = leaf.block;
    // What is reserved is not folded, so the more it is, the fewer leaves have to come back. Counts
    // spoil whole blocks.
    let suffices = |subsections: u64| {
        let reserved = subsections * subsection;
        let more = leaf.frames_to_come_back(compound, reserved);
        let counts = counts_of(reserved, granule).next_multiple_of(block);
        more == 0 || pages + counts + more <= reserved
    };
    let mut few = base_alone.frames() / subsection;
    let most = leaf.frames_to_come_back(compound, 0);
    let most = most + counts_of(most, granule) + 2 * block;
    let mut enough = few + most.div_ceil(subsection);
    while few < enough {
        let half = few + (enough - few) / 2;
        match suffices(half) {
            true => enough = half,
            false => few = half + 1,
        }
    }
    let reserved = enough * subsection;
    let range = compound.ranges().first().copied();
    let range = range.ok_or_else(|| refused(PagemapError::NoRanges))?;
    match range.split_at(reserved) {
        (Some(first), Some(_)) => Ok(first),
        _ => Err(refused(PagemapError::NoCompoundPage { reserved, range })),
    }
}

/// How many frames hold the counts of so many, which an altmap reserves.
fn counts_of(reserved: u64, granule: Granule) -> u64 {
    // 64 bytes, and 4 for each.
    (64 + 4 * reserved).div_ceil(granule.bytes())
}

/// A huge leaf of vmemmap.
#[derive(Clone, Copy, Debug)]
struct HugeLeaf {
    /// How many frames its block has.
    block: u64,
    /// How many frames it describes.
    describes: u64,
}

impl HugeLeaf {
    fn of(pagemap: &DevPagemap<'_>, leaf: Order) -> Self {
        let block = leaf.frames();
        Self {
            block,
            describes: block * pagemap.model().descriptors_per_page(),
        }
    }

    /// How many frames are needed besides those of base pages to unfold into huge leaves, where
    /// `reserved` frames of the first range are not folded. Ranges are unfolded one by one.
    fn frames_to_come_back(&self, compound: &DevPagemap<'_>, reserved: u64) -> u64 {
        let align = compound.geometry().order().frames();
        let ranges = compound.ranges().iter().enumerate();
        let blocks = ranges.map(|(index, range)| {
            let start = range.start().get();
            let left_out = match index {
                0 => reserved.next_multiple_of(align).min(range.frames()),
                _ => 0,
            };
            let first = (start + left_out).div_ceil(self.describes);
            let end = (start + range.frames()) / self.describes;
            let per_head = (align / self.describes).max(1);
            end.saturating_sub(first).div_ceil(per_head) * self.block
        });
        let whole = compound.ranges().iter().all(|range| {
            let ends = [range.start().get(), range.frames()];
            ends.iter().all(|end| end.is_multiple_of(self.describes))
        });
        let scattered = match compound.ranges() {
            [_] if whole => 0,
            ranges => ranges.len() as u64 * SCATTERED_BLOCKS * self.block,
        };
        match blocks.max() {
            Some(frames @ 1..) => frames + scattered,
            _ => 0,
        }
    }
}
