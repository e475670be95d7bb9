//! Heads that are packed into an array of their own, and stubs in their place.

use crate::bench::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, ensure, ensure_at, equal_at, fail, skip};
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Descriptor, Mask, Page};
use mm_core::frame::DirectMap;
use mm_core::pagemap::{DevPagemap, Heads, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::FoldError;

/// A pagemap of `ranges`, used in compound pages of `order` whose heads are packed.
fn packed<'r, H: Harness>(
    bench: &Bench<'_, H, Mask>,
    ranges: &'r [PfnRange],
    order: Order,
) -> Result<DevPagemap<'r>, Stop> {
    match bench.model.can_pack_heads(order) {
        true => Ok(bench.pagemap(ranges, order)?.with_heads(Heads::Packed)),
        false => skip("the model has no place for packed heads"),
    }
}

/// Where the head of the page of `order` is that begins with `first`.
fn place<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    first: Pfn,
    order: Order,
) -> Result<VirtAddr, Stop> {
    let Some(heads) = bench.model.heads() else {
        return skip("the model has no place for packed heads");
    };
    let room = bench.model.all_frames().frames().next_power_of_two();
    let index = (room + first.get()) / order.frames();
    let offset = index * bench.model.descriptor_bytes();
    Ok(VirtAddr::new(heads.start().get() + offset))
}

/// The frame that is mapped at `at`, a place, if any is: by the page table, and by the independent reader
/// where there is one.
fn holder_at<H: Harness>(bench: &Bench<'_, H, Mask>, at: VirtAddr) -> Result<Option<Pfn>, Stop> {
    let found = bench.table.lookup(at).mapping();
    let found = found.and_then(|found| found.frame_of(at, bench.model.granule()));
    if let Some(seen) = bench.controls.translate(bench.table, at) {
        let number = |frame: Option<Pfn>| frame.map_or(u64::MAX, Pfn::get);
        let by_reader = number(seen.map(|seen| seen.frame));
        equal_at(
            number(found),
            by_reader,
            "both readers find the same frame",
            at,
        )?;
        let usable = seen.is_none_or(|seen| seen.writable && !seen.executable);
        ensure_at(usable, "heads can be stored to", at)?;
    }
    Ok(found)
}

/// The head of the page of `order` that begins with `first`, at its place.
fn head<'b, H: Harness>(
    bench: &'b Bench<'_, H, Mask>,
    first: Pfn,
    order: Order,
) -> Result<&'b Page<Mask>, Stop> {
    let at = place(bench, first, order)?;
    let Some(holder) = holder_at(bench, at)? else {
        ensure_at(false, "a page that is online has a head", at)?;
        return fail("a page that is online has a head");
    };
    let index = at.get() / bench.model.descriptor_bytes();
    let index = index & (bench.model.descriptors_per_page() - 1);
    let page = bench.direct_map.frame_pointer(holder).cast::<Page<Mask>>();
    // SAFETY: the frame is mapped by the library as a page of descriptors, which fit it exactly; descriptors are
    // only shared.
    let head = unsafe { page.add(index as usize).as_ref() };
    equal_at(order.get().into(), head.order().get().into(), "order", at)?;
    ensure_at(!head.is_tail(), "a head is none of the tails", at)?;
    let found = bench.vmemmap.descriptor(&*bench.table, first);
    let found = found.and_then(|found| found.own().map(core::ptr::from_ref));
    ensure_at(
        found == Some(core::ptr::from_ref(head)),
        "it is the descriptor of the page's first frame",
        at,
    )?;
    Ok(head)
}

/// How many pages the heads of `frames`, pages of `order`, are in.
fn pages_of_heads<H: Harness>(
    bench: &Bench<'_, H, Mask>,
    frames: PfnRange,
    order: Order,
) -> Result<u64, Stop> {
    let page = bench.model.granule().bytes();
    let first = place(bench, frames.start(), order)?.get() / page;
    let last = place(bench, frames.last().align_down(order), order)?.get() / page;
    Ok(last - first + 1)
}

/// Checks that every vmemmap page of `frames` is mapped to one frame, read-only, that it leads to its page, and
/// that the pages have heads nobody has used yet.
fn is_packed<H: Harness>(bench: &Bench<'_, H, Mask>, frames: PfnRange, order: Order) -> Verdict {
    let stubs = bench.holder(frames.start())?;
    for page in 0..bench.pages(frames) {
        let frame = bench.frame_of_page(frames, page);
        let at = bench.address(frame)?;
        let holder = bench.holder(frame)?;
        equal_at(stubs.get(), holder.get(), "one frame of stubs", at)?;
        let writable = bench.table.lookup(at).mapping();
        let writable = writable.is_some_and(|found| found.leaf.writable);
        ensure_at(!writable, "stubs are read-only", at)?;
        if let Some(seen) = bench.controls.translate(bench.table, at) {
            let writable = seen.is_some_and(|seen| seen.writable);
            ensure_at(!writable, "stubs are read-only", at)?;
        }
        let head_of = bench.vmemmap.head_of(&*bench.table, frame);
        let head_of = head_of.map_or(u64::MAX, Pfn::get);
        equal_at(frame.align_down(order).get(), head_of, "head_of", at)?;
    }
    for index in 0..frames.frames() / order.frames() {
        let first = frames.start().saturating_add(index * order.frames());
        let references = head(bench, first, order)?.references().get();
        let at = place(bench, first, order)?;
        equal_at(
            1,
            references.unwrap_or(0).into(),
            "references of a head",
            at,
        )?;
    }
    let references = bench.references(stubs).unwrap_or(0);
    ensure(references >= bench.pages(frames), "each stub is counted")
}

pub(super) fn packed_heads_lie_side_by_side_and_all_else_is_one_frame<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let small = bench.small();
    for (order, count) in [(Some(small), 5), (bench.large().ok(), 2)] {
        let Some(order) = order else { continue };
        let range = bench.blocks(order, 0, count)?;
        let ranges = [range];
        let heads = pages_of_heads(bench, range, order)?;
        for piece in super::online::PIECES {
            let pagemap = packed(bench, &ranges, order)?.with_piece(piece);
            let region = bench.online(&pagemap)?;
            ensure(
                region.notes().is_empty(),
                "nothing is done otherwise than asked",
            )?;
            bench.costs(heads + 1, bench.pages(range) + heads)?;
            is_packed(bench, range, order)?;
            let [first, last] = [range.start(), range.last()];
            let first = place(bench, first, order)?;
            let last = place(bench, last.align_down(order), order)?;
            if let Some(places) = VirtRange::between(first, last) {
                bench.controls.speculate(bench.table, places);
            }
            bench.offline(region);
            bench.absent(range)?;
            for index in 0..count {
                let at = place(bench, bench.blocks(order, index, 1)?.start(), order)?;
                let found = holder_at(bench, at)?;
                ensure_at(found.is_none(), "heads go with their pages", at)?;
            }
        }
    }
    Ok(())
}

pub(super) fn neighbours_of_a_packed_head_keep_what_the_kernel_wrote<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    let pagemap = packed(bench, &ranges, order)?;
    let mut firsts = [Pfn::ZERO; 3];
    for (first, index) in firsts.iter_mut().zip(0..) {
        *first = bench.blocks(order, index, 1)?.start();
    }
    let mut online = [false; 3];
    for page in [1, 0, 2, 1, 0, 2] {
        let piece = bench.blocks(order, page as u64, 1)?;
        match online[page] {
            false => {
                bench.populate(&pagemap, piece)?;
                let flags = head(bench, piece.start(), order)?.flags();
                flags.store(piece.start().get() | 1, Ordering::Relaxed);
            }
            true => bench.depopulate(&pagemap, piece)?,
        }
        online[page] = !online[page];
        for (first, online) in firsts.iter().zip(online) {
            if online {
                let found = head(bench, *first, order)?.flags().load(Ordering::Relaxed);
                let at = place(bench, *first, order)?;
                equal_at(first.get() | 1, found, "what the kernel wrote", at)?;
            }
        }
        bench.audit()?;
    }
    bench.absent(range)
}

pub(super) fn a_failed_online_leaves_no_packed_head_behind<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_faults()?;
    let order = bench.small();
    let range = bench.blocks(order, 0, 3)?;
    let ranges = [range];
    for piece in super::online::PIECES {
        let pagemap = packed(bench, &ranges, order)?.with_piece(piece);
        super::failures::online_fails_whole(bench, &pagemap, range)?;
    }
    Ok(())
}

pub(super) fn packed_pages_keep_their_order<H: Harness>(bench: &mut Bench<'_, H, Mask>) -> Verdict {
    let order = bench.small();
    let range = bench.blocks(order, 0, 2)?;
    let ranges = [range];
    let pagemap = packed(bench, &ranges, order)?;
    let region = bench.online(&pagemap)?;
    let in_place = bench.sharing(&ranges, order, Tails::PerOrder)?;
    let first = range.start();
    for pagemap in [&in_place, &pagemap] {
        for refused in [
            bench.try_fold(pagemap, range),
            bench.try_unfold(pagemap, range),
        ] {
            ensure(
                refused.map(drop) == Err(FoldError::HeadsPacked { first }),
                "packed heads stay where they are",
            )?;
        }
    }
    is_packed(bench, range, order)?;
    bench.offline(region);
    bench.absent(range)
}

/// What pages of some order have.
#[derive(Clone, Copy)]
enum Kind {
    Packed,
    InPlace,
    /// They are base pages.
    Base,
}

/// The pages of `range` become such pages of `order`, and cost what they should. What the kernel wrote into the first head
/// is still there.
// Not inlined: a kernel has a small stack, and there is one pagemap on it at a time.
#[inline(never)]
fn changes_to<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
    (kind, order): (Kind, Order),
    range: PfnRange,
    largest: Order,
) -> Verdict {
    let ranges = [range];
    let pagemap = match kind {
        Kind::Packed => packed(bench, &ranges, order)?,
        Kind::InPlace => bench.sharing(&ranges, order, Tails::PerOrder)?,
        Kind::Base => {
            let base = bench.sharing(&ranges, Order::BASE, Tails::None)?;
            base.with_huge_leaves(false)
        }
    };
    let pagemap = &pagemap;
    let done = bench.reorder(pagemap, range, largest)?;
    ensure(
        done.notes.is_empty(),
        "nothing is done otherwise than asked",
    )?;
    let first = range.start();
    let pages = bench.pages(range);
    let flags = match pagemap.heads().0 {
        Heads::Packed => {
            let heads = pages_of_heads(bench, range, order)?;
            bench.costs(heads + 1, pages + heads)?;
            is_packed(bench, range, order)?;
            head(bench, first, order)?.flags()
        }
        _ => {
            let own = match pagemap.tails().0 {
                Tails::PerOrder => range.frames() / order.frames() + 1,
                _ => pages,
            };
            bench.costs(own, pages)?;
            bench.descriptor(first)?.flags()
        }
    };
    let found = flags.load(Ordering::Relaxed);
    equal_at(KEPT, found, "what the kernel wrote", bench.address(first)?)
}

/// What the kernel writes.
const KEPT: u64 = 0x1234;

pub(super) fn packed_pages_become_pages_of_another_order_and_what_they_were<H: Harness>(
    bench: &mut Bench<'_, H, Mask>,
) -> Verdict {
    bench.needs_replacement()?;
    let small = bench.small();
    let large = super::reorder::four(bench)?;
    let range = bench.blocks(large, 0, 2)?;
    let ranges = [range];
    let packed_large = packed(bench, &ranges, large)?;
    let region = bench.online(&packed_large)?;
    let flags = head(bench, range.start(), large)?.flags();
    flags.store(KEPT, Ordering::Relaxed);
    let packed_small = (Kind::Packed, small);
    let packed_large = (Kind::Packed, large);
    let in_place = (Kind::InPlace, large);
    let base = (Kind::Base, Order::BASE);
    for pages in [
        packed_small,
        packed_large,
        base,
        packed_small,
        in_place,
        packed_large,
        in_place,
        packed_small,
        base,
        packed_large,
    ] {
        changes_to(bench, pages, range, large)?;
    }
    bench.offline(region);
    bench.absent(range)?;
    for order in [small, large] {
        let at = place(bench, range.start(), order)?;
        let found = holder_at(bench, at)?;
        ensure_at(found.is_none(), "heads go with their pages", at)?;
    }
    Ok(())
}
