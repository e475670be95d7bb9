//! An allocator's counts are no other's.

use mm_core::addr::PfnRange;
use mm_core::frame::{Counted, InspectFrames, PlainAllocator, WordCounts};
use std::sync::atomic::AtomicU32;

fn count<A: PlainAllocator>(ram: &A, frames: PfnRange, words: &mut [AtomicU32]) {
    let one = Counted::new(ram, WordCounts::new(frames, words).unwrap());
    let other = Counted::new(ram, WordCounts::new(frames, words).unwrap());
    let _ = (one.references(frames.start()), other.references(frames.start()));
}

fn main() {
    let _ = count::<&dyn PlainAllocator>;
}
