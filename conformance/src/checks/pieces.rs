//! Memory that comes and goes piece by piece.

use crate::bench::Bench;
use crate::harness::Harness;
use crate::outcome::{Verdict, equal, skip};
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::Piece;

/// The orders in which the eight sections of a large compound page come.
const ORDERS: [[u64; 8]; 4] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [7, 6, 5, 4, 3, 2, 1, 0],
    [3, 0, 7, 1, 5, 2, 4, 6],
    [4, 6, 2, 0, 7, 5, 3, 1],
];

/// The sections of the compound page at `range`.
fn section<H: Harness>(bench: &Bench<'_, H>, range: PfnRange, index: u64) -> PfnRange {
    let frames = bench.model.section().frames();
    let (_, rest) = range.split_at(index * frames);
    rest.unwrap_or(range).take_first(frames).0
}

pub(super) fn pieces_in_any_order_share_one_tail<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    for sequence in ORDERS {
        let mut pages = 0;
        let mut has_head = 0;
        for index in sequence {
            let piece = section(bench, range, index);
            bench.populate(&pagemap, piece)?;
            pages += bench.pages(piece);
            has_head |= u64::from(index == 0);
            bench.costs(1 + has_head, pages)?;
        }
        bench.described(range, order)?;
        for index in sequence {
            bench.depopulate(&pagemap, section(bench, range, index))?;
        }
        bench.absent(range)?;
    }
    Ok(())
}

pub(super) fn the_last_piece_to_go_takes_the_tail_with_it<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    for sequence in ORDERS {
        let region = bench.online(&pagemap)?;
        let mut pages = bench.pages(range);
        let mut has_head = 1;
        for index in sequence {
            let piece = section(bench, range, index);
            bench.depopulate(&pagemap, piece)?;
            bench.absent(piece)?;
            pages -= bench.pages(piece);
            if index == 0 {
                has_head = 0;
            }
            bench.costs(has_head + u64::from(pages > 0), pages)?;
        }
        // All of it is gone: nothing is left to do.
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_tail_of_another_compound_page_is_not_reused<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.large()?;
    let ranges = [bench.blocks(order, 0, 2)?];
    let pagemap = bench.pagemap(&ranges, order)?;
    // The end of one compound page, then the start of the next.
    let first = bench.blocks(order, 0, 1)?;
    let second = bench.blocks(order, 1, 1)?;
    for (one, other) in [
        (section(bench, first, 7), section(bench, second, 0)),
        (section(bench, second, 0), section(bench, first, 7)),
    ] {
        bench.populate(&pagemap, one)?;
        bench.populate(&pagemap, other)?;
        bench.costs(3, bench.pages(one) + bench.pages(other))?;
        bench.described(one, order)?;
        bench.described(other, order)?;
        bench.depopulate(&pagemap, one)?;
        bench.described(other, order)?;
        bench.depopulate(&pagemap, other)?;
    }
    // Tails of smaller compound pages in the place of the large one's, with the same head.
    let small = bench.small();
    let smaller = bench.pagemap(&ranges, small)?;
    let unit = small.max(bench.model.subsection());
    let start = bench.blocks(unit, 0, 1)?;
    let start = PfnRange::new(first.start(), start.frames()).unwrap_or(start);
    let (_, rest) = section(bench, first, 0).split_at(start.frames());
    let Some(rest) = rest else {
        return skip("a section is one small compound page");
    };
    bench.populate(&smaller, start)?;
    bench.populate(&pagemap, rest)?;
    bench.costs(3, bench.pages(start) + bench.pages(rest))?;
    bench.described(start, small)?;
    let frame = rest.start();
    let head = bench.vmemmap.head_of(&*bench.table, frame);
    equal(
        first.start().get(),
        head.map_or(u64::MAX, Pfn::get),
        "head_of",
    )?;
    bench.depopulate(&smaller, start)?;
    bench.depopulate(&pagemap, rest)
}

pub(super) fn the_last_section_of_a_region_does_not_leak<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let unit = bench.small();
    let section = bench.model.section();
    let in_section = section.frames() / unit.frames();
    // Starts and ends in the middle of a section.
    let ranges = [bench.blocks(unit, in_section - 1, in_section + 2)?];
    for order in [unit, Order::BASE] {
        for piece in [Piece::Subsection, Piece::Section, Piece::Range] {
            let pagemap = bench.pagemap(&ranges, order)?.with_piece(piece);
            let region = bench.online(&pagemap)?;
            for range in ranges {
                bench.described(range, order)?;
            }
            bench.offline(region);
            equal(0, bench.audit()?.frames(), "frames that stay")?;
            for range in ranges {
                bench.absent(range)?;
            }
        }
    }
    Ok(())
}

pub(super) fn a_piece_can_go_and_come_back<H: Harness>(bench: &mut Bench<'_, H>) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let pagemap = bench.pagemap(&ranges, order)?;
    let region = bench.online(&pagemap)?;
    for index in [0, 3, 7] {
        let piece = section(bench, range, index);
        bench.depopulate(&pagemap, piece)?;
        bench.absent(piece)?;
        bench.populate(&pagemap, piece)?;
        bench.costs(2, bench.pages(range))?;
        bench.described(range, order)?;
    }
    bench.offline(region);
    bench.absent(range)
}
