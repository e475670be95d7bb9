//! Huge leaves of vmemmap: one's own and others'.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, equal_at, fail, skip};
use mm_core::addr::{Block, Order, Pfn, PfnRange};
use mm_core::frame::FrameAllocator;
use mm_core::pagemap::Piece;
use mm_core::paging::{InUse, Leaf, PageTable, Role};
use mm_core::vmemmap::{Note, OfflineError};

/// The order of the leaf that maps the descriptor of `frame`.
fn leaf_order<H: Harness>(bench: &Bench<'_, H>, frame: Pfn) -> Result<Order, Stop> {
    match bench.table.lookup(bench.address(frame)?).mapping() {
        Some(mapping) => Ok(mapping.leaf.block.order()),
        None => fail("descriptors are mapped"),
    }
}

pub(super) fn a_subsection_is_never_mapped_by_a_huge_leaf<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (_, describes) = bench.huge_leaf()?;
    let unit = bench.model.subsection();
    let whole = bench.blocks(describes, 0, 1)?;
    let (all_but_one, last) = whole.split_at(whole.frames() - unit.frames());
    let (first, _) = whole.split_at(unit.frames());
    for part in [first, last, all_but_one].into_iter().flatten() {
        let ranges = [part];
        let pagemap = bench
            .pagemap(&ranges, Order::BASE)?
            .with_piece(Piece::Range);
        let region = bench.online(&pagemap)?;
        ensure(
            region.notes().is_empty(),
            "where no huge leaf has room, none is missed",
        )?;
        bench.costs(bench.pages(part), bench.pages(part))?;
        for page in 0..bench.pages(whole) {
            let frame = bench.frame_of_page(whole, page);
            let valid = bench.vmemmap.is_valid(&*bench.table, frame);
            let at = bench.address(frame)?;
            ensure_at(valid == part.contains(frame), "only the part is valid", at)?;
            if let Some(seen) = bench.controls.translate(bench.table, at) {
                ensure_at(seen.is_some() == valid, "only the part is mapped", at)?;
            }
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_huge_leaf_is_freed_as_a_block<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let (leaf, describes) = bench.huge_leaf()?;
    let range = bench.blocks(describes, 0, 1)?;
    let ranges = [range];
    let pagemap = bench
        .pagemap(&ranges, Order::BASE)?
        .with_piece(Piece::Range);
    for _ in 0..3 {
        let region = bench.online(&pagemap)?;
        if leaf_order(bench, range.start())? != leaf {
            bench.offline(region);
            return skip("the allocator has no block for a huge leaf");
        }
        bench.costs(leaf.frames(), leaf.frames())?;
        let holder = bench.holder(range.start())?;
        equal(
            1,
            bench.references(holder).unwrap_or(0),
            "one reference for the block",
        )?;
        bench.described(range, Order::BASE)?;
        bench.offline(region);
        bench.is_free(holder, "the block is free")?;
    }
    Ok(())
}

pub(super) fn without_blocks_huge_leaves_become_base_pages_and_say_so<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (leaf, describes) = bench.huge_leaf()?;
    let range = bench.blocks(describes, 0, 1)?;
    if !bench.controls.fail_blocks(true) {
        return skip("the harness cannot fragment memory");
    }
    let ranges = [range];
    let pagemap = bench
        .pagemap(&ranges, Order::BASE)?
        .with_piece(Piece::Range);
    let region = bench.online(&pagemap)?;
    let noted = Note::HugeLeavesUnavailable { leaves: 1 };
    ensure(
        region.notes().iter().any(|note| note == noted),
        "the fallback is reported",
    )?;
    bench.costs(leaf.frames(), leaf.frames())?;
    bench.described(range, Order::BASE)?;
    bench.offline(region);
    Ok(())
}

/// The memory before the second large block, and the first two sections of that block.
fn neighbours<H: Harness>(
    bench: &Bench<'_, H>,
    describes: Order,
) -> Result<(Order, PfnRange, PfnRange), Stop> {
    let order = bench.large()?.max(describes);
    let compound = bench.blocks(order, 1, 1)?;
    let below = compound.start().get().checked_sub(describes.frames());
    let before = below.and_then(Pfn::new);
    match before.and_then(|start| PfnRange::new(start, describes.frames()).ok()) {
        Some(before) if before.start().is_aligned(describes) => Ok((order, before, compound)),
        _ => skip("a huge leaf describes more than any compound page"),
    }
}

pub(super) fn the_predecessors_huge_leaf_is_never_read_as_a_table<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (_, describes) = bench.huge_leaf()?;
    let (order, before, compound) = neighbours(bench, describes)?;
    let ranges = [before];
    let pagemap = bench
        .pagemap(&ranges, Order::BASE)?
        .with_piece(Piece::Range);
    let predecessor = bench.online(&pagemap)?;
    let ranges = [compound];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    bench.described(compound, order)?;
    bench.described(before, Order::BASE)?;
    bench.costs(
        bench.pages(before) + 2,
        bench.pages(before) + bench.pages(compound),
    )?;
    bench.offline(predecessor);
    bench.described(compound, order)?;
    bench.offline(region);
    Ok(())
}

pub(super) fn a_foreign_huge_leaf_next_door_is_never_read_as_a_table<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (leaf, describes) = bench.huge_leaf()?;
    let (order, before, compound) = neighbours(bench, describes)?;
    // Somebody's memory, of which only the number matters: nobody may touch it.
    let theirs = before.start().align_down(leaf);
    let Some(block) = Block::new(theirs, leaf) else {
        return fail("a block at an aligned frame");
    };
    let foreign = Leaf {
        block,
        role: Role::Foreign,
        writable: true,
    };
    let at = bench.address(before.start())?;
    if !bench.controls.map_foreign(bench.table, at, foreign) {
        return skip("the harness cannot map anything foreign");
    }
    let seen = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
    ensure_at(seen == Some(foreign), "a foreign leaf is seen as such", at)?;
    ensure_at(
        !bench.vmemmap.is_valid(&*bench.table, before.start()),
        "a foreign leaf makes nothing valid",
        at,
    )?;
    let ranges = [compound];
    // Pieces that are neither the first nor contiguous look for tails on both sides.
    let pagemap = bench.pagemap(&ranges, order)?.with_piece(Piece::Subsection);
    let region = bench.online(&pagemap)?;
    bench.described(compound, order)?;
    bench.costs(2, bench.pages(compound))?;
    bench.offline(region);
    let seen = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
    ensure_at(
        seen == Some(foreign),
        "the foreign leaf stays as it was",
        at,
    )?;
    bench.controls.unmap_foreign(bench.table, at);
    Ok(())
}

pub(super) fn part_of_a_huge_leaf_goes_offline_and_leaves_the_rest<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (leaf, describes) = bench.huge_leaf()?;
    let range = bench.blocks(describes, 0, 1)?;
    let ranges = [range];
    let pagemap = bench
        .pagemap(&ranges, Order::BASE)?
        .with_piece(Piece::Range);
    let region = bench.online(&pagemap)?;
    if leaf_order(bench, range.start())? != leaf {
        bench.offline(region);
        return skip("the allocator has no block for a huge leaf");
    }
    let at = bench.address(range.start())?;
    let unit = bench.model.subsection().frames();
    let (first, rest) = range.split_at(unit);
    let (Some(first), Some(rest)) = (first, rest) else {
        return fail("a huge leaf describes several subsections");
    };
    if !bench.table.resizes_leaves() {
        for piece in [first, rest] {
            let refused = bench.try_depopulate(&pagemap, piece);
            ensure_at(
                refused == Err(OfflineError::SplitsHugeLeaf { at }),
                "part of a leaf is refused",
                at,
            )?;
            bench.costs(leaf.frames(), leaf.frames())?;
        }
        bench.offline(region);
        return Ok(());
    }
    let holder = bench.holder(rest.start())?;
    bench.depopulate(&pagemap, first)?;
    let left = leaf.frames() - bench.pages(first);
    bench.costs(left, left)?;
    bench.absent(first)?;
    bench.described(rest, Order::BASE)?;
    let same = bench.holder(rest.start())?;
    equal_at(holder.get(), same.get(), "the rest stays where it is", at)?;
    bench.populate(&pagemap, first)?;
    bench.costs(leaf.frames(), leaf.frames())?;
    bench.described(range, Order::BASE)?;
    bench.offline(region);
    bench.absent(range)
}

pub(super) fn a_region_that_ends_within_a_huge_leaf_leaves_the_rest_of_it<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (leaf, describes) = bench.huge_leaf()?;
    let all = [bench.blocks(describes, 0, 1)?];
    let [range] = all;
    let (Some(first), Some(rest)) = range.split_at(bench.model.subsection().frames()) else {
        return fail("a huge leaf describes several subsections");
    };
    let own = [first];
    let pagemap = bench.pagemap(&own, Order::BASE)?;
    let whole = bench.pagemap(&all, Order::BASE)?.with_piece(Piece::Range);
    for has_memory in [true, false] {
        if !has_memory && bench.needs_faults().is_err() {
            continue;
        }
        // What is a gap of the region comes online with what is next to it.
        let region = bench.online(&pagemap)?;
        bench.depopulate(&pagemap, first)?;
        bench.populate(&whole, range)?;
        if leaf_order(bench, range.start())? != leaf {
            bench.depopulate(&whole, range)?;
            bench.offline(region);
            return skip("the allocator has no block for a huge leaf");
        }
        bench.speculate(range);
        let allocations = (!has_memory).then_some(0);
        bench.controls.fail_after(allocations);
        let kept = bench.take_offline(region)?.kept;
        bench.controls.fail_after(None);
        let at = bench.address(first.start())?;
        let is_possible = match (bench.table.resizes_leaves(), has_memory) {
            (false, _) => kept == first.frames(),
            (_, true) => kept == 0,
            // A page table without tables needs no frame for one.
            (_, false) => kept == 0 || kept == first.frames(),
        };
        ensure_at(
            is_possible,
            "what cannot be split stays, and that is said",
            at,
        )?;
        bench.described(rest, Order::BASE)?;
        let left = if kept == 0 { rest } else { range };
        bench.costs(bench.pages(left), bench.pages(left))?;
        bench.described(left, Order::BASE)?;
        bench.depopulate(&whole, left)?;
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn blocks_that_cannot_be_split_are_not_asked_for<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let Some(leaf) = bench.table.huge_leaf() else {
        return skip("the page table has no huge leaves");
    };
    if bench.frames.can_split() || !bench.table.resizes_leaves() {
        return skip("no block is handed out that may have to be split and cannot be");
    }
    let describes = Order::new(leaf.get() + bench.model.vmemmap_page_order().get());
    let ranges = [bench.blocks(describes.unwrap_or(Order::MAX), 0, 1)?];
    let [range] = ranges;
    let pagemap = bench
        .pagemap(&ranges, Order::BASE)?
        .with_piece(Piece::Range);
    let region = bench.online(&pagemap)?;
    let noted = region
        .notes()
        .iter()
        .any(|note| note == Note::BlocksStayWhole);
    ensure(noted, "that there are no huge leaves is said")?;
    let again = bench.vmemmap.region(bench.table, &pagemap);
    let again = bench.expect(again, "there is another handle of the region")?;
    ensure(
        again.notes().iter().eq(region.notes().iter()),
        "another handle of the region says so, too",
    )?;
    bench.costs(leaf.frames(), leaf.frames())?;
    ensure(
        leaf_order(bench, range.start())? == Order::BASE,
        "base pages map what a huge leaf could",
    )?;
    bench.offline(region);
    bench.absent(range)
}
