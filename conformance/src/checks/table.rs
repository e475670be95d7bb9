//! The page table by itself.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, equal_at, fail, skip};
use core::ops::ControlFlow;
use mm_core::addr::{Block, Pfn, VirtAddr, VirtRange};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{Flush, FlushScope, Leaf, MapError, PageTable, Role, Run, Visit};

/// A frame, and an address of the vmemmap to map it at.
fn frame_and_place<H: Harness>(bench: &Bench<'_, H>) -> Result<(Block, VirtAddr), Stop> {
    let device = bench.blocks(bench.model.subsection(), 0, 1)?;
    let at = bench.address(device.start())?;
    Ok((bench.take_frame()?, at))
}

/// Takes the leaf at `at` out again, as a whole range, so that its tables go too.
fn unmap<H: Harness>(bench: &mut Bench<'_, H>, at: VirtAddr) -> Result<Option<Block>, Stop> {
    let page = bench.model.granule().bytes();
    let Ok(range) = VirtRange::new(at, page) else {
        return fail("a page lies in the address space");
    };
    let mut found = None;
    bench.controls.speculate(bench.table, range);
    // SAFETY: 1: nobody uses the address. 2: one page, which was mapped by `map_leaf`.
    unsafe {
        bench.table.unmap(
            [range].into_iter(),
            &mut |run: Run| {
                found = Some(run.leaf.block);
            },
            &bench.records,
        );
    }
    Ok(found)
}

pub(super) fn a_leaf_in_use_is_not_overwritten<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let (block, at) = frame_and_place(bench)?;
    let other = bench.take_frame()?;
    let leaf = Leaf::single(block.first(), Role::Descriptors);
    let rival = Leaf::single(other.first(), Role::Tail);
    // SAFETY: 1: the frames were allocated for this. 2: nothing else uses the vmemmap.
    let first = unsafe { bench.map_leaf(at, leaf, bench.node) };
    // SAFETY: as above; it has to be refused.
    let second = unsafe { bench.map_leaf(at, rival, bench.node) };
    bench.expect_at(first, "a free page can be mapped", at)?;
    ensure_at(
        second == Err(MapError::InUse { at }),
        "a page in use is refused",
        at,
    )?;
    let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
    ensure_at(found == Some(leaf), "the first leaf stays as it was", at)?;
    let page = bench.model.granule().bytes();
    for neighbour in [
        at.checked_add(page),
        at.get().checked_sub(page).map(VirtAddr::new),
    ] {
        let at = neighbour.unwrap_or(at);
        ensure_at(
            bench.table.lookup(at).mapping().is_none(),
            "its neighbours stay free",
            at,
        )?;
    }
    let found = unmap(bench, at)?;
    ensure_at(found == Some(block), "the first leaf comes back", at)?;
    bench.give_back(block)?;
    bench.give_back(other)
}

pub(super) fn a_cleared_leaf_hands_its_reference_over<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (block, at) = frame_and_place(bench)?;
    let anchor = bench.take_frame()?;
    let page = bench.model.granule().bytes();
    let Some(next) = at.checked_add(page) else {
        return fail("a subsection has several pages");
    };
    for (at, block, role) in [(at, block, Role::Tail), (next, anchor, Role::Descriptors)] {
        let leaf = Leaf::single(block.first(), role);
        // SAFETY: 1: the frame was allocated for this. 2: nothing else uses the vmemmap.
        let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
        bench.expect_at(mapped, "a free page can be mapped", at)?;
    }
    if let Ok(both) = VirtRange::new(at, 2 * page) {
        bench.controls.speculate(bench.table, both);
    }
    let mut flush = Flush::nothing();
    // SAFETY: 1: nobody uses the address. 2: flushed below, before the frame is given back.
    let cleared = unsafe { bench.table.clear_leaf(at, &mut flush) };
    ensure(
        flush.scope() != FlushScope::Nothing,
        "a cleared leaf has to be flushed",
    )?;
    bench.table.flush(flush, &bench.records);
    let leaf = cleared.map(|mapping| (mapping.at, mapping.leaf.block, mapping.leaf.role));
    ensure_at(leaf == Some((at, block, Role::Tail)), "what was mapped", at)?;
    ensure_at(
        bench.table.lookup(at).mapping().is_none(),
        "nothing is mapped",
        at,
    )?;
    bench.give_back(block)?;
    let found = unmap(bench, next)?.map_or(u64::MAX, |block| block.first().get());
    equal_at(anchor.first().get(), found, "the neighbour stayed", next)?;
    bench.give_back(anchor)
}

pub(super) fn a_leaf_that_does_not_fit_is_refused<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let Some(order) = bench.table.huge_leaf() else {
        return skip("the page table has no huge leaves");
    };
    let Ok(block) = bench.frames.allocate(order, bench.node) else {
        return skip("the allocator has no block for a huge leaf");
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
    let refused = unsafe { bench.map_leaf(misaligned, leaf, bench.node) };
    ensure_at(
        matches!(refused, Err(MapError::Unsupported { .. })),
        "a misaligned huge leaf is refused",
        misaligned,
    )?;
    ensure_at(
        bench.table.lookup(misaligned).mapping().is_none(),
        "nothing is mapped",
        misaligned,
    )?;
    bench.give_back(block)
}

/// The first leaf table of the library's that maps descriptors of `range`.
fn leaf_table<H: Harness>(bench: &Bench<'_, H>, range: VirtRange) -> Option<Pfn> {
    let mut found = None;
    let _ = bench.table.visit(range, &mut |visit| match visit {
        Visit::Table {
            frame,
            leaf_table: true,
            owned: true,
            ..
        } => {
            found = Some(frame);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found
}

pub(super) fn a_table_is_unlinked_before_it_is_freed<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.small();
    let all = bench.blocks(order, 0, 3)?;
    let ranges = [all];
    let Some(descriptors) = bench.model.descriptors(all) else {
        return fail("the vmemmap has room for the device's memory");
    };
    let pagemap = bench.pagemap(&ranges, order)?;
    // Whole, and piece by piece: what the CPUs have cached of the rest leads to the table too.
    for pieces in [1, 3] {
        let region = bench.online(&pagemap)?;
        let Some(table) = leaf_table(bench, descriptors) else {
            bench.offline(region);
            return skip("the page table has no tables of the library's");
        };
        for index in 1..pieces {
            bench.speculate(all);
            bench.depopulate(&pagemap, bench.blocks(order, index, 1)?)?;
            equal(
                1,
                bench.references(table).unwrap_or(0),
                "links to the table",
            )?;
        }
        bench.offline(region);
        bench.is_free(table, "links to the table")?;
        // Whoever has the frame now writes what he likes.
        let reused = bench.reuse_frame(table)?;
        let absent = bench.absent(all);
        if let Some(reused) = reused {
            bench.give_back(reused)?;
        }
        absent?;
    }
    Ok(())
}

pub(super) fn the_last_leaf_that_is_cleared_takes_its_tables_along<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let before = bench.outstanding();
    for _ in 0..2 {
        let (block, at) = frame_and_place(bench)?;
        let leaf = Leaf::single(block.first(), Role::Descriptors);
        // SAFETY: 1: the frame was allocated for this. 2: nothing else uses the vmemmap.
        let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
        bench.expect_at(mapped, "a free page can be mapped", at)?;
        if let Ok(page) = VirtRange::new(at, bench.model.granule().bytes()) {
            bench.controls.speculate(bench.table, page);
        }
        let mut flush = Flush::nothing();
        // SAFETY: 1: nobody uses the address. 2: flushed below, before the frame is given back.
        let cleared = unsafe { bench.table.clear_leaf(at, &mut flush) };
        bench.table.flush(flush, &bench.records);
        ensure_at(cleared.is_some(), "a leaf is cleared", at)?;
        bench.give_back(block)?;
        if !H::Table::KEEPS_TABLES {
            equal(before, bench.outstanding(), "tables go after the flush")?;
        }
    }
    Ok(())
}
