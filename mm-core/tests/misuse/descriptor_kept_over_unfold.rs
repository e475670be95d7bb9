//! Unfolding copies pages of descriptors. A store meanwhile would be lost, and to a page that went
//! offline it would be to somebody else's frame. So safe code has no reference at that time.

use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::vmemmap::{Region, Vmemmap};
use std::sync::atomic::Ordering;

type Array<A, M> = Vmemmap<Page<Mask>, A, M>;

fn over_unfold<A: FrameAllocator, M: DirectMap>(
    vmemmap: &mut Array<A, M>,
    table: &mut impl PageTable,
    pagemap: &DevPagemap<'_>,
    range: PfnRange,
) {
    let descriptor = vmemmap.descriptor(table, range.start()).unwrap();
    let page = descriptor.own().unwrap();
    vmemmap.unfold(table, pagemap, range).unwrap();
    page.flags().store(1, Ordering::Relaxed);
}

fn over_offline<A: FrameAllocator, M: DirectMap>(
    vmemmap: &mut Array<A, M>,
    table: &mut impl PageTable,
    region: Region<'_>,
    range: PfnRange,
) {
    let descriptor = vmemmap.descriptor(table, range.start()).unwrap();
    let page = descriptor.own().unwrap();
    vmemmap.offline(table, region).unwrap();
    page.flags().store(1, Ordering::Relaxed);
}

fn main() {}
