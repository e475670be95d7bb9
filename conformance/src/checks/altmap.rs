//! Frames from the device itself.

use crate::bench::Bench;
use crate::harness::{AltmapUnderTest, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::error::ErrorKind;
use mm_core::frame::InspectFrames;
use mm_core::pagemap::DevPagemap;

fn altmap<'h, H: Harness>(bench: &Bench<'h, H, Mask>) -> Result<&'h dyn AltmapUnderTest, Stop> {
    match bench.altmap {
        Some(altmap) => Ok(altmap),
        None => skip("the harness has no altmap"),
    }
}

/// A pagemap of `ranges`, used in pages of `order`, with the altmap.
fn with_altmap<'r, 'h: 'r, H: Harness>(
    bench: &Bench<'h, H, Mask>,
    ranges: &'r [PfnRange],
    order: Order,
) -> Result<DevPagemap<'r>, Stop> {
    let altmap = altmap(bench)?;
    match bench
        .pagemap(ranges, order)?
        .with_altmap(altmap.as_altmap())
    {
        Ok(pagemap) => Ok(pagemap),
        Err(_) => fail("the device starts with the altmap"),
    }
}

pub(super) fn altmap_frames_go_back_to_the_altmap<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let ram = bench.frames.outstanding();
    for order in [Order::BASE, bench.small()] {
        let unit = order.max(bench.model.subsection());
        let reserved = altmap.reserved().frames().div_ceil(unit.frames());
        let range = bench.blocks(unit, 0, reserved + 2)?;
        if bench.pages(range) > altmap.reserved().frames() {
            return skip("the altmap is too small for its own descriptors and a few more");
        }
        let ranges = [range];
        let pagemap = with_altmap(bench, &ranges, order)?;
        let region = bench.online(&pagemap)?;
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
        let base_pages = pagemap.base_pages().map_or(0, PfnRange::frames);
        let (base_pages, rest) = range.split_at(base_pages);
        if let Some(base_pages) = base_pages {
            bench.described(base_pages, Order::BASE)?;
        }
        if let Some(rest) = rest {
            bench.described(rest, order)?;
        }
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
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let range = bench.blocks(bench.model.section(), 0, 3)?;
    if bench.pages(range) <= altmap.reserved().frames() {
        return skip("the altmap is too large to run out");
    }
    for huge in [false, true] {
        for piece in super::online::PIECES {
            let ranges = [range];
            let pagemap = with_altmap(bench, &ranges, Order::BASE)?;
            let pagemap = pagemap.with_huge_leaves(huge).with_piece(piece);
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
