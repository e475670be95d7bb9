//! The ends of the vmemmap, and the root of the tables.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure_at, equal, skip};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;

/// Brings `range`, compound pages of `order`, online and offline.
fn comes_and_goes<H: Harness>(bench: &mut Bench<'_, H>, range: PfnRange, order: Order) -> Verdict {
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    bench.described(range, order)?;
    for frame in [range.start(), range.last()] {
        let at = bench.address(frame)?;
        let back = bench.vmemmap.frame_of_descriptor(at);
        ensure_at(back == Some(frame), "address and frame are one to one", at)?;
    }
    bench.offline(region);
    bench.absent(range)
}

/// The last frames of the vmemmap, a block of `order`.
pub(super) fn last_block<H: Harness, E: TailEncoding>(
    bench: &Bench<'_, H, E>,
    order: Order,
) -> Result<PfnRange, Stop> {
    if !bench.ends_are_free {
        return skip("the last frames are not free to be brought online");
    }
    let all = bench.model.all_frames();
    let start = all.last().get().checked_sub(order.frames() - 1);
    let start = start.and_then(Pfn::new);
    match start.map(|start| PfnRange::new(start, order.frames())) {
        Some(Ok(range)) if range.is_aligned(order) => Ok(range),
        Some(Ok(_)) => skip("the vmemmap does not end with a whole subsection"),
        _ => skip("the vmemmap is smaller than a subsection"),
    }
}

pub(super) fn the_first_frame_is_a_frame_like_any_other<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    if !bench.ends_are_free {
        return skip("the first frames are not free to be brought online");
    }
    let order = bench.small();
    for order in [Order::BASE, order] {
        let frames = order.max(bench.model.subsection()).frames();
        let Ok(range) = PfnRange::new(Pfn::ZERO, frames) else {
            return skip("the vmemmap is smaller than a subsection");
        };
        comes_and_goes(bench, range, order)?;
    }
    Ok(())
}

pub(super) fn the_last_frame_of_the_vmemmap_can_be_online<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let small = bench.small();
    for order in [Order::BASE, small] {
        let range = last_block(bench, order.max(bench.model.subsection()))?;
        comes_and_goes(bench, range, order)?;
        let at = bench.address(range.last())?;
        let beyond = range.last().checked_add(1);
        let beyond = beyond.and_then(|frame| bench.vmemmap.descriptor_address(frame));
        ensure_at(beyond.is_none(), "no descriptor lies beyond the last", at)?;
    }
    Ok(())
}

pub(super) fn other_roots_are_told_of_the_roots_entries<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let Some(before) = bench.controls.root_changes() else {
        return skip("the harness does not watch the root's entries");
    };
    let order = bench.small();
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    let online = bench.controls.root_changes().unwrap_or_default();
    equal(
        before.installed + 1,
        online.installed,
        "entries that became present",
    )?;
    equal(before.removed, online.removed, "entries that went")?;
    // A second region below the same entry changes nothing in the root.
    let others = [bench.blocks(order, 1, 1)?];
    let pagemap = bench.pagemap(&others, order)?;
    let other = bench.online(&pagemap)?;
    bench.offline(other);
    let still = bench.controls.root_changes().unwrap_or_default();
    equal(
        online.installed,
        still.installed,
        "entries that became present",
    )?;
    equal(online.removed, still.removed, "entries that went")?;
    bench.offline(region);
    let offline = bench.controls.root_changes().unwrap_or_default();
    equal(before.removed + 1, offline.removed, "entries that went")
}
