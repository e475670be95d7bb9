//! What is in descriptors, whose they are, and what else is done with memory of many orders.

use super::{Form, NODE, reorder};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::pagemap::{Geometry, Tables, Tails};
use mm_core::vmemmap::FoldError;
use testkit::testbed::{Setup, Sizes, pagemap};
use testkit::{OnBackend, on_backends};

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

/// Pages that begin where a page began keep what the kernel has in them, whatever their order. All
/// others are as new, and so is a tail that is a page now.
fn first_descriptors_keep_their_state_and_others_are_new(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.natural(), sizes.vmemmap_page());
    let memory = sizes.blocks(large, 4, 2);
    let ranges = [memory];
    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
        for (from, to) in [
            (large, small),
            (small, large),
            (Order::BASE, small),
            (large, Order::BASE),
        ] {
            let order = from.max(to);
            kind.testbed(&Setup::new(&ranges), |bed| {
                let form = |order| Form {
                    huge_leaves: false,
                    ..Form::new(order, tails, Tables::Private)
                };
                let before = form(from).pagemap(&model, &ranges);
                let after = form(to).pagemap(&model, &ranges);
                let region = bed.online(&before).unwrap();
                let new_page = bed.state_of(memory.start()).unwrap();
                let first = memory.start().get();
                let pages = |order: Order| {
                    (0..memory.frames() >> order.get())
                        .map(move |page| Pfn::new(first + (page << order.get())).unwrap())
                };
                for head in pages(from) {
                    bed.set_state_of(head, head.get() + 1);
                }
                let kept: Vec<_> = pages(order).map(|head| bed.state_of(head)).collect();
                assert_ne!(kept[0], Some(new_page));
                reorder(bed, &after, memory, order).map(drop).unwrap();
                for head in pages(to) {
                    let state = bed.state_of(head);
                    match head.is_aligned(from) {
                        true => assert_ne!(state, Some(new_page), "{head} began a page"),
                        false => assert_eq!(state, Some(new_page), "{head} is new"),
                    }
                }
                let still: Vec<_> = pages(order).map(|head| bed.state_of(head)).collect();
                assert_eq!(still, kept, "{from} to {to} {tails:?}");
                reorder(bed, &before, memory, order).map(drop).unwrap();
                let still: Vec<_> = pages(order).map(|head| bed.state_of(head)).collect();
                assert_eq!(still, kept, "{from} to {to} {tails:?}, and back");
                bed.audit();
                bed.offline(region);
            });
        }
    }
}

/// With an altmap, frames for descriptors come from it and go back to it.
fn frames_of_an_altmap_come_from_it_and_go_back(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.natural(), sizes.vmemmap_page());
    let memory = sizes.blocks(large, 4, 4);
    let ranges = [memory];
    let reserved = sizes.blocks(large, 4, 1);
    let part = sizes.blocks(large, 6, 2);
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let altmap = bed.altmaps()[0];
            let of = |order, tails| pagemap(&model, &ranges, order, tails).with_altmap(altmap);
            let before = of(large, tails).unwrap().with_huge_leaves(false);
            let after = of(small, tails).unwrap().with_huge_leaves(false);
            let region = bed.online(&before).unwrap();
            let report = bed.audit();
            let in_altmap = altmap.in_use();
            let needed = bed.reserve_needed(&after, part, large);
            let per_order = u64::from(tails == Tails::PerOrder && model.vmemmap_pages(small) > 1);
            assert_eq!((needed.frames, needed.huge_leaves), (per_order, 0));
            reorder(bed, &after, part, large).map(drop).unwrap();
            bed.assert_described(part, small);
            bed.audit();
            let more = part.frames() / model.descriptors_per_page() - 2;
            let per_compound = if tails == Tails::PerCompound { 2 } else { 0 };
            assert_eq!(altmap.in_use(), in_altmap + more - per_compound);
            // What it reserves is not changed, and a pagemap without it is refused.
            let stopped = bed.reorder(&after, sizes.blocks(large, 4, 2)).unwrap_err();
            assert_eq!(stopped.error, FoldError::Reserved { reserved });
            let without = pagemap(&model, &ranges, large, tails);
            let stopped = bed.reorder(&without, part).unwrap_err();
            assert_eq!(stopped.error, FoldError::OtherAltmap { reserved });
            reorder(bed, &before, part, large).map(drop).unwrap();
            assert_eq!(bed.audit(), report);
            bed.offline(region);
        });
    }
}

/// An altmap that runs out stops the change before anything of the unit has changed.
fn an_altmap_that_runs_out_changes_nothing(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.natural(), sizes.vmemmap_page());
    let memory = sizes.blocks(large, 4, 3);
    let ranges = [memory];
    let reserved = sizes.blocks(large, 4, 1);
    let part = sizes.blocks(large, 6, 1);
    kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
        let altmap = bed.altmaps()[0];
        let of = |order| {
            let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder);
            pagemap.with_altmap(altmap).unwrap().with_huge_leaves(false)
        };
        let region = bed.online(&of(large)).unwrap();
        let needed = bed.reserve_needed(&of(small), part, large);
        bed.fill_reserve(NODE, needed).map(drop).unwrap();
        let before = bed.snapshot();
        for granted in 0..model.vmemmap_pages(large) - 1 {
            altmap.grant(Some(granted));
            let stopped = bed.reorder(&of(small), part).unwrap_err();
            altmap.grant(None);
            assert_eq!(stopped.error, FoldError::AltmapExhausted { reserved });
            bed.assert_unchanged(&before, "the altmap ran out");
        }
        bed.empty_reserve();
        bed.offline(region);
    });
}

/// Memory of many orders is audited and marked, and goes offline whole or piece by piece.
fn memory_of_many_orders_is_like_any_other(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let (large, small) = (sizes.table(), sizes.small());
    let memory = sizes.blocks(large, 4, 2);
    let ranges = [memory];
    let first = memory.start().get();
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for by_pieces in [false, true] {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let of = |order| Form::new(order, tails, Tables::Shared).pagemap(&model, &ranges);
                let region = bed.online(&of(large)).unwrap();
                let part = frames(first + 3 * small.frames(), 2 * small.frames());
                reorder(bed, &of(small), part, large).map(drop).unwrap();
                let base = frames(first + large.frames() + 5, 3);
                reorder(bed, &of(Order::BASE), base, large)
                    .map(drop)
                    .unwrap();
                bed.audit();
                // A tail that shares its memory has marks, and they go with it.
                let tail = part.last();
                assert!(bed.mark(tail, NodeId::new(0)).unwrap());
                assert!(bed.is_marked(tail));
                reorder(bed, &of(Order::BASE), part, large)
                    .map(drop)
                    .unwrap();
                assert!(bed.is_marked(tail), "a change of order keeps marks");
                reorder(bed, &of(small), part, small).map(drop).unwrap();
                if !by_pieces {
                    let offlined = bed.offline(region);
                    assert_eq!((offlined.marked, offlined.kept), (1, 0));
                    return;
                }
                let pagemap = of(large);
                let mut pieces = sizes.subsections(memory);
                // The ones in the middle first. Of a page that is partly offline, the rest stays.
                let middle = pieces.len() / 2;
                pieces.rotate_left(middle);
                for piece in pieces {
                    bed.depopulate(&pagemap, piece).map(drop).unwrap();
                    bed.assert_offline(piece);
                }
                bed.audit();
                drop(region);
            });
        }
    }
}

fn what_cannot_be_changed_is_refused_by_name(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let memory = sizes.blocks(order, 4, 4);
    let ranges = [memory];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let online = [sizes.blocks(order, 4, 2)];
        let half = pagemap(&model, &online, order, Tails::PerCompound);
        let all = pagemap(&model, &ranges, order, Tails::PerCompound);
        let region = bed.online(&half).unwrap();
        let before = bed.snapshot();
        let mut refused = |frames, pagemap| bed.reorder_step(pagemap, frames).unwrap_err();
        let odd = frames(memory.start().get() + 1, order.frames());
        let misaligned = FoldError::Misaligned { frames: odd, order };
        assert_eq!(refused(odd, &all), misaligned);
        let outside = sizes.blocks(order, 8, 1);
        assert_eq!(
            refused(outside, &all),
            FoldError::Outside { frames: outside }
        );
        let offline = sizes.blocks(order, 6, 1);
        let at = model.descriptor_address(offline.start()).unwrap();
        assert_eq!(refused(offline, &all), FoldError::NotOnline { at });
        let larger = Geometry::compound(Order::new(order.get() + 2).unwrap());
        let larger = pagemap(&model, &ranges, larger.order(), Tails::PerCompound);
        assert_eq!(refused(memory, &larger), FoldError::NotOnline { at });
        bed.assert_unchanged(&before, "refused");
        bed.offline(region);
    });
}

on_backends!(all:
    first_descriptors_keep_their_state_and_others_are_new,
    frames_of_an_altmap_come_from_it_and_go_back,
    an_altmap_that_runs_out_changes_nothing,
    memory_of_many_orders_is_like_any_other,
    what_cannot_be_changed_is_refused_by_name,
);
