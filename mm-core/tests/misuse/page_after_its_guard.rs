//! What was found under a guard is there as long as the guard is.

use mm_core::addr::Pfn;
use mm_core::descriptor::{Mask, Page};
use mm_core::readers::{Kernel, Reader};

fn flags_after_the_guard<K: Kernel>(reader: Reader<'_, Page<Mask>, K>, frame: Pfn) {
    let reading = reader.enter();
    let page = reading.page_of(frame).unwrap();
    drop(reading);
    page.head().flags();
}

fn main() {}
