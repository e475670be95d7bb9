//! Allocations that fail: nothing stays behind, and the same call then succeeds.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, equal, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::pagemap::{DevPagemap, Piece};
use mm_core::paging::{Leaf, PageTable, Role};

/// Brings `pagemap` online with every number of allocations that is too small, and with one that is
/// not; `frames` are all of it, and perhaps more.
pub(super) fn online_fails_whole<H: Harness, E: TailEncoding>(
    bench: &mut Bench<'_, H, E>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Verdict {
    let online = |bench: &mut Bench<'_, H, E>| {
        let outcome = bench.try_online(pagemap);
        outcome.map_err(|error| error.kind())
    };
    let (region, failures) = bench.failing_at_every_allocation(frames, online)?;
    bench.offline(region);
    ensure(failures > 0, "memory needs frames to come online")
}

pub(super) fn a_failed_online_leaves_nothing_behind<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let small = bench.small();
    let in_section = bench.model.section().frames() / small.frames();
    let all = bench.blocks(small, 0, in_section + 1)?;
    let ranges = [
        bench.blocks(small, in_section - 1, 2)?,
        bench.blocks(small, 0, 1)?,
    ];
    for order in [Order::BASE, small] {
        for piece in super::online::PIECES {
            let pagemap = bench.pagemap(&ranges, order)?.with_piece(piece);
            online_fails_whole(bench, &pagemap, all)?;
        }
    }
    let Ok(large) = bench.large() else {
        return Ok(());
    };
    let ranges = [bench.blocks(large, 0, 1)?];
    let pagemap = bench.pagemap(&ranges, large)?;
    online_fails_whole(bench, &pagemap, ranges[0])
}

/// The first section of a compound page of eight, and the other seven.
fn large_in_parts<H: Harness>(
    bench: &Bench<'_, H>,
) -> Result<(Order, [PfnRange; 1], PfnRange, PfnRange), Stop> {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    match range.split_at(bench.model.section().frames()) {
        (Some(first), Some(rest)) => Ok((order, [range], first, rest)),
        _ => fail("eight sections are more than one"),
    }
}

pub(super) fn a_failed_populate_leaves_earlier_pieces_alone<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (order, ranges, first, rest) = large_in_parts(bench)?;
    let pagemap = bench.pagemap(&ranges, order)?;
    bench.needs_faults()?;
    for (earlier, later) in [(first, rest), (rest, first)] {
        bench.populate(&pagemap, earlier)?;
        let before = bench.audit()?;
        let populate = |bench: &mut Bench<'_, H>| {
            let outcome = bench.vmemmap.populate(bench.table, &pagemap, later);
            outcome.map_err(|error| error.kind())
        };
        let (_, failures) = bench.failing_at_every_allocation(ranges[0], populate)?;
        // None where the tail is there already and there are no tables, or one leaf table describes
        // both pieces.
        let needs_frames = bench.audit()?.frames() > before.frames();
        ensure(failures > 0 || !needs_frames, "some allocation has failed")?;
        bench.costs(2, bench.pages(ranges[0]))?;
        bench.described(ranges[0], order)?;
        bench.depopulate(&pagemap, ranges[0])?;
    }
    Ok(())
}

pub(super) fn a_rollback_leaves_the_head_of_an_earlier_piece_alone<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let (order, ranges, first, rest) = large_in_parts(bench)?;
    let pagemap = bench.pagemap(&ranges, order)?;
    bench.needs_faults()?;
    bench.populate(&pagemap, first)?;
    let head = bench.holder(first.start())?;
    let tail = bench.holder(bench.frame_of_page(first, 1))?;
    // One table is to be had, so that a part of the piece is entered before it fails.
    for allocations in [0, 1, 2] {
        bench.controls.fail_after(Some(allocations));
        let outcome = bench.vmemmap.populate(bench.table, &pagemap, rest);
        bench.controls.fail_after(None);
        if outcome.is_ok() {
            bench.depopulate(&pagemap, rest)?;
        }
        bench.described(first, order)?;
        equal(
            head.get(),
            bench.holder(first.start())?.get(),
            "the head's frame",
        )?;
        equal(
            1,
            bench.references(head).unwrap_or(0),
            "owners of the head page",
        )?;
        let tails = bench.pages(first) - 1;
        equal(
            tails,
            bench.references(tail).unwrap_or(0),
            "owners of the tail page",
        )?;
    }
    bench.depopulate(&pagemap, first)
}

pub(super) fn a_failure_next_to_foreign_memory_leaves_it_alone<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let small = bench.small();
    let neighbour = bench.blocks(small, 0, 1)?;
    let at = bench.address(neighbour.start())?;
    let foreign = Leaf::single(neighbour.start(), Role::Foreign);
    bench.needs_faults()?;
    if !bench.controls.map_foreign(bench.table, at, foreign) {
        return skip("the harness cannot map anything foreign");
    }
    let in_section = bench.model.section().frames() / small.frames();
    let ranges = [bench.blocks(small, 1, in_section)?];
    let pagemap = bench.pagemap(&ranges, small)?.with_piece(Piece::Range);
    let outcome = online_fails_whole(bench, &pagemap, ranges[0]);
    let found = bench.table.lookup(at).mapping().map(|mapping| mapping.leaf);
    bench.controls.unmap_foreign(bench.table, at);
    outcome?;
    ensure(found == Some(foreign), "the foreign leaf stays")
}
