//! What folded memory costs, and what comes back.

use super::{SHARED_TAILS, base_pages, compound, little_memory, memory};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::pagemap::{Tables, Tails};
use mm_core::vmemmap::{Folded, Note};
use testkit::testbed::{Costs, Setup, Sizes, Used};
use testkit::{OnBackend, on_backends};

fn fold_then_unfold_returns_to_the_frames_of_the_start(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let costs = Costs::of(kind, &model);
    // Many compound pages without huge leaves and with one, and one that is larger than that.
    for (order, memory, huge_leaves) in [
        (sizes.small(), little_memory(sizes), false),
        (sizes.natural(), little_memory(sizes), false),
        (sizes.natural(), memory(sizes, 1), true),
        (sizes.gigantic(), memory(sizes, 2), true),
    ] {
        let ranges = [memory];
        for tails in SHARED_TAILS {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let base = base_pages(&model, &ranges, huge_leaves);
                let region = bed.online(&base).unwrap();
                let before = bed.audit();
                let used = Used::base_pages(ranges[0], huge_leaves);
                assert_eq!(before, costs.report(&[used], Tables::Private));

                let folded_as = compound(&model, &ranges, order, tails);
                let folded_as = folded_as.with_huge_leaves(huge_leaves);
                let count = ranges[0].frames() >> order.get();
                let folded = bed.fold(&folded_as, ranges[0]).unwrap();
                assert_eq!((folded.changed, folded.unchanged), (count, 0));
                assert!(folded.notes.is_empty(), "{:?}", folded.notes);
                let used = Used::compound(ranges[0], order, tails);
                assert_eq!(bed.audit(), costs.report(&[used], Tables::Private));
                bed.assert_described(ranges[0], order);

                let unfolded = bed.unfold(&folded_as, ranges[0]).unwrap();
                assert_eq!((unfolded.changed, unfolded.unchanged), (count, 0));
                assert!(unfolded.notes.is_empty(), "{:?}", unfolded.notes);
                assert_eq!(bed.audit(), before, "{order} {tails:?} {huge_leaves}");
                bed.assert_described(ranges[0], order);

                // Taken apart, they are what they were at first.
                bed.reshape(&base, ranges[0]).unwrap();
                bed.assert_described(ranges[0], Order::BASE);
                bed.offline(region);
            });
        }
    }
}

/// The figures that were asked for: 512 pages of 2 MiB and others in a GiB, descriptors and leaf
/// tables.
fn a_gib_costs_what_the_design_says(kind: BackendKind) {
    let model = kind.model();
    let start = PhysAddr::new(24 << 30);
    let ranges = [PfnRange::from_bytes(start, 1 << 30, model.granule()).unwrap()];
    let cases = [
        (2 << 20, Tails::PerCompound, 1024),
        (2 << 20, Tails::PerOrder, 513),
        (1 << 30, Tails::PerCompound, 2),
        (1 << 30, Tails::PerOrder, 2),
        (1 << 20, Tails::PerCompound, 2048),
        (1 << 19, Tails::PerOrder, 2049),
    ];
    for huge_leaves in [true, false] {
        for (align, tails, descriptor_frames) in cases {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let order = Sizes::of(model).order(align);
                let base = base_pages(&model, &ranges, huge_leaves);
                let region = bed.online(&base).unwrap();
                let before = bed.audit();
                let leaf_tables = if huge_leaves { 0 } else { 8 };
                let leaf_tables = if bed.has_tables() { leaf_tables } else { 0 };
                assert_eq!(
                    (before.descriptor_frames, before.leaf_tables),
                    (4096, leaf_tables)
                );
                let outstanding = bed.frames().outstanding();

                let folded_as = compound(&model, &ranges, order, tails);
                let folded_as = folded_as.with_huge_leaves(huge_leaves);
                let folded = bed.fold(&folded_as, ranges[0]).unwrap();
                assert_eq!(folded.changed, (1 << 30) / align);
                let report = bed.audit();
                assert_eq!(report.descriptor_frames, descriptor_frames);
                assert_eq!(report.leaf_tables, if bed.has_tables() { 8 } else { 0 });
                assert_eq!(report.upper_tables, before.upper_tables);

                bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
                assert_eq!(bed.audit(), before);
                assert_eq!(bed.frames().outstanding(), outstanding);
                bed.offline(region);
            });
        }
    }
}

fn the_same_call_twice_changes_nothing(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [memory(sizes, 1)];
    let all = ranges[0].frames() >> order.get();
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let region = bed.online(&base_pages(&model, &ranges, true)).unwrap();
            let folded_as = compound(&model, &ranges, order, tails);
            let first = ranges[0].start().get() >> order.get();
            let part = sizes.blocks(order, first + 1, 5);
            let nothing = |unchanged| Folded {
                unchanged,
                ..Folded::default()
            };
            let done = bed.fold(&folded_as, part).unwrap();
            assert_eq!(done.changed, 5);
            let before = bed.snapshot();
            assert_eq!(bed.fold(&folded_as, part), Ok(nothing(5)));
            bed.assert_unchanged(&before, "folded again");

            // What is folded already is passed over.
            let rest = bed.fold(&folded_as, ranges[0]).unwrap();
            assert_eq!((rest.changed, rest.unchanged), (all - 5, 5));
            bed.audit();
            bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
            let before = bed.snapshot();
            assert_eq!(bed.unfold(&folded_as, ranges[0]), Ok(nothing(all)));
            bed.assert_unchanged(&before, "unfolded again");
            bed.offline(region);
        });
    }
}

/// Memory that was brought online with shared tails is unfolded, shared tables included, and folded
/// again.
fn what_came_online_folded_can_be_unfolded(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let costs = Costs::of(kind, &model);
    for (order, memory, tables, huge_leaves) in [
        (
            sizes.natural(),
            little_memory(sizes),
            Tables::Private,
            false,
        ),
        (sizes.natural(), memory(sizes, 2), Tables::Private, true),
        (sizes.gigantic(), memory(sizes, 4), Tables::Shared, true),
    ] {
        for tails in SHARED_TAILS {
            let ranges = [memory];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let folded_as = compound(&model, &ranges, order, tails)
                    .with_tables(tables)
                    .with_huge_leaves(huge_leaves);
                let region = bed.online(&folded_as).unwrap();
                let before = bed.audit();
                let (stays, part) = ranges[0].split_at(ranges[0].frames() / 2);
                let (stays, part) = (stays.unwrap(), part.unwrap());
                let unfolded = bed.unfold(&folded_as, part).unwrap();
                assert_eq!(unfolded.changed, part.frames() >> order.get());
                let used = [
                    Used::compound(stays, order, tails),
                    Used::base_pages(part, huge_leaves),
                ];
                let shared = bed.shares_tables();
                let tables = if shared { tables } else { Tables::Private };
                let expected = costs.report(&used, tables);
                assert_eq!(bed.audit(), expected, "{order} {tails:?} {huge_leaves}");
                bed.assert_described(ranges[0], order);
                bed.fold(&folded_as, part).map(drop).unwrap();
                assert_eq!(bed.audit(), before);
                bed.assert_described(ranges[0], order);
                bed.offline(region);
            });
        }
    }
}

fn fragmented_memory_gives_single_frames_for_a_huge_leaf(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [memory(sizes, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed.online(&base_pages(&model, &ranges, true)).unwrap();
        let before = bed.audit();
        let folded_as = compound(&model, &ranges, order, Tails::PerCompound);
        bed.fold(&folded_as, ranges[0]).map(drop).unwrap();
        bed.frames().fail_blocks(true);
        let unfolded = bed.unfold(&folded_as, ranges[0]).unwrap();
        let notes: Vec<Note> = unfolded.notes.iter().collect();
        assert_eq!(notes, [Note::HugeLeavesUnavailable { leaves: 1 }]);
        let report = bed.audit();
        assert_eq!(report.descriptor_frames, before.descriptor_frames);
        bed.assert_described(ranges[0], order);

        // The same call brings the leaves back once there are blocks.
        bed.frames().fail_blocks(false);
        bed.unfold(&folded_as, ranges[0]).map(drop).unwrap();
        assert_eq!(bed.audit(), before);
        bed.offline(region);
    });
}

/// So many changes are made for one flush.
const BATCH: u64 = 32;

fn one_flush_serves_a_batch_of_compound_pages(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    for (memory, huge_leaves) in [(memory(sizes, 1), true), (little_memory(sizes), false)] {
        let ranges = [memory];
        let count = memory.frames() >> order.get();
        kind.testbed(&Setup::new(&ranges), |bed| {
            let base = base_pages(&model, &ranges, huge_leaves);
            let region = bed.online(&base).unwrap();
            let folded_as = compound(&model, &ranges, order, Tails::PerCompound);
            let folded_as = folded_as.with_huge_leaves(huge_leaves);
            let folded = bed.fold(&folded_as, ranges[0]).unwrap();
            let splits = u64::from(huge_leaves);
            let at_most = (count + splits).div_ceil(BATCH);
            assert!((1..=at_most).contains(&folded.flushes), "{folded:?}");
            let unfolded = bed.unfold(&folded_as, ranges[0]).unwrap();
            // Two changes for each: the tail frame's own page, and the others, whose frames may not
            // all follow each other.
            let at_most = if huge_leaves {
                1
            } else {
                (2 * count).div_ceil(BATCH) + 1
            };
            assert!((1..=at_most).contains(&unfolded.flushes), "{unfolded:?}");
            bed.offline(region);
        });
    }
}

on_backends!(all:
    fold_then_unfold_returns_to_the_frames_of_the_start,
    the_same_call_twice_changes_nothing,
    what_came_online_folded_can_be_unfolded,
    fragmented_memory_gives_single_frames_for_a_huge_leaf,
    one_flush_serves_a_batch_of_compound_pages,
);

on_backends!(pages_of_4k: a_gib_costs_what_the_design_says);
