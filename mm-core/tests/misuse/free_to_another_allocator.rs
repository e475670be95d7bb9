//! A block does not know which allocator released it.

use mm_core::frame::{FrameAllocator, OwnedBlock};

fn free<A: FrameAllocator>(other: &A, block: OwnedBlock) {
    other.free(block);
}

fn main() {
    let _ = free::<&dyn FrameAllocator>;
}
