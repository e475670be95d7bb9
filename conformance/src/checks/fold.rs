//! Sharing tails of memory that is online, and taking that back.

use crate::bench::{Bench, part};
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, equal, skip};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::pagemap::{DevPagemap, Piece, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::Folded;

/// The ways to share tails.
pub(super) const TAILS: [Tails; 2] = [Tails::PerCompound, Tails::PerOrder];

/// Eight compound pages, which can be folded.
pub(super) fn eight<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
) -> Result<(Order, [PfnRange; 1]), Stop> {
    bench.needs_replacement()?;
    let order = bench.small();
    Ok((order, [bench.blocks(order, 0, 8)?]))
}

/// How many vmemmap pages may be written time and again.
pub(super) const FEW: u64 = 1 << 12;

/// All that a huge leaf describes, in vmemmap pages at most `pages`, the order of compound pages in
/// it, and that of the leaf.
pub(super) fn whole_leaf<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    pages: u64,
) -> Result<(Order, [PfnRange; 1], Order), Stop> {
    bench.needs_resizing()?;
    let (leaf, describes) = bench.huge_leaf()?;
    if leaf.frames() > pages {
        return skip("a huge leaf has room for more descriptors than can be written in time");
    }
    Ok((bench.small(), [bench.blocks(describes, 0, 1)?], leaf))
}

/// Base pages, by huge leaves or not.
pub(super) fn base_pages<'r, H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    ranges: &'r [PfnRange],
    huge: bool,
) -> Result<DevPagemap<'r>, Stop> {
    let pagemap = bench.pagemap(ranges, Order::BASE)?;
    Ok(pagemap.with_piece(Piece::Range).with_huge_leaves(huge))
}

/// How many frames hold the descriptors of `count` compound pages that share tails.
pub(super) fn folded_frames(tails: Tails, count: u64) -> u64 {
    match tails {
        Tails::PerOrder => count + 1,
        _ => 2 * count,
    }
}

/// Checks that all compound pages were changed, and nothing done otherwise than asked.
pub(super) fn all_changed(done: &Folded, count: u64) -> Verdict {
    equal(count, done.changed, "compound pages that were changed")?;
    equal(0, done.unchanged, "compound pages that were not")?;
    ensure(
        done.notes.is_empty(),
        "nothing is done otherwise than asked",
    )
}

/// Whether one huge leaf of `leaf` maps the descriptor of `frame`.
fn is_leaf<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    frame: Pfn,
    leaf: Order,
) -> Result<bool, Stop> {
    let mapping = bench.table.lookup(bench.address(frame)?).mapping();
    Ok(mapping.is_some_and(|mapping| mapping.leaf.block.order() == leaf))
}

pub(super) fn fold_then_unfold_returns_to_the_frames_of_the_start<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let (before, outstanding) = (bench.audit()?, bench.outstanding());
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        for _ in 0..2 {
            let folded = bench.fold(&compound, range)?;
            all_changed(&folded, 8)?;
            bench.costs(folded_frames(tails, 8), bench.pages(range))?;
            bench.described(range, order)?;
            let unfolded = bench.unfold(&compound, range)?;
            all_changed(&unfolded, 8)?;
            ensure(bench.audit()? == before, "frames and tables of the start")?;
            equal(outstanding, bench.outstanding(), "frames that are out")?;
            bench.described(range, order)?;
        }
        let pagemap = base_pages(bench, &ranges, false)?;
        let reshaped = bench.vmemmap.reshape(bench.table, &pagemap, range);
        bench.expect(reshaped, "unfolded pages can be taken apart")?;
        bench.described(range, Order::BASE)?;
        bench.offline(region);
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn unfolding_brings_the_huge_leaf_back<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges, leaf) = whole_leaf(bench, u64::MAX)?;
    let [range] = ranges;
    let count = range.frames() / order.frames();
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, true)?)?;
        if !is_leaf(bench, range.start(), leaf)? {
            bench.offline(region);
            return skip("the allocator has no block for a huge leaf");
        }
        let before = bench.audit()?;
        let compound = bench.sharing(&ranges, order, tails)?;
        all_changed(&bench.fold(&compound, range)?, count)?;
        bench.costs(folded_frames(tails, count), bench.pages(range))?;
        bench.described(range, order)?;
        all_changed(&bench.unfold(&compound, range)?, count)?;
        ensure(
            is_leaf(bench, range.start(), leaf)?,
            "the huge leaf is there again",
        )?;
        ensure(bench.audit()? == before, "frames and tables of the start")?;
        let block = bench.holder(range.start())?;
        let owners = bench.references(block).unwrap_or(0);
        equal(1, owners, "one reference for the block")?;
        bench.described(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn unfolding_all_brings_back_the_leaf_that_parts_left_out<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges, leaf) = whole_leaf(bench, FEW)?;
    let [range] = ranges;
    let half = range.frames() / 2;
    let halves = [part(range, 0, half), part(range, half, half)];
    let region = bench.online(&base_pages(bench, &ranges, true)?)?;
    if !is_leaf(bench, range.start(), leaf)? {
        bench.offline(region);
        return skip("the allocator has no block for a huge leaf");
    }
    let before = bench.audit()?;
    let compound = bench.sharing(&ranges, order, Tails::PerCompound)?;
    let _ = bench.fold(&compound, range)?;
    for half in halves {
        let _ = bench.unfold(&compound, half)?;
        ensure(
            !is_leaf(bench, range.start(), leaf)?,
            "a part is not mapped by a leaf for all",
        )?;
        bench.described(range, order)?;
    }
    bench.costs(bench.pages(range), bench.pages(range))?;
    let rest = bench.unfold(&compound, range)?;
    equal(0, rest.changed, "compound pages that were folded still")?;
    ensure(
        is_leaf(bench, range.start(), leaf)?,
        "the huge leaf is there again",
    )?;
    ensure(bench.audit()? == before, "frames and tables of the start")?;
    bench.described(range, order)?;
    bench.offline(region);
    Ok(())
}

pub(super) fn what_came_online_folded_can_be_unfolded_and_folded_again<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let pagemap = pagemap.with_huge_leaves(false);
        let region = bench.online(&pagemap)?;
        let before = bench.audit()?;
        all_changed(&bench.unfold(&pagemap, range)?, 8)?;
        bench.costs(bench.pages(range), bench.pages(range))?;
        bench.described(range, order)?;
        all_changed(&bench.fold(&pagemap, range)?, 8)?;
        ensure(bench.audit()? == before, "frames and tables of the start")?;
        bench.described(range, order)?;
        // What is unfolded in part goes offline like anything else.
        let some = bench.blocks(order, 2, 3)?;
        all_changed(&bench.unfold(&pagemap, some)?, 3)?;
        bench.offline(region);
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn folding_one_by_one_is_the_same_as_all_at_once<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let before = bench.audit()?;
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        let in_turn = [3, 0, 7, 1, 5, 2, 4, 6];
        for (done, index) in (1..).zip(in_turn) {
            let page = bench.blocks(order, index, 1)?;
            all_changed(&bench.fold(&compound, page)?, 1)?;
            bench.described(page, order)?;
            let unfolded = (8 - done) * bench.pages(page);
            bench.costs(folded_frames(tails, done) + unfolded, bench.pages(range))?;
        }
        let folded = bench.audit()?;
        let _ = bench.unfold(&compound, range)?;
        let _ = bench.fold(&compound, range)?;
        ensure(bench.audit()? == folded, "the same frames and tables")?;
        for index in in_turn.into_iter().rev() {
            let page = bench.blocks(order, index, 1)?;
            all_changed(&bench.unfold(&compound, page)?, 1)?;
            bench.described(page, order)?;
        }
        ensure(bench.audit()? == before, "frames and tables of the start")?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn folding_twice_changes_nothing<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    let some = bench.blocks(order, 1, 3)?;
    let nothing = |unchanged| Folded {
        unchanged,
        ..Folded::default()
    };
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        all_changed(&bench.fold(&compound, some)?, 3)?;
        let folded = bench.snapshot(range)?;
        ensure(
            bench.fold(&compound, some)? == nothing(3),
            "what is folded is left as it is",
        )?;
        bench.unchanged(&folded, range)?;
        let rest = bench.fold(&compound, range)?;
        ensure(
            (rest.changed, rest.unchanged) == (5, 3),
            "what is folded is passed over",
        )?;
        let _ = bench.unfold(&compound, range)?;
        let unfolded = bench.snapshot(range)?;
        ensure(
            bench.unfold(&compound, range)? == nothing(8),
            "what is unfolded is left as it is",
        )?;
        bench.unchanged(&unfolded, range)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn folding_names_the_right_heads_by_pointer<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (small, ranges) = eight(bench)?;
    let [range] = ranges;
    let Some(all) = Order::new(small.get() + 3) else {
        return skip("there is no larger order");
    };
    for order in [small, all] {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let compound = bench.pagemap(&ranges, order)?.with_huge_leaves(false);
        let _ = bench.fold(&compound, range)?;
        bench.described(range, order)?;
        let _ = bench.unfold(&compound, range)?;
        bench.described(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_fold_is_flushed_by_the_batch<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let order = bench.small();
    let range = bench.blocks(order, 0, 64)?;
    let ranges = [range];
    let most = super::flushes::most(bench.pages(range));
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        for fold in [true, false] {
            let before = bench.flushes();
            let done = if fold {
                bench.fold(&compound, range)?
            } else {
                bench.unfold(&compound, range)?
            };
            all_changed(&done, 64)?;
            ensure(done.flushes > 0, "entries in use are flushed")?;
            ensure(done.flushes <= most, "a batch takes one flush")?;
            let counted = match (before, bench.flushes()) {
                (Some(before), Some(after)) => after - before,
                _ => done.flushes,
            };
            equal(done.flushes, counted, "flushes, by those who flush")?;
        }
        bench.offline(region);
    }
    match bench.flushes() {
        Some(_) => Ok(()),
        None => skip("the harness does not count flushes; those reported are few enough"),
    }
}
