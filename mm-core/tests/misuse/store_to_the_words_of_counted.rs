//! An allocator's counts change by what it is asked for, and by nothing else.

use mm_core::addr::PfnRange;
use mm_core::frame::{Counted, InspectFrames, PlainAllocator, WordCounts};
use std::sync::atomic::{AtomicU32, Ordering};

fn store<A: PlainAllocator>(ram: &A, frames: PfnRange, words: &mut [AtomicU32]) {
    let counted = Counted::new(ram, WordCounts::new(frames, words).unwrap());
    words[3].store(7, Ordering::Relaxed);
    let _ = counted.references(frames.start());
}

fn main() {
    let _ = store::<&dyn PlainAllocator>;
}
