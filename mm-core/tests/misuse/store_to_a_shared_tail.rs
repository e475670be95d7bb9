//! One safe store to a tail that stands for many would be to all of them, by an alias of memory that
//! is mapped read-only.

use mm_core::addr::Pfn;
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::paging::PageTable;
use mm_core::vmemmap::Vmemmap;
use std::sync::atomic::Ordering;

fn store<A: FrameAllocator, M: DirectMap>(
    vmemmap: &Vmemmap<Page<Mask>, A, M>,
    table: &impl PageTable,
    tail: Pfn,
) {
    let descriptor = vmemmap.descriptor(table, tail).unwrap();
    descriptor.flags().store(1, Ordering::Relaxed);
}

fn main() {}
