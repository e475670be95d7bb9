//! A part of a page changes, and the rest becomes the largest pages that fit.

use super::{Form, NODE, reorder, without_allocator};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::{Heads, Tables, Tails};
use mm_core::vmemmap::{FoldError, ListedPage};
use testkit::testbed::{Costs, Setup, Sizes, Used};
use testkit::{OnBackend, on_backends};

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

/// The pages of `whole`, once `part` is in pages of `order`: as a buddy allocator halves a block until
/// the half that has the part is no larger than it has to be.
fn halved(whole: PfnRange, part: PfnRange, order: Order) -> Vec<PfnRange> {
    let size = whole.frames();
    if part.contains_range(whole) {
        let count = size >> order.get();
        let start = whole.start().get();
        return (0..count)
            .map(|index| frames(start + (index << order.get()), order.frames()))
            .collect();
    }
    if !part.overlaps(whole) {
        return vec![whole];
    }
    let (low, high) = whole.split_at(size / 2);
    let mut pages = halved(low.unwrap(), part, order);
    pages.extend(halved(high.unwrap(), part, order));
    pages
}

fn order_of(page: PfnRange) -> Order {
    Order::new(page.frames().trailing_zeros() as u8).unwrap()
}

fn the_rest_is_split_as_a_buddy_allocator_splits(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let costs = Costs::of(kind, &model);
    for (large, small) in [
        (sizes.table(), sizes.small()),
        (sizes.natural(), sizes.vmemmap_page()),
        (sizes.gigantic(), sizes.natural()),
    ] {
        let memory = sizes.blocks(large, 4, 2);
        let ranges = [memory];
        let first = memory.start().get();
        let step = small.frames();
        let in_large = large.frames() / step;
        let last = in_large - 1;
        // Within a page, at either end of it, and across two.
        for (start, count) in [
            (0, 1),
            (last, 1),
            (in_large / 3, 1),
            (1, 2),
            (in_large - 2, 3),
        ] {
            let count = count.min(2 * in_large - start);
            let part = frames(first + start * step, count * step);
            for tails in [Tails::PerCompound, Tails::PerOrder, Tails::None] {
                // As many frames as vmemmap pages.
                if tails == Tails::None && large != sizes.natural() {
                    continue;
                }
                for tables in [Tables::Private, Tables::Shared] {
                    let from = Form::new(large, tails, tables);
                    let to = Form::new(small, tails, tables);
                    kind.testbed(&Setup::new(&ranges), |bed| {
                        let (before, after) =
                            (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
                        let region = bed.online(&before).unwrap();
                        let report = bed.audit();
                        let done = reorder(bed, &after, part, large).unwrap();
                        assert_eq!(done.rest, None);
                        let mut pages = Vec::new();
                        for whole in [sizes.blocks(large, 4, 1), sizes.blocks(large, 5, 1)] {
                            match part.overlaps(whole) {
                                true => pages.extend(halved(whole, part, small)),
                                false => pages.push(whole),
                            }
                        }
                        let used: Vec<Used> = pages
                            .iter()
                            .map(|page| {
                                let form = Form {
                                    order: order_of(*page),
                                    ..to
                                };
                                form.used(*page)
                            })
                            .collect();
                        let shared = bed.shares_tables();
                        let tables = if shared { tables } else { Tables::Private };
                        let when = format!("{part} of {large} in {small}, {tails:?} {tables:?}");
                        if tails != Tails::None {
                            assert_eq!(bed.audit(), costs.report(&used, tables), "{when}");
                        }
                        bed.audit();
                        for page in &pages {
                            bed.assert_described(*page, order_of(*page));
                        }
                        let listed: Vec<ListedPage> = pages
                            .iter()
                            .map(|page| {
                                let order = order_of(*page);
                                let shares = tables == Tables::Shared && order >= sizes.gigantic();
                                let tails = costs.tails(order, tails);
                                ListedPage {
                                    heads: Heads::InPlace,
                                    first: page.start(),
                                    order,
                                    tails,
                                    tables: match shares && tails != Tails::None {
                                        true => Tables::Shared,
                                        false => Tables::Private,
                                    },
                                }
                            })
                            .collect();
                        assert_eq!(bed.pages(memory), listed, "{when}");
                        // From the middle of a page on, and beyond what is online.
                        let behind = frames(first + 1, memory.frames() + large.frames());
                        assert_eq!(bed.pages(behind), listed, "{when}");
                        // Memory with pages of many orders becomes one page again.
                        reorder(bed, &before, memory, large).map(drop).unwrap();
                        assert_eq!(bed.audit(), report, "{when}, and back");
                        bed.assert_described(memory, large);
                        bed.offline(region);
                    });
                }
            }
        }
    }
}

/// A few frames, fewer than one vmemmap page describes, and any number of them.
fn parts_smaller_than_a_vmemmap_page(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let large = sizes.natural();
    let memory = sizes.blocks(large, 4, 1);
    let ranges = [memory];
    let per_page = model.descriptors_per_page();
    let of_page = per_page.min(32);
    kind.testbed(&Setup::new(&ranges), |bed| {
        for (start, count, order) in [
            (0, 1, 0),
            (1, 1, 0),
            (of_page - 1, 1, 0),
            (per_page - 1, 1, 0),
            (per_page + 5, per_page, 0),
            (2, 2, 1),
            (per_page - 4, 8, 2),
        ] {
            let order = Order::new(order).unwrap();
            let part = frames(memory.start().get() + start, count);
            for tails in [Tails::PerCompound, Tails::PerOrder] {
                let from = Form::new(large, tails, Tables::Private);
                let to = Form::new(order, tails, Tables::Private);
                let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
                let region = bed.online(&before).unwrap();
                let report = bed.audit();
                reorder(bed, &after, part, large).map(drop).unwrap();
                bed.audit();
                for page in halved(memory, part, order) {
                    bed.assert_described(page, order_of(page));
                }
                // The same again changes nothing.
                let snapshot = bed.snapshot();
                let again = reorder(bed, &after, part, order).unwrap();
                assert_eq!(again.flushes, 0);
                bed.assert_unchanged(&snapshot, "the same again");
                reorder(bed, &before, memory, large).map(drop).unwrap();
                assert_eq!(bed.audit(), report);
                bed.offline(region);
            }
        }
    });
}

/// What is left to do after each step is what the next one is asked for.
fn steps_go_unit_by_unit_and_end(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.natural(), sizes.small());
    let memory = sizes.blocks(large, 4, 3);
    let ranges = [memory];
    let from = Form::new(large, Tails::PerOrder, Tables::Private);
    let to = Form::new(Order::BASE, Tails::PerOrder, Tables::Private);
    let _ = small;
    kind.testbed(&Setup::new(&ranges), |bed| {
        let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
        let region = bed.online(&before).unwrap();
        let needed = bed.reserve_needed(&after, memory, large);
        bed.fill_reserve(NODE, needed).map(drop).unwrap();
        let mut rest = Some(memory);
        let mut done = 0;
        while let Some(frames) = rest {
            let step = without_allocator(bed, |bed| bed.reorder_step(&after, frames)).unwrap();
            assert_eq!(step.units, 1);
            let left = step.rest.map_or(0, PfnRange::frames);
            assert_eq!(left, frames.frames() - large.frames());
            rest = step.rest;
            done += 1;
            let (changed, stays) = memory.split_at(done * large.frames());
            bed.assert_described(changed.unwrap(), Order::BASE);
            if let Some(stays) = stays {
                bed.assert_described(stays, large);
            }
        }
        assert_eq!(done, 3);
        // With nothing in reserve the next unit is refused, and stays.
        bed.empty_reserve();
        reorder(bed, &before, memory, large).map(drop).unwrap();
        let snapshot = bed.snapshot();
        let stopped = bed.reorder(&after, memory).unwrap_err();
        assert_eq!(stopped.error, FoldError::ReserveTooSmall { node: NODE });
        assert_eq!(stopped.done.rest, Some(memory));
        bed.assert_unchanged(&snapshot, "without a reserve");
        bed.offline(region);
    });
}

/// Where there are no readers, a part of a page may be reshaped. What is left of it is no page.
fn the_rest_of_a_page_of_which_a_part_was_reshaped_is_refused(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let natural = sizes.natural();
    let halves = |order: Order| {
        let memory = sizes.blocks(natural, 4, 1).take_first(order.frames()).0;
        let (low, high) = memory.split_at(order.frames() / 2);
        (memory, low.unwrap(), high.unwrap())
    };
    let two = Order::new(sizes.vmemmap_page().get() + 1).unwrap();
    for order in [two, natural] {
        let ranges = [sizes.blocks(natural, 4, 1)];
        let form = |order| Form::new(order, Tails::None, Tables::Private);
        let half = Order::new(order.get() - 1).unwrap();
        let (page, low, high) = halves(order);
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pages = form(order).pagemap(&model, &ranges);
            let small = form(half).pagemap(&model, &ranges);
            let region = bed.online(&pages).unwrap();
            for (reshaped, other) in [(low, high), (high, low)] {
                bed.reshape(&small, reshaped).unwrap();
                let snapshot = bed.snapshot();
                let stopped = reorder(bed, &small, other, natural).unwrap_err();
                let refused = FoldError::SplitsPage { pages: page };
                assert_eq!(stopped.error, refused, "{other} of {page}");
                bed.assert_unchanged(&snapshot, "half of a page");
                bed.reshape(&pages, page).unwrap();
            }
            bed.offline(region);
        });
    }
}

on_backends!(all:
    the_rest_of_a_page_of_which_a_part_was_reshaped_is_refused,
    the_rest_is_split_as_a_buddy_allocator_splits,
    parts_smaller_than_a_vmemmap_page,
    steps_go_unit_by_unit_and_end,
);
