//! One tail frame for all compound pages of an order and node.

use crate::bench::{Bench, part};
use crate::harness::Harness;
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal, equal_at, fail, skip};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::pagemap::{DevPagemap, Geometry, PagemapError, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{FoldError, OnlineError};

/// More tail frames than have room in the vmemmap itself.
const MANY_TAILS: u64 = 48;

/// A pagemap of `ranges`, used in compound pages of `order` that share one tail frame.
fn per_order<'r, H: Harness>(
    bench: &Bench<'_, H, Mask>,
    ranges: &'r [PfnRange],
    order: Order,
) -> Result<DevPagemap<'r>, Stop> {
    bench.sharing(ranges, order, Tails::PerOrder)
}

/// The frame of all tails of `range`, compound pages of `order` with vmemmap pages of their own.
fn tail_of<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    range: PfnRange,
    order: Order,
) -> Result<Pfn, Stop> {
    let tail = bench.holder(bench.frame_of_page(range, 1))?;
    let per_compound = bench.model.vmemmap_pages(order);
    for page in (0..bench.pages(range)).filter(|page| page % per_compound != 0) {
        let frame = bench.frame_of_page(range, page);
        let holder = bench.holder(frame)?;
        equal_at(tail.get(), holder.get(), "one tail", bench.address(frame)?)?;
    }
    Ok(tail)
}

/// How many vmemmap pages of `range` are of tails.
fn tails<H: Harness>(bench: &Bench<'_, H, Mask>, range: PfnRange, order: Order) -> u64 {
    bench.pages(range) - range.frames() / order.frames()
}

fn has_references<H: Harness>(bench: &Bench<'_, H, Mask>, frame: Pfn, references: u64) -> Verdict {
    if references == 0 {
        return bench.is_free(frame, "owners of the tail frame");
    }
    let found = bench.references(frame).unwrap_or(0);
    equal(references, found, "owners of the tail frame")
}

pub(super) fn one_tail_frame_serves_all_compound_pages_of_an_order<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    for (order, count) in [(Some(small), 5), (bench.large().ok(), 2)] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order, 0, count)?;
        let ranges = [range];
        for piece in super::online::PIECES {
            let pagemap = per_order(bench, &ranges, order)?.with_piece(piece);
            let region = bench.online(&pagemap)?;
            ensure(
                region.notes().is_empty(),
                "nothing is done otherwise than asked",
            )?;
            bench.costs(count + 1, bench.pages(range))?;
            let tail = tail_of(bench, range, order)?;
            has_references(bench, tail, tails(bench, range, order))?;
            for index in 0..count {
                let head = bench.holder(bench.blocks(order, index, 1)?.start())?;
                equal(1, bench.references(head).unwrap_or(0), "owners of a head")?;
            }
            bench.offline(region);
            bench.absent(range)?;
        }
    }
    Ok(())
}

pub(super) fn heads_are_found_on_a_tail_for_all<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    let unit = bench.model.subsection();
    // Half of two vmemmap pages is worth sharing as well.
    let pair = Order::new(bench.model.vmemmap_page_order().get() + 1).unwrap_or(small);
    for order in [Some(pair), Some(small), bench.large().ok()] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order.max(unit), 0, 2)?;
        let ranges = [range];
        let region = bench.online(&per_order(bench, &ranges, order)?)?;
        let heads = range.frames() / order.frames();
        bench.costs(heads + 1, bench.pages(range))?;
        if order <= small {
            bench.described_as_new(range, order)?;
        } else {
            bench.described(range, order)?;
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn a_misaligned_range_never_breaks_heads_found_by_a_mask<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.large()?;
    let all = bench.blocks(order, 0, 3)?;
    let section = bench.model.section().frames();
    // As a device may lie: from a section on, but not from a compound page on.
    let misaligned = part(all, section, all.frames() - 2 * section);
    let ranges = [misaligned];
    let refused = DevPagemap::new(&bench.model, &ranges, Geometry::compound(order)).err();
    let Some(PagemapError::Misaligned {
        aligned: Some(aligned),
        ..
    }) = refused
    else {
        return fail("the aligned part is named");
    };
    ensure(
        aligned == bench.blocks(order, 1, 1)?,
        "it is all whole compound pages that there are",
    )?;
    let ranges = [aligned];
    for tails in [Tails::PerOrder, Tails::PerCompound] {
        let region = bench.online(&bench.sharing(&ranges, order, tails)?)?;
        bench.described(aligned, order)?;
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn the_last_user_of_a_tail_frees_it_and_the_next_gets_a_new_one<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let (first, second) = (bench.blocks(order, 0, 2)?, bench.blocks(order, 3, 1)?);
    let (first_ranges, second_ranges) = ([first], [second]);
    let one = bench.online(&per_order(bench, &first_ranges, order)?)?;
    let tail = tail_of(bench, first, order)?;
    let other = bench.online(&per_order(bench, &second_ranges, order)?)?;
    // The second pagemap has found it.
    equal(
        tail.get(),
        tail_of(bench, second, order)?.get(),
        "the tail frame",
    )?;
    let pages = bench.pages(second);
    bench.costs(4, bench.pages(first) + pages)?;
    has_references(
        bench,
        tail,
        tails(bench, first, order) + tails(bench, second, order),
    )?;
    bench.offline(one);
    bench.costs(2, pages)?;
    has_references(bench, tail, tails(bench, second, order))?;
    bench.described(second, order)?;
    bench.offline(other);
    has_references(bench, tail, 0)?;

    // Nothing remembers the frame, whatever it is now.
    let reused = bench.reuse_frame(tail)?;
    let again = bench.online(&per_order(bench, &first_ranges, order)?)?;
    let new = tail_of(bench, first, order)?;
    let described = bench.described(first, order);
    let references = has_references(bench, new, tails(bench, first, order));
    bench.offline(again);
    if let Some(reused) = reused {
        has_references(bench, tail, 1)?;
        bench.give_back(reused)?;
        ensure(new != tail, "a frame that is somebody else's is not used")?;
    }
    described.and(references)
}

pub(super) fn shared_tails_are_read_only<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    // Without another reader, the page table's own word for it would have to do.
    bench.seen(range.start())?;
    let ranges = [range];
    let per_compound = bench.model.vmemmap_pages(order);
    for tails in [Tails::PerOrder, Tails::PerCompound] {
        let region = bench.online(&bench.sharing(&ranges, order, tails)?)?;
        for page in 0..bench.pages(range) {
            let frame = bench.frame_of_page(range, page);
            let at = bench.address(frame)?;
            let is_head = page % per_compound == 0;
            let writable = is_head || tails == Tails::PerCompound;
            let seen = bench.seen(frame)?.map(|seen| seen.writable);
            ensure_at(
                seen == Some(writable),
                "what all share is read-only, and nothing else",
                at,
            )?;
            let said = bench
                .table
                .lookup(at)
                .mapping()
                .map(|mapping| mapping.leaf.writable);
            ensure_at(said == seen, "the page table says so too", at)?;
        }
        bench.offline(region);
    }
    Ok(())
}

pub(super) fn two_orders_have_two_tails<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let small = bench.small();
    let Some(larger) = Order::new(small.get() + 1) else {
        return skip("there is no larger order");
    };
    let first = bench.blocks(larger, 0, 1)?;
    let second = bench.blocks(larger, 1, 1)?;
    let (first_ranges, second_ranges) = ([first], [second]);
    let one = bench.online(&per_order(bench, &first_ranges, small)?)?;
    let other = bench.online(&per_order(bench, &second_ranges, larger)?)?;
    bench.costs(2 + 1 + 1 + 1, bench.pages(first) + bench.pages(second))?;
    let tails = (
        tail_of(bench, first, small)?,
        tail_of(bench, second, larger)?,
    );
    ensure(tails.0 != tails.1, "each order has a tail frame")?;
    bench.described_as_new(first, small)?;
    bench.described_as_new(second, larger)?;
    bench.offline(one);
    bench.described(second, larger)?;
    bench.offline(other);
    Ok(())
}

pub(super) fn two_nodes_have_two_tails<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let order = bench.small();
    let first = bench.blocks(order, 0, 1)?;
    let second = bench.blocks(order, 1, 1)?;
    let (first_ranges, second_ranges) = ([first], [second]);
    let one = bench.online(&per_order(bench, &first_ranges, order)?)?;
    let node = bench.other_node();
    let pagemap = per_order(bench, &second_ranges, order)?.with_node(node);
    let other = bench.online(&pagemap)?;
    bench.costs(4, bench.pages(first) + bench.pages(second))?;
    let tails = (
        tail_of(bench, first, order)?,
        tail_of(bench, second, order)?,
    );
    ensure(tails.0 != tails.1, "each node has a tail frame")?;
    for (range, node) in [(first, bench.node), (second, node)] {
        bench.described(range, order)?;
        let found = bench.descriptor(range.last())?.node();
        equal(
            node.number().into(),
            found.number().into(),
            "the node that a tail says",
        )?;
    }
    bench.offline(one);
    bench.described(second, order)?;
    bench.offline(other);
    Ok(())
}

pub(super) fn a_tail_for_all_is_not_taken_for_a_compound_pages_own<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.large()?;
    let range = bench.blocks(order, 0, 1)?;
    let section = bench.model.section().frames();
    let (first, second) = (part(range, 0, section), part(range, section, section));
    let ranges = [range];
    let for_all = per_order(bench, &ranges, order)?;
    let own = bench.sharing(&ranges, order, Tails::PerCompound)?;
    for (one, other) in [(&for_all, &own), (&own, &for_all)] {
        bench.populate(one, first)?;
        bench.populate(other, second)?;
        // A head and two tail frames.
        bench.costs(3, bench.pages(first) + bench.pages(second))?;
        bench.described(first, order)?;
        bench.described(second, order)?;
        bench.depopulate(one, first)?;
        bench.described(second, order)?;
        bench.depopulate(other, second)?;
    }
    Ok(())
}

pub(super) fn a_failed_online_leaves_no_tail_for_all_behind<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let order = bench.small();
    let in_section = bench.model.section().frames() / order.frames();
    let range = bench.blocks(order, in_section - 1, 2)?;
    let ranges = [range];
    for piece in super::online::PIECES {
        let pagemap = per_order(bench, &ranges, order)?.with_piece(piece);
        super::failures::online_fails_whole(bench, &pagemap, range)?;
    }
    // The same while somebody else uses the tail frame.
    let others = [bench.blocks(order, in_section + 2, 1)?];
    let region = bench.online(&per_order(bench, &others, order)?)?;
    let tail = tail_of(bench, others[0], order)?;
    let pagemap = per_order(bench, &ranges, order)?;
    super::failures::online_fails_whole(bench, &pagemap, range)?;
    has_references(bench, tail, tails(bench, others[0], order))?;
    bench.described(others[0], order)?;
    bench.offline(region);
    Ok(())
}

pub(super) fn any_number_of_tails_is_shared<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let order = bench.small();
    let ranges = [bench.blocks(order, 0, 2 * MANY_TAILS)?];
    let node = bench.node.number();
    let pagemap = per_order(bench, &ranges, order)?;
    let on_node = |index: u64| pagemap.with_node(NodeId::new(node ^ index as u32));
    let pages = bench.model.vmemmap_pages(order);
    for index in 0..MANY_TAILS {
        bench.populate(&on_node(index), bench.blocks(order, index, 1)?)?;
    }
    bench.costs(2 * MANY_TAILS, MANY_TAILS * pages)?;
    // Each of them is found again, whichever came first.
    for index in (0..MANY_TAILS).rev() {
        let piece = bench.blocks(order, MANY_TAILS + index, 1)?;
        bench.populate(&on_node(index), piece)?;
    }
    bench.costs(3 * MANY_TAILS, 2 * MANY_TAILS * pages)?;
    for index in 0..MANY_TAILS {
        bench.depopulate(&on_node(index), bench.blocks(order, index, 1)?)?;
    }
    bench.costs(2 * MANY_TAILS, MANY_TAILS * pages)?;
    for index in 0..MANY_TAILS {
        let piece = bench.blocks(order, MANY_TAILS + index, 1)?;
        bench.depopulate(&on_node(index), piece)?;
    }
    equal(
        0,
        bench.audit()?.record_frames,
        "frames for records of nothing",
    )?;
    bench.absent(ranges[0])
}

pub(super) fn tails_that_name_their_head_are_not_shared_by_all<H: Harness>(
    bench: &mut Bench<'_, H>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 1)?;
    let ranges = [range];
    let pagemap = bench.sharing(&ranges, order, Tails::PerOrder)?;
    let refused = bench.try_online(&pagemap).err();
    ensure(
        refused == Some(OnlineError::TailsDiffer),
        "pointers cannot be the same for all",
    )?;
    let refused = bench.vmemmap.populate(bench.table, &pagemap, range).err();
    ensure(
        refused == Some(OnlineError::TailsDiffer),
        "pointers cannot be the same for all",
    )?;
    bench.absent(range)?;
    let region = bench.online(&bench.pagemap(&ranges, Order::BASE)?)?;
    let refused = bench.try_fold(&pagemap, range).err();
    ensure(
        refused == Some(FoldError::TailsDiffer),
        "pointers cannot be the same for all",
    )?;
    bench.described(range, Order::BASE)?;
    bench.offline(region);
    Ok(())
}
