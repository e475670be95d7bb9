//! What cannot be folded or unfolded, and stays as it is.

use super::fold::{FEW, TAILS, base_pages, eight, folded_frames, whole_leaf};
use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, equal, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::paging::{InUse, Leaf, PageTable, Replacement, Role};
use mm_core::vmemmap::{FoldError, Note};

/// Checks that neither fold nor unfold of `frames` can be done, for the reason `expected`.
fn both_refused<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
    expected: impl Fn(FoldError) -> bool,
) -> Verdict {
    let fold = bench.try_fold(pagemap, frames).err();
    ensure(fold.is_some_and(&expected), "a fold is refused for that")?;
    let unfold = bench.try_unfold(pagemap, frames).err();
    ensure(
        unfold.is_some_and(&expected),
        "an unfold is refused for that",
    )
}

pub(super) fn a_fold_is_refused_where_entries_in_use_cannot_be_exchanged<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    if bench.table.replacement() != Replacement::Refused {
        return skip("the page table can exchange entries in use");
    }
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    for tails in TAILS {
        let compound = bench.sharing(&ranges, order, tails)?;
        for pagemap in [base_pages(bench, &ranges, true)?, compound] {
            let region = bench.online(&pagemap)?;
            let before = bench.snapshot(range)?;
            both_refused(bench, &compound, range, |error| error == FoldError::Refused)?;
            bench.unchanged(&before, range)?;
            bench.offline(region);
        }
    }
    Ok(())
}

pub(super) fn tails_of_others_are_not_folded_over<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    let Some(larger) = Order::new(order.get() + 1) else {
        return skip("there is no larger order");
    };
    let others = |error| matches!(error, FoldError::OtherTails { .. });
    for tails in TAILS {
        // As pages of half the size, and of twice.
        for (online, other) in [(order, larger), (larger, order)] {
            let region = bench.online(&bench.sharing(&ranges, online, tails)?)?;
            let before = bench.snapshot(range)?;
            let pagemap = bench.sharing(&ranges, other, tails)?;
            both_refused(bench, &pagemap, range, others)?;
            let reshaped = bench.vmemmap.reshape(bench.table, &pagemap, range).err();
            ensure(
                reshaped.is_some_and(others),
                "shared tails are not made parts of another page",
            )?;
            // The start of a larger compound page looks like a smaller one, with as many tails.
            let start = bench.blocks(order, 0, 1)?;
            let small = bench.sharing(&ranges, order, tails)?;
            if online == larger {
                both_refused(bench, &small, start, others)?;
            }
            bench.unchanged(&before, range)?;
            bench.offline(region);
        }
    }
    Ok(())
}

pub(super) fn shared_tails_are_not_made_parts_of_other_pages<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    let others = |error| matches!(error, FoldError::OtherTails { .. });
    for tails in TAILS {
        let compound = bench.sharing(&ranges, order, tails)?;
        let region = bench.online(&compound)?;
        let before = bench.snapshot(range)?;
        for pagemap in [compound, base_pages(bench, &ranges, false)?] {
            let refused = bench.vmemmap.reshape(bench.table, &pagemap, range).err();
            ensure(
                refused.is_some_and(others),
                "what stands for many frames is not made a part of one page",
            )?;
        }
        bench.unchanged(&before, range)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn what_is_not_whole_and_online_is_not_folded<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, _) = eight(bench)?;
    let ranges = [bench.blocks(order, 0, 3)?];
    let all = bench.blocks(order, 0, 4)?;
    let first = bench.blocks(order, 0, 1)?;
    let gap = bench.blocks(order, 1, 1)?;
    let compound = bench.sharing(&ranges, order, Tails::PerCompound)?;
    both_refused(bench, &compound, first, |error| {
        matches!(error, FoldError::NotOnline { .. })
    })?;

    let pagemap = base_pages(bench, &ranges, false)?;
    let region = bench.online(&pagemap)?;
    let before = bench.snapshot(all)?;
    let half = first.split_at(order.frames() / 2).0.unwrap_or(first);
    both_refused(bench, &compound, half, |error| {
        matches!(error, FoldError::Misaligned { .. })
    })?;
    both_refused(bench, &compound, all, |error| {
        matches!(error, FoldError::Outside { .. })
    })?;
    let refused = bench.try_fold(&pagemap, first).err();
    ensure(
        refused.is_some_and(|error| matches!(error, FoldError::NothingToShare(_))),
        "base pages have nothing to share",
    )?;
    bench.unchanged(&before, all)?;

    // With a hole, and with somebody else's leaf in it.
    bench.depopulate(&pagemap, gap)?;
    let at = bench.address(gap.start())?;
    let foreign = Leaf::single(gap.start(), Role::Foreign);
    for mapped in [false, true] {
        if mapped && !bench.controls.map_foreign(bench.table, at, foreign) {
            break;
        }
        let before = bench.snapshot(all)?;
        for frames in [gap, ranges[0]] {
            both_refused(bench, &compound, frames, |error| {
                matches!(error, FoldError::NotOnline { .. })
            })?;
        }
        bench.unchanged(&before, all)?;
        if mapped {
            let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
            bench.controls.unmap_foreign(bench.table, at);
            ensure(found == Some(foreign), "the foreign leaf stays as it was")?;
        }
    }
    bench.offline(region);
    bench.absent(all)
}

/// Three compound pages, which can be folded.
fn three<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<(Order, [PfnRange; 1]), Stop> {
    let (order, _) = eight(bench)?;
    Ok((order, [bench.blocks(order, 0, 3)?]))
}

/// What `fold` and `unfold` answer, without what they have done.
fn kind<T>(outcome: Result<T, FoldError>) -> Result<(), ErrorKind> {
    outcome.map(drop).map_err(|error| error.kind())
}

pub(super) fn a_failed_fold_changes_nothing<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    bench.needs_faults()?;
    let (order, small) = three(bench)?;
    let whole = whole_leaf(bench, FEW).map(|(_, ranges, _)| ranges);
    let cases = [
        Some((small, false)),
        whole.ok().map(|ranges| (ranges, true)),
    ];
    for (ranges, huge) in cases.into_iter().flatten() {
        let [range] = ranges;
        let count = range.frames() / order.frames();
        for tails in TAILS {
            let region = bench.online(&base_pages(bench, &ranges, huge)?)?;
            let compound = bench.sharing(&ranges, order, tails)?;
            let tables = bench.audit()?.leaf_tables;
            let ((), failures) = bench.failing_at_every_allocation(range, |bench| {
                kind(bench.try_fold(&compound, range))
            })?;
            let took = u64::from(tails == Tails::PerOrder) + bench.audit()?.leaf_tables - tables;
            equal(took, failures, "allocations that can fail")?;
            bench.costs(folded_frames(tails, count), bench.pages(range))?;
            bench.described(range, order)?;
            bench.offline(region);
        }
    }
    Ok(())
}

pub(super) fn a_failed_unfold_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let (order, small) = three(bench)?;
    let whole = whole_leaf(bench, FEW).map(|(_, ranges, _)| ranges);
    let cases = [
        Some((small, false)),
        whole.ok().map(|ranges| (ranges, true)),
    ];
    for (ranges, huge) in cases.into_iter().flatten() {
        let [range] = ranges;
        for tails in TAILS {
            let compound = bench.sharing(&ranges, order, tails)?;
            let compound = compound.with_huge_leaves(huge);
            let region = bench.online(&compound)?;
            let ((), failures) = bench.failing_at_every_allocation(range, |bench| {
                kind(bench.try_unfold(&compound, range))
            })?;
            ensure(failures > 0, "unfolding needs frames")?;
            bench.costs(bench.pages(range), bench.pages(range))?;
            bench.described(range, order)?;
            bench.offline(region);
        }
    }
    Ok(())
}

pub(super) fn without_blocks_unfolding_gives_base_pages_and_says_so<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges, _) = whole_leaf(bench, FEW)?;
    let [range] = ranges;
    let compound = bench.sharing(&ranges, order, Tails::PerCompound)?;
    let region = bench.online(&compound)?;
    if !bench.controls.fail_blocks(true) {
        bench.offline(region);
        return skip("the harness cannot fragment memory");
    }
    let unfolded = bench.unfold(&compound, range)?;
    let noted = Note::HugeLeavesUnavailable { leaves: 1 };
    ensure(
        unfolded.notes.iter().any(|note| note == noted),
        "the fallback is reported",
    )?;
    bench.costs(bench.pages(range), bench.pages(range))?;
    bench.described(range, order)?;
    bench.offline(region);
    Ok(())
}
