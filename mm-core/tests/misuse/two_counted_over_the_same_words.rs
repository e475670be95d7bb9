//! An allocator's counts are no other's.

use mm_core::addr::PfnRange;
use mm_core::frame::{Counted, InspectFrames, PlainAllocator};
use std::sync::atomic::AtomicU64;

fn count<A: PlainAllocator>(ram: &A, frames: PfnRange, words: &mut [AtomicU64]) {
    let one = Counted::new(ram, frames, words).unwrap();
    let other = Counted::new(ram, frames, words).unwrap();
    let _ = (one.references(frames.start()), other.references(frames.start()));
}

fn main() {
    let _ = count::<&dyn PlainAllocator>;
}
