//! How far an allocator counts.

use super::altmap::{altmap, with_altmap};
use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, ensure, equal, skip};
use mm_core::addr::{Block, Order, Pfn};
use mm_core::descriptor::Mask;
use mm_core::frame::{FrameAllocator, InspectFrames, Released};

/// As many references as a frame of tails may have: a device of a quarter TiB in 4 KiB pages.
const MANY: u64 = 1 << 20;

/// What is added at once to a count of one. Each makes a narrower counter wrap, or come to one
/// again.
const TOO_WIDE: [u64; 6] = [
    u8::MAX as u64,
    u16::MAX as u64,
    1 << 16,
    u32::MAX as u64,
    1 << 32,
    u64::MAX,
];

/// How many references there are of the frame `first`.
fn references<F: InspectFrames + ?Sized>(frames: &F, first: Pfn) -> u64 {
    frames.references(first).unwrap_or(0)
}

/// Counts up and down on `block`, which has one reference, in steps of `step`.
fn counts_exactly<F: FrameAllocator + InspectFrames + ?Sized>(
    frames: &F,
    block: Block,
    step: u64,
) -> Verdict {
    let first = block.first();
    let most = MANY.min(frames.most_references().saturating_sub(1));
    ensure(most > 0, "a frame can be shared at all")?;
    let mut added = 0;
    while added < most {
        let more = step.min(most - added);
        // SAFETY: 1: the block is the check's. 2: released below.
        let acquired = unsafe { frames.acquire(first, more) };
        ensure(acquired.is_ok(), "references up to the limit can be added")?;
        added += more;
        equal(1 + added, references(frames, first), "references")?;
    }
    while added > 0 {
        let fewer = step.min(added);
        // SAFETY: 1: the block is the check's. 2: acquired above, and used for nothing.
        let released = unsafe { frames.release(block, fewer) };
        added -= fewer;
        ensure(
            released == Released::Shared,
            "a block with references stays",
        )?;
        equal(1 + added, references(frames, first), "references")?;
    }
    Ok(())
}

/// Adds to the count of `block`, which is one, what makes a counter wrap that is too narrow.
fn never_wraps<F: FrameAllocator + InspectFrames + ?Sized>(frames: &F, block: Block) -> Verdict {
    let first = block.first();
    for more in TOO_WIDE {
        // SAFETY: 1: the block is the check's. 2: released below where it was not refused.
        let acquired = unsafe { frames.acquire(first, more) };
        let Some(sum) = more.checked_add(1) else {
            ensure(acquired.is_err(), "what cannot be counted is refused")?;
            equal(1, references(frames, first), "references")?;
            continue;
        };
        let expected = if acquired.is_ok() { sum } else { 1 };
        equal(expected, references(frames, first), "references")?;
        if acquired.is_ok() {
            // SAFETY: 1: the block is the check's. 2: acquired above, and used for nothing.
            let released = unsafe { frames.release(block, more) };
            ensure(
                released == Released::Shared,
                "a block with references stays",
            )?;
        }
        equal(1, references(frames, first), "references")?;
    }
    Ok(())
}

pub(super) fn a_million_references_are_counted_exactly<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    for step in [MANY, 4095] {
        let block = bench.take_frame()?;
        counts_exactly(bench.frames, block, step)?;
        bench.give_back(block)?;
    }
    Ok(())
}

pub(super) fn a_count_never_wraps<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let block = bench.take_frame()?;
    never_wraps(bench.frames, block)?;
    bench.give_back(block)
}

pub(super) fn an_altmap_counts_as_far_as_ram<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let unit = bench.model.subsection();
    let reserved = altmap.reserved().frames() / unit.frames();
    let ranges = [bench.blocks(unit, 0, reserved.max(1))?];
    let pagemap = with_altmap(bench, &ranges, Order::BASE)?;
    let region = bench.online(&pagemap)?;
    let Ok(block) = altmap.allocate(Order::BASE, bench.node) else {
        bench.offline(region);
        return skip("the altmap has no frame to spare");
    };
    let counted = counts_exactly(altmap, block, MANY).and_then(|()| never_wraps(altmap, block));
    // SAFETY: 1 and 2: allocated above, with the one reference that is left, and used for nothing.
    if let Released::Last(owned) = unsafe { altmap.release(block, 1) } {
        // SAFETY: 1: the altmap released it just now.
        unsafe { altmap.free(owned) };
    }
    bench.offline(region);
    counted
}

pub(super) fn tails_need_no_more_references_than_there_can_be<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let region = bench.online(&bench.pagemap(&ranges, order)?)?;
    let most = bench.frames.most_references();
    for page in 0..bench.pages(range) {
        let holder = bench.holder(bench.frame_of_page(range, page))?;
        let references = bench.references(holder).unwrap_or(0);
        ensure(
            references <= most,
            "no frame has more references than it can",
        )?;
    }
    bench.described(range, order)?;
    bench.offline(region);
    Ok(())
}
