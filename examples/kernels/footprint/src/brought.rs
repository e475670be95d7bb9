//! What a kernel brings: an allocator that counts, and a way of panicking.

use core::panic::PanicInfo;
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::frame::{AcquireError, FrameAllocator, OutOfFrames, OwnedBlock, Released};

/// The allocator.
pub struct Frames(());

unsafe extern "Rust" {
    fn kernel_allocate(order: Order, node: NodeId) -> Result<Block, OutOfFrames>;
    fn kernel_acquire(first: Pfn, references: u64) -> Result<(), AcquireError>;
    fn kernel_release(block: Block, references: u64) -> Released;
    fn kernel_free(block: OwnedBlock);
    fn kernel_keep(block: OwnedBlock) -> Block;
    fn kernel_split(block: Block);
    fn kernel_node_of(frame: Pfn) -> NodeId;
    fn kernel_panic() -> !;
}

// SAFETY: nothing here is ever run.
unsafe impl FrameAllocator for Frames {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        // SAFETY: as above.
        unsafe { kernel_allocate(order, node) }
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: as above.
        unsafe { kernel_acquire(first, references) }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: as above.
        unsafe { kernel_release(block, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: as above.
        unsafe { kernel_free(block) }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: as above.
        unsafe { kernel_keep(block) }
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: as above.
        unsafe { kernel_split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        // SAFETY: as above.
        unsafe { kernel_node_of(frame) }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: as above.
    unsafe { kernel_panic() }
}
