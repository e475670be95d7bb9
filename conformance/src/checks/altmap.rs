//! Frames from the device itself.

use super::ends::last_block;
use crate::bench::Bench;
use crate::harness::{AltmapUnderTest, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, equal_at, fail, skip};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::error::ErrorKind;
use mm_core::frame::InspectFrames;
use mm_core::pagemap::DevPagemap;

pub(super) fn altmap<'h, H: Harness>(
    bench: &Bench<'h, H, Mask>,
) -> Result<&'h dyn AltmapUnderTest, Stop> {
    match bench.altmap {
        Some(altmap) => Ok(altmap),
        None => skip("the harness has no altmap"),
    }
}

/// A pagemap of `ranges`, used in pages of `order`, with the altmap.
pub(super) fn with_altmap<'r, 'h: 'r, H: Harness>(
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

pub(super) fn an_altmap_that_is_not_the_start_of_its_device_is_refused<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let unit = bench.small();
    let refused = |range, order| {
        let ranges = [range];
        let pagemap = bench.pagemap(&ranges, order)?;
        match pagemap.with_altmap(altmap.as_altmap()) {
            Ok(_) => fail("an altmap has to fit"),
            Err(error) => Ok(error.kind()),
        }
    };
    let reserved = altmap.reserved().frames().div_ceil(unit.frames());
    let elsewhere = bench.blocks(unit, reserved, 2)?;
    ensure(
        refused(elsewhere, unit)? == ErrorKind::OutOfRange,
        "an altmap is a part of its device",
    )?;
    let reserved_alone = bench.blocks(unit, 0, reserved)?;
    ensure(
        refused(reserved_alone, unit)? == ErrorKind::NoCompoundPage,
        "an altmap leaves room for a compound page",
    )?;
    bench.absent(reserved_alone)
}

pub(super) fn the_reserved_part_describes_and_counts_itself<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let reserved = altmap.reserved();
    let order = bench.small();
    let units = reserved.frames().div_ceil(order.frames());
    let range = bench.blocks(order, 0, units + 2)?;
    let ranges = [range];
    let region = bench.online(&with_altmap(bench, &ranges, order)?)?;
    for page in 0..bench.pages(reserved) {
        let frame = bench.frame_of_page(reserved, page);
        let expected = reserved.start().saturating_add(page);
        let at = bench.address(frame)?;
        let found = bench.holder(frame)?;
        equal_at(expected.get(), found.get(), "a frame of its own", at)?;
    }
    for index in 0..reserved.frames() {
        let frame = reserved.start().saturating_add(index);
        let counted = u64::from(bench.state(frame)?.references);
        let references = altmap.references(frame).unwrap_or(u64::MAX);
        let at = bench.address(frame)?;
        equal_at(references, counted, "the count in the descriptor", at)?;
    }
    let tail = bench.holder(range.last())?;
    equal(
        bench.model.vmemmap_pages(order) - 1,
        bench.state(tail)?.references.into(),
        "owners of the last tail frame",
    )?;
    bench.offline(region);
    Ok(())
}

pub(super) fn an_altmap_that_runs_out_leaves_nothing_behind<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let section = bench.model.section();
    let in_section = bench.pages(bench.blocks(section, 0, 1)?);
    let sections = altmap.reserved().frames() / in_section + 1;
    let range = bench.blocks(section, 0, sections)?;
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

pub(super) fn memory_of_an_altmap_at_the_last_frame_stays_when_a_region_goes<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let reserved = altmap(bench)?.reserved();
    let last = last_block(bench, bench.model.subsection())?;
    if bench.pages(reserved) + bench.pages(last) > reserved.frames() {
        return skip("the altmap is too small for its own descriptors and a few more");
    }
    let (own, device) = ([last], [reserved, last]);
    let plain = bench.pagemap(&own, Order::BASE)?;
    let region = bench.online(&plain)?;
    bench.depopulate(&plain, last)?;
    let pagemap = with_altmap(bench, &device, Order::BASE)?.with_huge_leaves(false);
    bench.populate(&pagemap, reserved)?;
    bench.populate(&pagemap, last)?;
    // In a gap of the region by now.
    bench.offline(region);
    bench.described(last, Order::BASE)?;
    bench.depopulate(&pagemap, last)?;
    bench.depopulate(&pagemap, reserved)?;
    bench.absent(last)
}
