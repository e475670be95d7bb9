//! Whoever has given its reference back has no say in what becomes of the page.

use mm_core::addr::Pfn;
use mm_core::descriptor::{Mask, Page};
use mm_core::readers::{Kernel, PageReference, Put};

fn first_after_put<K: Kernel>(reference: PageReference<'_, Page<Mask>, K>) -> (Put, Pfn) {
    let put = reference.put();
    (put, reference.first())
}

fn main() {}
