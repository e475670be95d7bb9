//! Frames from the device itself.

use crate::bench::Bench;
use crate::harness::{AltmapUnderTest, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, skip};
use mm_core::addr::Order;
use mm_core::error::ErrorKind;
use mm_core::frame::InspectFrames;

fn altmap<'h, H: Harness>(bench: &Bench<'h, H>) -> Result<&'h dyn AltmapUnderTest, Stop> {
    match bench.altmap {
        Some(altmap) => Ok(altmap),
        None => skip("the harness has no altmap"),
    }
}

pub(super) fn altmap_frames_go_back_to_the_altmap<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let altmap = altmap(bench)?;
    let unit = bench.model.subsection();
    let range = bench.blocks(unit, 0, 2)?;
    let ram = bench.frames.outstanding();
    for order in [Order::BASE, bench.small()] {
        let ranges = [range];
        let pagemap = bench.pagemap(&ranges, order)?;
        let region = bench.online(&pagemap.with_altmap(altmap.as_altmap()))?;
        let report = bench.audit()?;
        for page in 0..bench.pages(range) {
            let frame = bench.frame_of_page(range, page);
            let holder = bench.holder(frame)?;
            let at = bench.address(frame)?;
            ensure_at(altmap.contains(holder), "a frame of the altmap", at)?;
        }
        if let Some(out) = altmap.outstanding() {
            equal(report.descriptor_frames, out, "frames out of the altmap")?;
        }
        bench.described(range, order)?;
        bench.offline(region);
        ensure(
            bench.frames.outstanding() == ram,
            "RAM gets back what came from it",
        )?;
        equal(
            0,
            altmap.outstanding().unwrap_or(0),
            "the altmap gets back the rest",
        )?;
    }
    Ok(())
}

pub(super) fn an_altmap_that_runs_out_leaves_nothing_behind<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let range = bench.blocks(bench.model.section(), 0, 3)?;
    if bench.pages(range) <= altmap.reserved().frames() {
        return skip("the altmap is too large to run out");
    }
    for huge in [false, true] {
        for piece in super::online::PIECES {
            let ranges = [range];
            let pagemap = bench.pagemap(&ranges, Order::BASE)?;
            let pagemap = pagemap
                .with_altmap(altmap.as_altmap())
                .with_huge_leaves(huge)
                .with_piece(piece);
            let before = bench.audit()?;
            let out = bench.outstanding();
            let refused = bench.try_online(&pagemap).err();
            ensure(
                refused.is_some_and(|error| error.kind() == ErrorKind::AltmapExhausted),
                "the error is about the altmap",
            )?;
            equal(out, bench.outstanding(), "frames that are out")?;
            ensure(bench.audit()? == before, "nothing has changed")?;
        }
    }
    bench.absent(range)
}
