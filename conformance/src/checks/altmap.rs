//! Frames from the device itself.

use super::ends::last_block;
use crate::bench::{Bench, State};
use crate::harness::{AltmapUnderTest, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, fail, skip};
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

/// How many frames `altmap` can hand out.
pub(super) fn room(altmap: &dyn AltmapUnderTest) -> u64 {
    let reserved = altmap.reserved().frames();
    reserved.saturating_sub(altmap.count_frames())
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
        if bench.pages(range) > room(altmap) {
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
            equal(
                altmap.count_frames(),
                report.count_frames,
                "frames of counts",
            )?;
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

pub(super) fn no_store_to_descriptors_changes_the_counts_of_an_altmap<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let altmap = altmap(bench)?;
    let reserved = altmap.reserved();
    let order = bench.small();
    let units = reserved.frames().div_ceil(order.frames());
    let range = bench.blocks(order, 0, units + 2)?;
    let ranges = [range];
    let region = bench.online(&with_altmap(bench, &ranges, order)?)?;
    for frame in reserved {
        let at = bench.address(frame)?;
        let handed_out = bench.vmemmap.descriptor(&*bench.table, frame).is_some();
        ensure_at(
            bench.vmemmap.is_reserved(frame) && !handed_out,
            "what is reserved is no page",
            at,
        )?;
        let new = State::new(true);
        ensure_at(
            bench.state(frame)? == new,
            "nobody has a reference to it",
            at,
        )?;
        let counted = altmap.references(frame);
        for references in [0, 1, u32::MAX] {
            bench.keep(frame, State { references, ..new })?;
            let references = altmap.references(frame);
            ensure_at(references == counted, "a count that nobody reaches", at)?;
        }
    }
    let tail = bench.holder(range.last())?;
    equal(
        bench.model.vmemmap_pages(order) - 1,
        altmap.references(tail).unwrap_or(0),
        "owners of the last tail frame",
    )?;
    bench.audit()?;
    bench.offline(region);
    equal(
        0,
        altmap.outstanding().unwrap_or(0),
        "frames out of the altmap",
    )
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
    let altmap = altmap(bench)?;
    let reserved = altmap.reserved();
    let last = last_block(bench, bench.model.subsection())?;
    if bench.pages(reserved) + bench.pages(last) > room(altmap) {
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
