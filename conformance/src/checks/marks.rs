//! State of one frame, whatever shares its descriptor.

use super::fold::{TAILS, base_pages, eight};
use crate::bench::{Bench, part};
use crate::harness::{Controls, Harness};
use crate::outcome::{Verdict, ensure, equal, equal_at, fail};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::Tails;
use mm_core::vmemmap::{MarkError, MarkStats};

/// Three frames of `range`: a head, a tail with a vmemmap page of its own, and a tail that shares
/// one with all but those.
fn some<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange, order: Order) -> [Pfn; 3] {
    let beside = bench.model.descriptors_per_page() + 3;
    [order.frames(), order.frames() + 2, order.frames() + beside]
        .map(|index| range.start().saturating_add(index))
}

/// Checks that of `range` exactly the frames `marked` are.
fn are_marked<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange, marked: &[Pfn]) -> Verdict {
    for index in 0..range.frames() {
        let frame = range.start().saturating_add(index);
        let found = bench.vmemmap.is_marked(frame);
        let at = bench.address(frame)?;
        equal_at(marked.contains(&frame).into(), found.into(), "marked", at)?;
    }
    let mut found = 0;
    for frame in bench.vmemmap.marked(range) {
        ensure(marked.contains(&frame), "only what is marked is named")?;
        found += 1;
    }
    equal(marked.len() as u64, found, "frames that are named")?;
    equal(
        marked.len() as u64,
        bench.vmemmap.mark_stats().marked,
        "frames that are counted",
    )
}

pub(super) fn a_mark_is_of_one_frame_on_a_tail_of_many<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    for tails in TAILS {
        let region = bench.online(&bench.sharing(&ranges, order, tails)?)?;
        let frames = some(bench, range, order);
        let fingerprint = bench.fingerprint(range)?;
        for (index, frame) in frames.into_iter().enumerate() {
            bench.mark(frame)?;
            let again = bench.vmemmap.mark(bench.table, frame, bench.node);
            ensure(again == Ok(false), "a second mark is none")?;
            are_marked(bench, range, frames.get(..=index).unwrap_or_default())?;
        }
        for (index, frame) in frames.into_iter().enumerate() {
            ensure(bench.vmemmap.unmark(frame), "a mark can be taken off")?;
            ensure(!bench.vmemmap.unmark(frame), "once")?;
            are_marked(bench, range, frames.get(index + 1..).unwrap_or_default())?;
        }
        // No descriptor, shared or not, knows of any of that.
        equal(fingerprint, bench.fingerprint(range)?, "what is mapped")?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn marks_survive_fold_and_unfold<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let (order, ranges) = eight(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let region = bench.online(&base_pages(bench, &ranges, false)?)?;
        let compound = bench.sharing(&ranges, order, tails)?;
        let compound = compound.with_huge_leaves(false);
        let [first, second, third] = some(bench, range, order);
        bench.mark(first)?;
        let _ = bench.fold(&compound, range)?;
        are_marked(bench, range, &[first])?;
        bench.mark(third)?;
        bench.described(range, order)?;
        let _ = bench.unfold(&compound, range)?;
        are_marked(bench, range, &[first, third])?;
        bench.mark(second)?;
        let _ = bench.fold(&compound, range)?;
        are_marked(bench, range, &[first, second, third])?;
        for frame in [first, second, third] {
            ensure(bench.vmemmap.unmark(frame), "a mark can be taken off")?;
        }
        bench.costs(super::fold::folded_frames(tails, 8), bench.pages(range))?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn the_frame_of_marks_goes_back_with_the_last<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    let region = bench.online(&bench.sharing(&ranges, order, Tails::PerOrder)?)?;
    let out = bench.frames_out();
    let frames = some(bench, range, order);
    for _ in 0..2 {
        for frame in frames {
            bench.mark(frame)?;
            let stats = bench.vmemmap.mark_stats();
            equal(1, stats.frames, "frames that hold marks")?;
            equal(1, bench.audit()?.mark_frames, "frames that hold marks")?;
            ensure(bench.frames_out() == out.map(|out| out + 1), "frames out")?;
        }
        for frame in frames {
            equal(1, bench.audit()?.mark_frames, "frames that hold marks")?;
            bench.vmemmap.unmark(frame);
        }
        ensure(
            bench.vmemmap.mark_stats() == MarkStats::default(),
            "nothing is marked",
        )?;
        equal(0, bench.audit()?.mark_frames, "frames that hold marks")?;
        ensure(bench.frames_out() == out, "frames out")?;
    }
    bench.offline(region);
    Ok(())
}

pub(super) fn a_mark_that_finds_no_frame_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    let region = bench.online(&bench.sharing(&ranges, order, Tails::PerCompound)?)?;
    let [frame, other, _] = some(bench, range, order);
    let mark = |bench: &mut Bench<'_, H, Mask>| {
        let marked = bench.vmemmap.mark(bench.table, frame, bench.node);
        match marked {
            Err(_) if bench.vmemmap.is_marked(frame) => Ok(false),
            marked => marked.map_err(|error| error.kind()),
        }
    };
    let (marked, failures) = bench.failing_at_every_allocation(range, mark)?;
    ensure(marked && failures == 1, "the first mark needs one frame")?;
    // The next one needs none.
    bench.controls.fail_after(Some(0));
    let second = bench.vmemmap.mark(bench.table, other, bench.node);
    bench.controls.fail_after(None);
    ensure(second == Ok(true), "there is room for more marks")?;
    are_marked(bench, range, &[frame, other])?;
    bench.offline(region);
    Ok(())
}

pub(super) fn what_goes_offline_says_what_was_marked_and_forgets_it<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    for tails in TAILS {
        let pagemap = bench.sharing(&ranges, order, tails)?;
        let region = bench.online(&pagemap)?;
        let frames = some(bench, range, order);
        for frame in frames {
            bench.mark(frame)?;
        }
        let first = range.start();
        let last = range.last();
        bench.mark(first)?;
        bench.mark(last)?;
        let piece = part(range, order.frames(), order.frames());
        let offlined = bench.vmemmap.depopulate(bench.table, &pagemap, piece);
        let Ok(offlined) = offlined else {
            return fail("a piece goes offline");
        };
        equal(3, offlined.marked, "marks that went with the piece")?;
        are_marked(bench, range, &[first, last])?;
        let offlined = bench.take_offline(region)?;
        equal(2, offlined.marked, "marks that went with the rest")?;
        are_marked(bench, range, &[])?;
        let region = bench.online(&pagemap)?;
        are_marked(bench, range, &[])?;
        let offlined = bench.take_offline(region)?;
        equal(0, offlined.marked, "marks of memory that had none")?;
    }
    Ok(())
}

pub(super) fn only_memory_that_is_online_is_marked<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let (range, beside) = (bench.blocks(order, 0, 1)?, bench.blocks(order, 1, 1)?);
    let ranges = [range];
    let region = bench.online(&bench.sharing(&ranges, order, Tails::PerOrder)?)?;
    let before = bench.snapshot(range)?;
    let frame = beside.start();
    let refused = bench.vmemmap.mark(bench.table, frame, bench.node);
    ensure(
        refused == Err(MarkError::NotOnline { frame }),
        "what is not online is not marked",
    )?;
    ensure(!bench.vmemmap.is_marked(frame), "and is not then")?;
    bench.unchanged(&before, range)?;
    bench.offline(region);
    Ok(())
}
