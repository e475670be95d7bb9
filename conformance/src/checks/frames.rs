//! The allocator by itself: the rule of reference counts.

use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, ensure, equal, fail, skip};
use mm_core::addr::{Block, Order};
use mm_core::frame::{FrameAllocator, InspectFrames, Released};

/// The order of the blocks that are tried.
const SOME: Order = match Order::new(2) {
    Some(order) => order,
    None => Order::BASE,
};

pub(super) fn a_block_is_handed_out_with_one_reference_and_freed_with_the_last<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    for order in [Order::BASE, SOME] {
        let frames = bench.frames;
        let before = bench.outstanding();
        let block = bench.expect(frames.allocate(order, bench.node), "there is a block")?;
        equal(order.get().into(), block.order().get().into(), "order")?;
        equal(
            1,
            frames.references(block.first()).unwrap_or(0),
            "references",
        )?;
        if let Some(outstanding) = frames.outstanding() {
            equal(before + order.frames(), outstanding, "frames that are out")?;
        }
        // SAFETY: 1: allocated above. 2: two are given back in one, and the first in the other
        // `release`.
        let (acquired, shared, last) = unsafe {
            (
                frames.acquire(block.first(), 2),
                frames.release(block, 2),
                frames.release(block, 1),
            )
        };
        bench.expect(acquired, "references can be added")?;
        ensure(shared == Released::Shared, "a block with references stays")?;
        let Released::Last(owned) = last else {
            return fail("the last reference is told from others");
        };
        bench.is_free(block.first(), "references")?;
        // SAFETY: 1: it released the block just now.
        unsafe { frames.free(owned) };
    }
    Ok(())
}

pub(super) fn a_freed_frame_has_no_reference_to_acquire<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let frames = bench.frames;
    if !frames.tells_free_frames() {
        return skip("the allocator does not tell free frames from others");
    }
    let block = bench.take_frame()?;
    // SAFETY: 1: allocated above. 2: its one reference.
    let Released::Last(owned) = (unsafe { frames.release(block, 1) }) else {
        return fail("the last reference is told from others");
    };
    // SAFETY: 1: allocated above. 2: it has to be refused.
    let between = unsafe { frames.acquire(block.first(), 1) };
    // SAFETY: 1: it released the block above.
    unsafe { frames.free(owned) };
    // SAFETY: as above.
    let after = unsafe { frames.acquire(block.first(), 1) };
    ensure(
        between.is_err(),
        "a dead frame is refused before it is freed",
    )?;
    ensure(after.is_err(), "a dead frame is refused after it is freed")
}

pub(super) fn a_split_block_is_frames_with_one_reference_each<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let frames = bench.frames;
    if !frames.can_split() {
        return skip("the allocator cannot split a block");
    }
    let block = bench.expect(frames.allocate(SOME, bench.node), "there is a block")?;
    // SAFETY: 1 and 2: allocated above, with one reference.
    unsafe { frames.split(block) };
    for index in 0..SOME.frames() {
        let frame = block.first().saturating_add(index);
        equal(1, frames.references(frame).unwrap_or(0), "references")?;
    }
    // SAFETY: 1 and 2: the first frame's one reference.
    match unsafe { frames.release(Block::single(block.first()), 1) } {
        // SAFETY: 1: it released the frame just now.
        Released::Last(owned) => unsafe { frames.free(owned) },
        Released::Shared => return fail("a frame of a split block goes by itself"),
    }
    if let (_, Some(rest)) = block.frames().split_at(1) {
        // SAFETY: 1 and 2: one reference of each of the other frames.
        unsafe { frames.release_run(rest) };
    }
    Ok(())
}
