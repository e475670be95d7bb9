//! The page table by itself, with more than a leaf: what its contract says of leaves and tables that
//! reach further than what is asked for, which a vmemmap takes care not to ask.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure_at, equal, equal_at, fail, skip};
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::{FrameAllocator, Released};
use mm_core::paging::{Flush, FlushScope, Leaf, PageTable, Role, Run, RunSource};

/// Runs for a page table, one after the other, whose references are taken already.
struct Runs<'f, A> {
    frames: &'f A,
    runs: [Option<Run>; 2],
    share: bool,
}

/// There are no more.
struct NoMore;

impl<A: FrameAllocator> RunSource for Runs<'_, A> {
    type Error = NoMore;

    fn next_run(&mut self, _at: VirtAddr, _pages: u64, _largest: Order) -> Result<Run, NoMore> {
        let next = self.runs.iter_mut().find_map(Option::take);
        next.ok_or(NoMore)
    }

    fn share_tables(&self) -> bool {
        self.share
    }

    fn return_unused(&mut self, run: Run) {
        release(self.frames, run);
    }
}

/// Gives back the references of a run of one frame, whose entries are gone, or were never made.
fn release<A: FrameAllocator>(frames: &A, run: Run) {
    // SAFETY: 1 and 2: acquired for the run, with a reference for each leaf.
    if let Released::Last(owned) = unsafe { frames.release(run.leaf.block, run.count) } {
        // SAFETY: 1: it released the block just now.
        unsafe { frames.free(owned) };
    }
}

/// The vmemmap of two leaf tables.
fn two_tables<H: Harness>(bench: &Bench<'_, H>) -> Result<(VirtRange, u64), Stop> {
    if !bench.table.can_share_tables() {
        return skip("the page table cannot link a table from several places");
    }
    let leaves = bench.model.granule().entries_per_table() as u64;
    let frames = 2 * leaves * bench.model.descriptors_per_page();
    let order = u8::try_from(frames.trailing_zeros());
    let Some(order) = order.ok().and_then(Order::new) else {
        return skip("a leaf table describes more memory than there can be");
    };
    match bench.model.descriptors(bench.blocks(order, 0, 1)?) {
        Some(range) => Ok((range, leaves)),
        None => fail("the vmemmap has room for the device's memory"),
    }
}

/// A run of `count` leaves of a frame that is new.
fn new_run<H: Harness>(bench: &Bench<'_, H>, count: u64) -> Result<Run, Stop> {
    let frame = bench.take_frame()?.first();
    // SAFETY: 1: allocated just now. 2: the run's, and it came with one.
    if count > 1 && unsafe { bench.frames.acquire(frame, count - 1) }.is_err() {
        return fail("references can be added");
    }
    Ok(Run::repeat(frame, count, Role::Tail))
}

/// Maps `runs` to `range`.
fn map<H: Harness>(
    bench: &mut Bench<'_, H>,
    range: VirtRange,
    runs: [Option<Run>; 2],
    share: bool,
) -> Verdict {
    let frames = bench.frames;
    let mut source = Runs {
        frames,
        runs,
        share,
    };
    // SAFETY: 1: the frames are the check's, with a reference for each leaf. 2: nobody uses the
    // vmemmap.
    let mapped = unsafe {
        bench
            .table
            .map_runs(range, bench.node, &mut source, &bench.records)
    };
    mapped.or_else(|_| fail("free pages can be mapped"))
}

/// Unmaps `range`, and says how many leaves that were.
fn unmap<H: Harness>(bench: &mut Bench<'_, H>, range: VirtRange) -> u64 {
    let frames = bench.frames;
    let mut leaves = 0;
    bench.controls.speculate(bench.table, range);
    // SAFETY: 1: nobody uses the addresses. 2: whole pages, mapped by `map`.
    unsafe {
        bench.table.unmap(
            [range].into_iter(),
            &mut |run: Run| {
                leaves += run.count;
                release(frames, run);
            },
            &bench.records,
        );
    }
    leaves
}

/// Checks that the page number `page` of `range` is mapped to `frame`, by all who can tell.
fn maps<H: Harness>(
    bench: &Bench<'_, H>,
    range: VirtRange,
    page: u64,
    frame: Option<Pfn>,
) -> Verdict {
    let granule = bench.model.granule();
    let at = range.start().checked_add(page << granule.shift());
    let at = at.unwrap_or(range.last());
    let expected = frame.map_or(u64::MAX, Pfn::get);
    let found = bench.table.lookup(at).mapping();
    let found = found.and_then(|found| found.frame_of(at, granule));
    equal_at(expected, found.map_or(u64::MAX, Pfn::get), "the frame", at)?;
    if let Some(seen) = bench.controls.translate(bench.table, at) {
        let seen = seen.map_or(u64::MAX, |seen| seen.frame.get());
        equal_at(expected, seen, "the frame, by another reader", at)?;
    }
    Ok(())
}

pub(super) fn only_tables_that_are_alike_become_one<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (range, leaves) = two_tables(bench)?;
    // The last page of the second table is another frame's.
    let (most, last) = (new_run(bench, 2 * leaves - 1)?, new_run(bench, 1)?);
    map(bench, range, [Some(most), Some(last)], false)?;
    let frames = bench.frames;
    // SAFETY: 1: nobody uses the addresses. 2: mapped just now.
    let _ = unsafe {
        bench
            .table
            .share_tables(range, &mut |run| release(frames, run), &bench.records)
    };
    for page in [0, leaves - 1, leaves, 2 * leaves - 2] {
        maps(bench, range, page, Some(most.leaf.block.first()))?;
    }
    maps(bench, range, 2 * leaves - 1, Some(last.leaf.block.first()))?;
    equal(2 * leaves, unmap(bench, range), "leaves that come back")
}

pub(super) fn a_shared_table_that_is_unmapped_in_part_stays<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (range, leaves) = two_tables(bench)?;
    let run = new_run(bench, 2 * leaves)?;
    map(bench, range, [Some(run), None], true)?;
    let page = bench.model.granule().bytes();
    let Ok(part) = VirtRange::new(range.start(), page) else {
        return fail("a page of the vmemmap");
    };
    equal(0, unmap(bench, part), "leaves that come back")?;
    for page in [0, 1, leaves - 1, leaves, 2 * leaves - 1] {
        maps(bench, range, page, Some(run.leaf.block.first()))?;
    }
    // Two links, and the leaves of one table.
    equal(leaves, unmap(bench, range), "leaves that come back")?;
    maps(bench, range, 0, None)
}

pub(super) fn a_huge_leaf_that_is_unmapped_in_part_is_forgotten_whole<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (order, describes) = bench.huge_leaf()?;
    let memory = bench.blocks(describes, 0, 1)?;
    let Some(range) = bench.model.descriptors(memory) else {
        return fail("the vmemmap has room for the device's memory");
    };
    let Ok(block) = bench.frames.allocate(order, bench.node) else {
        return skip("the allocator has no block for a huge leaf");
    };
    let leaf = Leaf {
        block,
        role: Role::Descriptors,
        writable: true,
    };
    let at = range.start();
    // SAFETY: 1: the block was allocated for this. 2: nobody uses the vmemmap.
    let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
    bench.expect_at(mapped, "a free place can be mapped", at)?;
    let page = bench.model.granule().bytes();
    let Ok(part) = VirtRange::new(at, page) else {
        return fail("a page of the vmemmap");
    };
    // CPUs may know the leaf by any of its addresses.
    bench.controls.speculate(bench.table, range);
    equal(1, unmap(bench, part), "leaves that come back")?;
    for page in [0, 1, order.frames() - 1] {
        maps(bench, range, page, None)?;
    }
    Ok(())
}

pub(super) fn clearing_a_page_of_a_huge_leaf_clears_all_of_it<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (order, describes) = bench.huge_leaf()?;
    let memory = bench.blocks(describes, 0, 1)?;
    let Some(range) = bench.model.descriptors(memory) else {
        return fail("the vmemmap has room for the device's memory");
    };
    let (at, page) = (range.start(), bench.model.granule().bytes());
    for offset in [0, 1, order.frames() / 2, order.frames() - 1] {
        let Ok(block) = bench.frames.allocate(order, bench.node) else {
            return skip("the allocator has no block for a huge leaf");
        };
        let leaf = Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        };
        // SAFETY: 1: the block was allocated for this. 2: nobody uses the vmemmap.
        let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
        bench.expect_at(mapped, "a free place can be mapped", at)?;
        bench.controls.speculate(bench.table, range);
        let inside = at.checked_add(offset * page).unwrap_or(at);
        let mut flush = Flush::nothing();
        // SAFETY: 1: nobody uses the addresses. 2: flushed below, before the block is given back.
        let cleared = unsafe { bench.table.clear_leaf(inside, &mut flush) };
        let covers = |at: &VirtAddr| match flush.scope() {
            FlushScope::Nothing => false,
            FlushScope::Everything => true,
            FlushScope::Leaves(all) | FlushScope::Ranges(all) => {
                all.iter().any(|range| range.contains(*at))
            }
        };
        let covered = [range.start(), range.last()].iter().all(covers);
        bench.table.flush(flush, &bench.records);
        let cleared = cleared.map(|mapping| (mapping.at, mapping.leaf));
        ensure_at(
            cleared == Some((at, leaf)),
            "the whole leaf is cleared",
            inside,
        )?;
        ensure_at(covered, "all of the leaf has to be flushed", inside)?;
        for page in [0, 1, offset, order.frames() - 1] {
            maps(bench, range, page, None)?;
        }
        bench.give_back(block)?;
        let frame = new_run(bench, 1)?;
        let leaf = frame.leaf;
        // SAFETY: 1: the frame was allocated for this. 2: nobody uses the vmemmap.
        let mapped = unsafe { bench.map_leaf(at, leaf, bench.node) };
        bench.expect_at(mapped, "the place is free again", at)?;
        equal(1, unmap(bench, range), "leaves that come back")?;
    }
    Ok(())
}
