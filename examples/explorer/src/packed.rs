//! How many frames hold packed heads, by arithmetic: the addresses of the first head and of the last one.

use mm_core::addr::PfnRange;
use mm_core::pagemap::{DevPagemap, Heads};
use std::ops::RangeInclusive;

/// Pages of packed heads, by number.
pub type Pages = RangeInclusive<u64>;

/// The pages that the heads of `pagemap` are in, in the order of addresses; none where heads are in place.
/// Neighbouring ranges may have heads in one page, which is among those of the first of them only.
pub fn pages(pagemap: &DevPagemap<'_>) -> Vec<Pages> {
    let mut all: Vec<Pages> = pagemap
        .ranges()
        .iter()
        .filter_map(|range| pages_of(pagemap, *range))
        .collect();
    all.sort_by_key(|pages| *pages.start());
    let mut next = 0;
    for pages in &mut all {
        *pages = next.max(*pages.start())..=*pages.end();
        next = pages.end() + 1;
    }
    all
}

/// How many there are of them.
pub fn frames(pages: Pages) -> u64 {
    (pages.end() + 1).saturating_sub(*pages.start())
}

/// How many frames hold the heads of `pagemap`.
pub fn head_frames(pagemap: &DevPagemap<'_>) -> u64 {
    pages(pagemap).into_iter().map(frames).sum()
}

/// How many frames of an altmap hold heads of `pagemap`, if it has one: those of pages that have no others.
pub fn altmap_frames(pagemap: &DevPagemap<'_>) -> u64 {
    let granule = pagemap.model().granule();
    let whole = |range: &PfnRange| {
        let [first, last] = ends_of(pagemap, *range)?;
        let end = last + pagemap.model().descriptor_bytes();
        let whole = (end >> granule.shift()).checked_sub(first.div_ceil(granule.bytes()));
        pagemap.altmap().and(whole)
    };
    pagemap.ranges().iter().filter_map(whole).sum()
}

/// The pages that the heads of those compound pages are in that begin in `range`.
fn pages_of(pagemap: &DevPagemap<'_>, range: PfnRange) -> Option<Pages> {
    let shift = pagemap.model().granule().shift();
    let [first, last] = ends_of(pagemap, range)?;
    Some(first >> shift..=last >> shift)
}

/// The addresses of the first and the last of these heads.
fn ends_of(pagemap: &DevPagemap<'_>, range: PfnRange) -> Option<[u64; 2]> {
    let order = pagemap.geometry().order();
    if pagemap.heads().0 != Heads::Packed {
        return None;
    }
    // Base pages lie at the start of one range.
    let in_base_pages = pagemap
        .base_pages()
        .and_then(|base| base.intersection(range));
    let compound = match in_base_pages {
        Some(base) => range.split_at(base.frames()).1?,
        None => range,
    };
    let model = pagemap.model();
    let head = |frame| Some(model.packed_head(frame, order)?.get());
    Some([head(compound.start())?, head(compound.last())?])
}
