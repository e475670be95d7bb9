//! Nobody reaches the counts of an altmap, nor what a vmemmap remembers of it.

use mm_core::frame::{Altmap, DeviceAltmap, DirectMap};
use std::sync::atomic::Ordering;

fn reach<M: DirectMap + Sync>(altmap: &DeviceAltmap<M>) {
    altmap.counts.store().count(altmap.reserved().start());
    altmap.record().out.store(0, Ordering::Relaxed);
}

fn main() {
    let _ = reach::<&(dyn DirectMap + Sync)>;
}
