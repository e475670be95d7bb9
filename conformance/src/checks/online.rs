//! What online memory looks like and costs.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Verdict, ensure, ensure_at, equal, equal_at, skip};
use mm_core::addr::{Order, Pfn};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::frame::InspectFrames;
use mm_core::pagemap::Piece;
use mm_core::paging::PageTable;

pub(super) const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

pub(super) fn base_pages_cost_a_frame_each<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let range = bench.blocks(bench.model.section(), 0, 1)?;
    let pages = bench.pages(range);
    for piece in PIECES {
        for huge in [false, true] {
            let ranges = [range];
            let pagemap = bench.pagemap(&ranges, Order::BASE)?;
            let region = bench.online(&pagemap.with_piece(piece).with_huge_leaves(huge))?;
            bench.costs(pages, pages)?;
            bench.described(range, Order::BASE)?;
            for page in 0..if huge { 0 } else { pages } {
                let frame = bench.frame_of_page(range, page);
                let holder = bench.holder(frame)?;
                let references = bench.references(holder).unwrap_or(0);
                equal_at(1, references, "owners", bench.address(frame)?)?;
            }
            bench.offline(region);
            bench.absent(range)?;
        }
    }
    Ok(())
}

pub(super) fn compound_pages_cost_two_frames_each<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let small = bench.small();
    for (order, count) in [(Some(small), 9), (bench.large().ok(), 1)] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order, 0, count)?;
        for piece in PIECES {
            let ranges = [range];
            let pagemap = bench.pagemap(&ranges, order)?.with_piece(piece);
            let region = bench.online(&pagemap)?;
            ensure(
                region.notes().is_empty(),
                "nothing is done otherwise than asked",
            )?;
            bench.costs(2 * count, bench.pages(range))?;
            bench.offline(region);
            bench.absent(range)?;
        }
    }
    Ok(())
}

pub(super) fn tails_are_shared_within_a_compound_page_and_nowhere_else<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.small();
    let ranges = [bench.blocks(order, 0, 3)?];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    let mut earlier: [Option<Pfn>; 6] = [None; 6];
    let mut known = 0;
    for compound in 0..3 {
        let compound = bench.blocks(order, compound, 1)?;
        let head = bench.holder(compound.start())?;
        let tail = bench.holder(bench.frame_of_page(compound, 1))?;
        let tails = bench.pages(compound) - 1;
        for page in 1..=tails {
            let frame = bench.frame_of_page(compound, page);
            let holder = bench.holder(frame)?;
            equal_at(tail.get(), holder.get(), "one tail", bench.address(frame)?)?;
        }
        equal(
            1,
            bench.references(head).unwrap_or(0),
            "owners of a head page",
        )?;
        equal(
            tails,
            bench.references(tail).unwrap_or(0),
            "owners of a tail page",
        )?;
        for frame in [head, tail] {
            ensure(
                !earlier.contains(&Some(frame)),
                "no frame is shared with another compound page",
            )?;
            if let Some(slot) = earlier.get_mut(known) {
                *slot = Some(frame);
                known += 1;
            }
        }
    }
    bench.offline(region);
    Ok(())
}

pub(super) fn every_descriptor_finds_its_head_by_a_pointer<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    every_descriptor_finds_its_head(bench)
}

pub(super) fn every_descriptor_finds_its_head_by_a_mask<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    every_descriptor_finds_its_head(bench)
}

fn every_descriptor_finds_its_head<H: Harness, E: TailEncoding>(
    bench: &mut Bench<'_, H, E>,
) -> Verdict {
    let small = bench.small();
    // The smallest compound page there is, which shares nothing, as well.
    let pair = Order::new(1).unwrap_or(small);
    for order in [Some(pair), Some(small), bench.large().ok()] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order.max(bench.model.subsection()), 0, 2)?;
        let ranges = [range];
        let pagemap = bench.pagemap(&ranges, order)?;
        let region = bench.online(&pagemap)?;
        bench.described(range, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn descriptors_are_not_executable<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 1)?;
    if bench.seen(range.start())?.is_some() {
        return crate::outcome::fail("nothing is mapped at first");
    }
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    for page in 0..bench.pages(range) {
        let frame = bench.frame_of_page(range, page);
        let at = bench.address(frame)?;
        let seen = bench.seen(frame)?;
        ensure_at(seen.is_some(), "descriptors are mapped", at)?;
        let right = seen.is_some_and(|seen| !seen.executable && seen.writable);
        ensure_at(right, "rights are those of data", at)?;
    }
    bench.offline(region);
    Ok(())
}

pub(super) fn present_and_valid_are_the_same_for_online_memory<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.model.subsection();
    let all = bench.blocks(unit, 0, 3)?;
    let middle = bench.blocks(unit, 1, 1)?;
    let Some(vmemmap) = bench.model.descriptors(all) else {
        return skip("the device's memory has no room in the vmemmap");
    };
    ensure(
        bench.table.first_in_use(vmemmap).is_none(),
        "nothing is in use",
    )?;
    let ranges = [middle];
    let pagemap = bench.pagemap(&ranges, Order::BASE)?;
    let region = bench.online(&pagemap)?;
    let start = bench.address(middle.start())?;
    let in_use = bench.table.first_in_use(vmemmap);
    ensure_at(in_use == Some(start), "the first page in use", start)?;
    for frame in 0..all.frames() {
        let frame = all.start().saturating_add(frame);
        let valid = bench.vmemmap.is_valid(&*bench.table, frame);
        let at = bench.address(frame)?;
        equal_at(middle.contains(frame).into(), valid.into(), "valid", at)?;
        equal_at(
            middle.contains(frame).into(),
            bench
                .vmemmap
                .descriptor(&*bench.table, frame)
                .is_some()
                .into(),
            "has a descriptor",
            at,
        )?;
        if let Some(seen) = bench.controls.translate(bench.table, at) {
            equal_at(valid.into(), seen.is_some().into(), "present", at)?;
        }
    }
    bench.offline(region);
    bench.absent(all)
}

pub(super) fn several_ranges_are_one_region<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let order = bench.small();
    let section = bench.model.section();
    // Out of order, apart, and two that touch across a section's end.
    let last = bench.blocks(order, section.frames() / order.frames(), 1)?;
    let before = bench.blocks(order, section.frames() / order.frames() - 1, 1)?;
    let ranges = [last, bench.blocks(order, 0, 1)?, before];
    for piece in PIECES {
        let pagemap = bench.pagemap(&ranges, order)?.with_piece(piece);
        let region = bench.online(&pagemap)?;
        bench.costs(6, 3 * bench.pages(last))?;
        for range in ranges {
            bench.described(range, order)?;
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn tables_are_counted_as_frames<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let Some(before) = bench.frames.outstanding() else {
        return skip("the allocator does not count what is out");
    };
    let order = bench.small();
    let ranges = [bench.blocks(order, 0, 1)?];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    let report = bench.audit()?;
    let out = bench.frames.outstanding().unwrap_or(0) - before;
    equal(
        2 + report.leaf_tables + report.upper_tables,
        out,
        "frames that are out",
    )?;
    bench.offline(region);
    Ok(())
}
