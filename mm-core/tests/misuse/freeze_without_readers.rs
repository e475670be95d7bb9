//! Without readers nobody takes references, and a wait would wait for nobody.

use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::pagemap::DevPagemap;
use mm_core::paging::PageTable;
use mm_core::vmemmap::Vmemmap;

fn freeze<A: FrameAllocator, M: DirectMap>(
    vmemmap: &mut Vmemmap<Page<Mask>, A, M>,
    table: &impl PageTable,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) {
    let _ = unsafe { vmemmap.freeze(table, pagemap, frames, 1) };
}

fn main() {}
