//! The page table by itself.

use crate::bench::Bench;
use crate::harness::{Harness, Powers};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal_at, fail};
use mm_core::addr::{Block, Order, VirtAddr};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{Flush, FlushScope, Leaf, MapError, PageTable, Role};

/// A frame, and an address of the vmemmap to map it at.
fn frame_and_place<H: Harness>(bench: &Bench<'_, H>) -> Result<(Block, VirtAddr), Stop> {
    let device = bench.blocks(bench.model.subsection(), 0, 1)?;
    let at = bench.address(device.start())?;
    match bench.frames.allocate(Order::BASE, bench.node) {
        Ok(block) => Ok((block, at)),
        Err(_) => fail("there is a frame"),
    }
}

fn give_back<H: Harness>(bench: &Bench<'_, H>, block: Block) -> Verdict {
    // SAFETY: 1 and 2: each check gives back what it allocated, once nothing maps it.
    match unsafe { bench.frames.release(block, 1) } {
        Released::Last(owned) => bench.frames.free(owned),
        Released::Shared => return fail("nobody else has a reference"),
    }
    Ok(())
}

/// Takes the leaf at `at` out again, as a whole range, so that its tables go too.
fn unmap<H: Harness>(bench: &mut Bench<'_, H>, at: VirtAddr) -> Result<Option<Block>, Stop> {
    let page = bench.model.granule().bytes();
    let Ok(range) = mm_core::addr::VirtRange::new(at, page) else {
        return fail("a page lies in the address space");
    };
    let mut found = None;
    bench.powers.speculate(bench.table, range);
    // SAFETY: 1: nobody uses the address. 2: one page, which was mapped by `map_leaf`.
    unsafe {
        bench.table.unmap([range].into_iter(), &mut |run| {
            found = Some(run.leaf.block);
        });
    }
    Ok(found)
}

pub(super) fn a_leaf_in_use_is_not_overwritten<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let (block, at) = frame_and_place(bench)?;
    let Ok(other) = bench.frames.allocate(Order::BASE, bench.node) else {
        return fail("there is a second frame");
    };
    let leaf = Leaf::single(block.first(), Role::Descriptors);
    let rival = Leaf::single(other.first(), Role::Tail);
    // SAFETY: 1: the frames were allocated for this. 2: nothing else uses the vmemmap.
    let first = unsafe { bench.table.map_leaf(at, leaf, bench.node) };
    // SAFETY: as above; it has to be refused.
    let second = unsafe { bench.table.map_leaf(at, rival, bench.node) };
    ensure_at(first.is_ok(), "a free page can be mapped", at)?;
    ensure_at(
        second == Err(MapError::InUse { at }),
        "a page in use is refused",
        at,
    )?;
    let found = bench.table.lookup(at).map(|mapping| mapping.leaf);
    ensure_at(found == Some(leaf), "the first leaf stays as it was", at)?;
    let page = bench.model.granule().bytes();
    for neighbour in [
        at.checked_add(page),
        at.get().checked_sub(page).map(VirtAddr::new),
    ] {
        let at = neighbour.unwrap_or(at);
        ensure_at(
            bench.table.lookup(at).is_none(),
            "its neighbours stay free",
            at,
        )?;
    }
    let found = unmap(bench, at)?;
    ensure_at(found == Some(block), "the first leaf comes back", at)?;
    give_back(bench, block)?;
    give_back(bench, other)
}

pub(super) fn a_cleared_leaf_hands_its_reference_over<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (block, at) = frame_and_place(bench)?;
    let Ok(anchor) = bench.frames.allocate(Order::BASE, bench.node) else {
        return fail("there is a second frame");
    };
    let page = bench.model.granule().bytes();
    let Some(next) = at.checked_add(page) else {
        return fail("a subsection has several pages");
    };
    for (at, block, role) in [(at, block, Role::Tail), (next, anchor, Role::Descriptors)] {
        let leaf = Leaf::single(block.first(), role);
        // SAFETY: 1: the frame was allocated for this. 2: nothing else uses the vmemmap.
        let mapped = unsafe { bench.table.map_leaf(at, leaf, bench.node) };
        ensure_at(mapped.is_ok(), "a free page can be mapped", at)?;
    }
    if let Ok(both) = mm_core::addr::VirtRange::new(at, 2 * page) {
        bench.powers.speculate(bench.table, both);
    }
    let mut flush = Flush::nothing();
    // SAFETY: 1: nobody uses the address. 2: flushed below, before the frame is given back.
    let cleared = unsafe { bench.table.clear_leaf(at, &mut flush) };
    ensure(
        flush.scope() != FlushScope::Nothing,
        "a cleared leaf has to be flushed",
    )?;
    bench.table.flush(flush);
    let leaf = cleared.map(|mapping| (mapping.at, mapping.leaf.block, mapping.leaf.role));
    ensure_at(leaf == Some((at, block, Role::Tail)), "what was mapped", at)?;
    ensure_at(bench.table.lookup(at).is_none(), "nothing is mapped", at)?;
    give_back(bench, block)?;
    let found = unmap(bench, next)?.map_or(u64::MAX, |block| block.first().get());
    equal_at(anchor.first().get(), found, "the neighbour stayed", next)?;
    give_back(bench, anchor)
}

pub(super) fn a_leaf_that_does_not_fit_is_refused<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let Some(order) = bench.table.huge_leaf() else {
        return crate::outcome::skip("the page table has no huge leaves");
    };
    let Ok(block) = bench.frames.allocate(order, bench.node) else {
        return crate::outcome::skip("the allocator has no block for a huge leaf");
    };
    let device = bench.blocks(bench.model.section(), 0, 1)?;
    let at = bench.address(device.start())?;
    let page = bench.model.granule().bytes();
    let Some(misaligned) = at.checked_add(page) else {
        return fail("a section has several pages");
    };
    let leaf = Leaf {
        block,
        role: Role::Descriptors,
        writable: true,
    };
    // SAFETY: 1: the block was allocated for this. 2: nothing else uses the vmemmap; it has to be
    // refused.
    let refused = unsafe { bench.table.map_leaf(misaligned, leaf, bench.node) };
    ensure_at(
        matches!(refused, Err(MapError::Unsupported { .. })),
        "a misaligned huge leaf is refused",
        misaligned,
    )?;
    ensure_at(
        bench.table.lookup(misaligned).is_none(),
        "nothing is mapped",
        misaligned,
    )?;
    give_back(bench, block)
}
