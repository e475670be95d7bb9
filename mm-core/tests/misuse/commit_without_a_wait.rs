//! A reader that found the memory before it was frozen may still look at it: only what has waited can be
//! committed.

use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::paging::PageTable;
use mm_core::readers::{Kernel, Readers};
use mm_core::vmemmap::{Frozen, Vmemmap};

fn commit<'r, A: FrameAllocator, M: DirectMap, K: Kernel>(
    vmemmap: &mut Vmemmap<Page<Mask>, A, M, Readers<'r, K>>,
    table: &mut impl PageTable,
    frozen: Frozen<'r, '_, Page<Mask>, K>,
) {
    let _ = vmemmap.commit(table, frozen);
}

fn main() {}
