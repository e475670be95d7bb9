//! What a change of orders takes, where from, and what is in the descriptors afterwards.

use super::fold::TAILS;
use super::reorder::four;
use super::shared_tables::Spans;
use crate::bench::{Bench, Form, State, part};
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, skip};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Tables, Tails};
use mm_core::paging::InUse;
use mm_core::vmemmap::{FoldError, Reserve};

/// How many vmemmap pages are compared before and after.
const COMPARED: u64 = 1 << 12;

/// Two pages of four small ones.
fn two<H: Harness>(bench: &Bench<'_, H, Mask>) -> Result<(Order, [PfnRange; 1]), Stop> {
    bench.needs_replacement()?;
    let order = four(bench)?;
    Ok((order, [bench.blocks(order, 0, 2)?]))
}

/// Checks that `frames` cannot become what `pagemap` says with `reserve`, and that nothing changes.
fn is_too_small<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
    reserve: Reserve,
) -> Verdict {
    bench.fill_reserve(reserve)?;
    let had = bench.vmemmap.reserve(bench.node);
    let before = bench.snapshot(frames)?;
    let refused = bench.try_reorder(pagemap, frames)?;
    let node = bench.node;
    let is_named = |stopped: &_| *stopped == FoldError::ReserveTooSmall { node };
    ensure(
        refused.is_err_and(|stopped| is_named(&stopped.error) && stopped.done.units == 0),
        "a reserve that is too small is named",
    )?;
    bench.unchanged(&before, frames)?;
    ensure(
        bench.vmemmap.reserve(bench.node) == had,
        "the reserve is as it was",
    )?;
    bench.empty_reserve()
}

/// Checks that with what is needed `range` becomes what `after` says, and that less is refused.
fn is_exact<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    [before, after]: [&DevPagemap<'_>; 2],
    range: PfnRange,
) -> Verdict {
    let largest = before.geometry().order();
    let region = bench.online(before)?;
    let report = bench.audit()?;
    let needed = bench.needed(after, range, largest);
    if let Some(frames) = needed.frames.checked_sub(1) {
        is_too_small(bench, after, range, Reserve { frames, ..needed })?;
    }
    if let Some(tables) = needed.tables.checked_sub(1) {
        is_too_small(bench, after, range, Reserve { tables, ..needed })?;
    }
    let _ = bench.reorder(after, range, largest)?;
    let _ = bench.reorder(before, range, largest)?;
    bench.costs_as(&report)?;
    bench.offline(region);
    Ok(())
}

pub(super) fn what_is_needed_suffices_and_less_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let large = four(bench)?;
    let range = bench.blocks(large, 0, 1)?;
    let ranges = [range];
    let from = bench.of_form(&ranges, Form::new(large, Tails::PerOrder))?;
    let small = bench.small();
    for (order, tails) in [
        (small, Tails::PerOrder),
        (small, Tails::PerCompound),
        (Order::BASE, Tails::None),
    ] {
        let to = bench.of_form(&ranges, Form::new(order, tails))?;
        // Leaf tables that are private stay as they are.
        let region = bench.online(&from)?;
        let needed = bench.needed(&to, range, large);
        let without_tables = Reserve {
            tables: 0,
            ..needed
        };
        if let Some(frames) = needed.frames.checked_sub(1) {
            is_too_small(bench, &to, range, Reserve { frames, ..needed })?;
        }
        bench.fill_reserve(without_tables)?;
        let done = bench
            .try_reorder(&to, range)?
            .map_err(|stopped| stopped.error);
        let _ = bench.expect(done, "private tables need no others")?;
        bench.empty_reserve()?;
        bench.described(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn what_shared_tables_need_suffices_and_less_changes_nothing<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let spans = Spans::new(bench)?;
    if !bench.table.takes_tables() {
        return skip("the page table needs no tables to exchange entries");
    }
    let range = bench.blocks(spans.order, 0, 1)?;
    if bench.pages(range) > COMPARED {
        return skip("there are too many descriptors to compare all of them");
    }
    let ranges = [range];
    let Some(smaller) = Order::new(spans.order.get() - 3) else {
        return skip("there is no smaller order");
    };
    let shared = Form {
        tables: Tables::Shared,
        ..Form::new(spans.order, Tails::PerOrder)
    };
    let before = bench.of_form(&ranges, shared)?;
    let after = bench.of_form(&ranges, Form::new(smaller, Tails::PerOrder))?;
    is_exact(bench, [&before, &after], range)
}

pub(super) fn a_reserve_is_filled_wholly_or_not_at_all<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = two(bench)?;
    let [range] = ranges;
    bench.needs_faults()?;
    let region = bench.online(&bench.of_form(&ranges, Form::new(order, Tails::PerOrder))?)?;
    let some = Reserve {
        frames: 2,
        tables: 1,
        huge_leaves: 0,
    };
    bench.fill_reserve(some)?;
    let some = bench.vmemmap.reserve(bench.node);
    let more = Reserve {
        frames: some.frames + 9,
        tables: some.tables + 3,
        huge_leaves: 0,
    };
    let mut kept = true;
    let fill = |bench: &mut Bench<'_, H, Mask>| {
        let filled = bench.try_fill_reserve(more);
        kept &= filled.is_ok() || bench.vmemmap.reserve(bench.node) == some;
        filled.map_err(|error| error.kind())
    };
    let ((), failures) = bench.failing_at_every_allocation(range, fill)?;
    ensure(failures > 0, "a reserve needs frames")?;
    ensure(kept, "after an error the reserve is as it was")?;
    let now = bench.vmemmap.reserve(bench.node);
    equal(more.frames, now.frames, "frames in reserve")?;
    let report = bench.audit()?;
    let in_reserve = now.frames + now.tables;
    equal(in_reserve, report.reserve_frames, "the audit counts them")?;
    let stats = bench.vmemmap.stats();
    equal(in_reserve, stats.reserve_frames, "and so do the figures")?;
    bench.empty_reserve()?;
    bench.offline(region);
    Ok(())
}

pub(super) fn one_reserve_serves_any_number_of_changes<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (order, ranges) = two(bench)?;
    let [range] = ranges;
    for tails in TAILS {
        let before = bench.of_form(&ranges, Form::new(order, tails))?;
        let after = bench.of_form(&ranges, Form::new(bench.small(), tails))?;
        let region = bench.online(&before)?;
        let there = bench.needed(&after, range, order);
        let back = bench.needed(&before, range, order);
        bench.fill_reserve(Reserve {
            frames: there.frames + back.frames,
            tables: there.tables + back.tables,
            huge_leaves: there.huge_leaves + back.huge_leaves,
        })?;
        let had = bench.vmemmap.reserve(bench.node);
        let report = bench.audit()?;
        for _ in 0..4 {
            for pagemap in [&after, &before] {
                let done = bench.try_reorder(pagemap, range)?;
                let done = done.map_err(|stopped| stopped.error);
                let _ = bench.expect(done, "what was given back serves again")?;
            }
        }
        let has = bench.vmemmap.reserve(bench.node) == had;
        ensure(has, "the reserve has what it had")?;
        ensure(bench.audit()? == report, "frames and tables of the start")?;
        bench.described(range, order)?;
        bench.empty_reserve()?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn steps_change_whole_units_and_leave_the_rest<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (large, ranges) = two(bench)?;
    let [range] = ranges;
    let small = bench.small();
    for tails in TAILS {
        let before = bench.of_form(&ranges, Form::new(large, tails))?;
        let after = bench.of_form(&ranges, Form::new(small, tails))?;
        let region = bench.online(&before)?;
        for (pagemap, from, to) in [(&after, large, small), (&before, small, large)] {
            bench.fill_reserve(bench.needed(pagemap, range, large))?;
            let mut rest = Some(range);
            while let Some(frames) = rest {
                bench.speculate(frames);
                let step = bench.without_allocator(|bench| {
                    bench.vmemmap.reorder_step(bench.table, pagemap, frames)
                })?;
                rest = bench.expect(step, "a unit changes its order")?.rest;
                let left = rest.map_or(0, PfnRange::frames);
                ensure(left < frames.frames(), "a step does something")?;
                let changed = range.frames() - left;
                ensure(changed % large.frames() == 0, "a unit changes wholly")?;
                bench.described(part(range, 0, changed), to)?;
                if let Some(rest) = rest {
                    bench.described(rest, from)?;
                }
            }
            bench.empty_reserve()?;
        }
        bench.offline(region);
    }
    Ok(())
}

/// Whether the descriptor of `frame` is the kernel's own to keep something in, in pages of `order` of
/// any form: of a first frame, or of a tail in its vmemmap page.
fn is_kept<H: Harness>(bench: &Bench<'_, H, Mask>, frame: Pfn, order: Order) -> bool {
    let before = frame.get() - frame.align_down(order).get();
    before < bench.model.descriptors_per_page()
}

/// Checks that `frame`, in whose descriptor the kernel kept something, still has that if it was a first
/// frame and is one, or a tail and is one, in pages of `from` that became pages of `to`. If it is something
/// else it is as new.
fn has_what_it_should<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    frame: Pfn,
    from: Order,
    to: Order,
) -> Verdict {
    let [was_first, is_first] = [from, to].map(|order| frame.is_aligned(order));
    let stays = was_first == is_first;
    let expected = match stays && is_kept(bench, frame, from) && is_kept(bench, frame, to) {
        true => State::of(frame),
        false => State::new(!is_first),
    };
    let at = bench.address(frame)?;
    ensure_at(
        bench.state(frame)? == expected,
        "a descriptor keeps what was written to it, or is new",
        at,
    )
}

pub(super) fn first_descriptors_keep_what_the_kernel_wrote_and_others_are_new<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let (large, ranges) = two(bench)?;
    let [range] = ranges;
    let small = bench.small();
    let page = bench.model.vmemmap_page_order();
    for tails in TAILS {
        for (from, to) in [
            (large, small),
            (small, large),
            (large, page),
            (Order::BASE, small),
            (small, Order::BASE),
        ] {
            let before = bench.of_form(&ranges, Form::new(from, tails))?;
            let after = bench.of_form(&ranges, Form::new(to, tails))?;
            let region = bench.online(&before)?;
            // The first frame of each vmemmap page, and the one behind.
            let frames = |bench: &Bench<'_, H, Mask>| {
                let pages = bench.pages(range);
                let per_page = bench.model.descriptors_per_page();
                let both = move |page| [page * per_page, page * per_page + 1];
                (0..pages)
                    .flat_map(both)
                    .map(move |frame| part(range, frame, 1).start())
            };
            for frame in frames(bench).filter(|frame| is_kept(bench, *frame, from)) {
                bench.keep(frame, State::of(frame))?;
            }
            let _ = bench.reorder(&after, range, large)?;
            for frame in frames(bench) {
                has_what_it_should(bench, frame, from, to)?;
            }
            bench.described(range, to)?;
            bench.offline(region);
        }
    }
    Ok(())
}
