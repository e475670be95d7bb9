//! How much is needed, where it comes from, and where it goes.

use super::{Form, NODE, reorder, without_allocator};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Tables, Tails};
use mm_core::vmemmap::{FoldError, Note, Reserve};
use testkit::testbed::{Setup, Sizes, Testbed};
use testkit::{OnBackend, on_backends};

/// With what is needed it can be done, and with one frame or block less of any kind it is refused, and
/// nothing has changed. `takes` says of which kinds.
fn assert_exact(
    bed: &mut dyn Testbed<'_>,
    before: &DevPagemap<'_>,
    after: &DevPagemap<'_>,
    memory: PfnRange,
    (of_frames, of_tables): (bool, bool),
) {
    let (from, to) = (before.geometry().order(), after.geometry().order());
    let region = bed.online(before).unwrap();
    let report = bed.audit();
    let needed = bed.reserve_needed(after, memory, from);
    let less = [
        (of_frames && needed.frames > 0).then(|| Reserve {
            frames: needed.frames - 1,
            ..needed
        }),
        (of_tables && needed.tables > 0).then(|| Reserve {
            tables: needed.tables - 1,
            ..needed
        }),
    ];
    for reserve in less.into_iter().flatten() {
        bed.fill_reserve(NODE, reserve).map(drop).unwrap();
        assert_eq!(bed.reserve(NODE), reserve);
        let snapshot = bed.snapshot();
        let stopped = without_allocator(bed, |bed| bed.reorder(after, memory));
        let stopped = stopped.unwrap_err();
        assert_eq!(stopped.error, FoldError::ReserveTooSmall { node: NODE });
        assert_eq!(stopped.done.units, 0);
        bed.assert_unchanged(&snapshot, "with too little in reserve");
        assert_eq!(bed.reserve(NODE), reserve);
        bed.empty_reserve();
    }
    bed.fill_reserve(NODE, needed).map(drop).unwrap();
    without_allocator(bed, |bed| bed.reorder(after, memory))
        .map(drop)
        .unwrap();
    bed.assert_described(memory, to);
    bed.audit();
    // Nothing is lost: what is in reserve and in use is what was before.
    let all = bed.frames().outstanding();
    bed.empty_reserve();
    assert_eq!(bed.reserve(NODE), Reserve::default());
    reorder(bed, before, memory, to.max(from))
        .map(drop)
        .unwrap();
    assert_eq!(bed.audit(), report);
    assert!(all > 0);
    bed.offline(region);
}

fn what_is_needed_suffices_and_one_less_does_not(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for (large, small) in [
        (sizes.natural(), Order::BASE),
        (sizes.natural(), sizes.vmemmap_page()),
        (sizes.gigantic(), sizes.natural()),
    ] {
        let memory = sizes.blocks(large, 4, 1);
        let ranges = [memory];
        for tails in [Tails::PerCompound, Tails::PerOrder] {
            for tables in [Tables::Private, Tables::Shared] {
                kind.testbed(&Setup::new(&ranges), |bed| {
                    let from = Form::new(large, Tails::PerOrder, tables);
                    let to = Form {
                        huge_leaves: false,
                        ..Form::new(small, tails, tables)
                    };
                    let (before, after) =
                        (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
                    // The first table of shared ones is private, and may be the one that comes back.
                    let of_tables = large == sizes.gigantic() && bed.has_tables();
                    assert_exact(bed, &before, &after, memory, (true, of_tables));
                });
            }
        }
    }
}

fn memory_mapped_by_huge_leaves_takes_the_most_tables(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.gigantic(), 4, 1);
    let ranges = [memory];
    for tables in [Tables::Private, Tables::Shared] {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let from = Form::new(sizes.gigantic(), Tails::None, Tables::Private);
            let to = Form::new(sizes.gigantic(), Tails::PerOrder, tables);
            let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
            let region = bed.online(&before).unwrap();
            let needed = bed.reserve_needed(&after, memory, sizes.gigantic());
            let tables = if bed.has_tables() { 2 } else { 0 };
            assert_eq!(
                needed,
                Reserve {
                    frames: 1,
                    tables,
                    huge_leaves: 0
                }
            );
            bed.fill_reserve(NODE, needed).map(drop).unwrap();
            without_allocator(bed, |bed| bed.reorder(&after, memory))
                .map(drop)
                .unwrap();
            bed.assert_described(memory, sizes.gigantic());
            bed.audit();
            // The blocks of the huge leaves are in reserve, and can come back.
            let back = bed.reserve(NODE);
            if bed.has_tables() && bed.huge_leaf().is_some() {
                assert!(back.huge_leaves > 0 || back.frames > 0, "{back:?}");
            }
            reorder(bed, &before, memory, sizes.gigantic())
                .map(drop)
                .unwrap();
            bed.offline(region);
        });
    }
}

/// Filled once, it serves any number of changes there and back.
fn one_reserve_serves_many_calls(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.gigantic(), 4, 1);
    let ranges = [memory];
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let from = Form::new(sizes.gigantic(), tails, Tables::Shared);
            let to = Form::new(sizes.natural(), tails, Tables::Shared);
            let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
            let region = bed.online(&before).unwrap();
            let there = bed.reserve_needed(&after, memory, sizes.gigantic());
            let back = bed.reserve_needed(&before, memory, sizes.natural());
            let both = Reserve {
                frames: there.frames + back.frames,
                tables: there.tables + back.tables,
                huge_leaves: 0,
            };
            bed.fill_reserve(NODE, both).map(drop).unwrap();
            // Full is full.
            let allocations = bed.frames().allocations();
            bed.fill_reserve(NODE, there).map(drop).unwrap();
            assert_eq!(bed.frames().allocations(), allocations);
            let start = bed.audit();
            without_allocator(bed, |bed| {
                for _ in 0..20 {
                    bed.reorder(&after, memory).map(drop).unwrap();
                    bed.reorder(&before, memory).map(drop).unwrap();
                }
            });
            assert_eq!((bed.audit(), bed.reserve(NODE)), (start, both));
            bed.empty_reserve();
            bed.offline(region);
        });
    }
}

/// Each allocation fails once while it is filled: it is as it was then, and can be filled later.
fn a_reserve_is_filled_wholly_or_not_at_all(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.natural(), 4, 1);
    let ranges = [memory];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed
            .online(
                &Form::new(sizes.natural(), Tails::PerOrder, Tables::Private)
                    .pagemap(&model, &ranges),
            )
            .unwrap();
        let some = Reserve {
            frames: 2,
            tables: 1,
            huge_leaves: 0,
        };
        let more = Reserve {
            frames: 7,
            tables: 4,
            huge_leaves: 0,
        };
        bed.fill_reserve(NODE, some).map(drop).unwrap();
        let some = bed.reserve(NODE);
        assert_eq!(some.tables, u64::from(bed.has_tables()));
        let needed = 5 + if bed.has_tables() { 3 } else { 0 };
        let before = bed.snapshot();
        for failing in 0..needed {
            for only in [false, true] {
                match only {
                    true => bed.frames().fail_nth(failing),
                    false => bed.frames().fail_after(failing),
                }
                let filled = bed.fill_reserve(NODE, more);
                bed.frames().no_more_faults();
                if let Err(error) = filled {
                    assert!(matches!(error, FoldError::OutOfFrames(_)), "{error:?}");
                    bed.assert_unchanged(&before, "it could not be filled");
                    assert_eq!(bed.reserve(NODE), some);
                } else {
                    // A run ends before the one that fails, and the next call succeeds.
                    assert!(only);
                    bed.empty_reserve();
                    bed.fill_reserve(NODE, some).map(drop).unwrap();
                }
                bed.audit();
            }
        }
        bed.empty_reserve();
        bed.offline(region);
    });
}

/// Without a block there are single frames and a table for each huge leaf, and a note.
fn fragmented_memory_gives_single_frames_instead_of_blocks(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.gigantic(), 4, 1);
    let ranges = [memory];
    kind.testbed(&Setup::new(&ranges), |bed| {
        if bed.huge_leaf().is_none() {
            return;
        }
        let from = Form::new(sizes.gigantic(), Tails::PerOrder, Tables::Shared);
        let to = Form::new(sizes.gigantic(), Tails::None, Tables::Private);
        let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
        let region = bed.online(&before).unwrap();
        let needed = bed.reserve_needed(&after, memory, sizes.gigantic());
        bed.frames().fail_blocks(true);
        let notes = bed.fill_reserve(NODE, needed).unwrap();
        bed.frames().fail_blocks(false);
        let leaves = needed.huge_leaves;
        assert!(leaves > 0);
        let unavailable = Note::HugeLeavesUnavailable { leaves };
        assert_eq!(notes.iter().collect::<Vec<_>>(), [unavailable]);
        let done = without_allocator(bed, |bed| bed.reorder(&after, memory)).unwrap();
        assert_eq!(done.notes.iter().collect::<Vec<_>>(), [unavailable]);
        bed.assert_described(memory, sizes.gigantic());
        bed.audit();
        bed.empty_reserve();
        reorder(bed, &before, memory, sizes.gigantic())
            .map(drop)
            .unwrap();
        bed.offline(region);
    });
}

/// A part gives blocks where a page is larger than what a huge leaf describes, and single frames where it
/// is smaller. What is needed suffices for either.
fn a_part_without_shared_tails_has_enough_from_pages_of_any_size(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let largest = sizes.gigantic();
    let memory = sizes.blocks(largest, 4, 1);
    let ranges = [memory];
    let part = sizes.blocks(
        sizes.natural(),
        memory.start().get() >> sizes.natural().get(),
        1,
    );
    for from in [sizes.natural(), sizes.table(), largest] {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let before = Form::new(from, Tails::PerOrder, Tables::Private).pagemap(&model, &ranges);
            let after = Form::new(Order::BASE, Tails::None, Tables::Private);
            let after = after.pagemap(&model, &ranges);
            let region = bed.online(&before).unwrap();
            let report = bed.audit();
            reorder(bed, &after, part, largest).map(drop).unwrap();
            bed.assert_described(part, Order::BASE);
            bed.audit();
            reorder(bed, &before, memory, largest).map(drop).unwrap();
            assert_eq!(bed.audit(), report);
            bed.offline(region);
        });
    }
}

/// Frames are kept for the node that they were taken for, wherever they are.
fn each_node_has_its_own(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.natural(), 4, 1);
    let ranges = [memory];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let other = NodeId::new(1);
        let some = Reserve {
            frames: 3,
            tables: 0,
            huge_leaves: 0,
        };
        bed.fill_reserve(NODE, some).map(drop).unwrap();
        bed.frames().fill_node(other);
        let notes = bed.fill_reserve(other, some).unwrap();
        bed.frames().no_more_faults();
        let remote = Note::RemoteFrames {
            frames: 3,
            asked: other,
            first: NODE,
        };
        assert_eq!(notes.iter().collect::<Vec<_>>(), [remote]);
        assert_eq!((bed.reserve(NODE), bed.reserve(other)), (some, some));
        let report = bed.audit();
        assert_eq!((report.reserve_frames, report.frames()), (6, 6));
        assert_eq!(bed.stats().total().ram_frames(), 6);
        assert_eq!(bed.frames().outstanding(), 6);
        bed.empty_reserve();
    });
}

/// The library keeps 16 of them in itself. More are in frames, which come out of the reserve too.
fn remembering_more_shared_tails_is_part_of_what_is_needed(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let memory = sizes.blocks(sizes.gigantic(), 1, 1);
    let ranges = [memory];
    let small = sizes.small();
    let others: Vec<PfnRange> = (1..=15)
        .map(|index| sizes.blocks(small, index, 1))
        .collect();
    let all: Vec<PfnRange> = others.iter().copied().chain([memory]).collect();
    kind.testbed(&Setup::new(&all), |bed| {
        let mut regions = Vec::new();
        for (node, range) in (1..).zip(&others) {
            let form = Form::new(small, Tails::PerOrder, Tables::Private);
            let range = core::slice::from_ref(range);
            let pagemap = form.pagemap(&model, range).with_node(NodeId::new(node));
            regions.push(bed.online(&pagemap).unwrap());
        }
        // With this one there are 16.
        let from = Form::new(sizes.gigantic(), Tails::PerOrder, Tables::Private);
        let to = Form::new(small, Tails::PerOrder, Tables::Private);
        let (before, after) = (from.pagemap(&model, &ranges), to.pagemap(&model, &ranges));
        regions.push(bed.online(&before).unwrap());
        let part = PfnRange::new(memory.start(), small.frames()).unwrap();
        let needed = bed.reserve_needed(&after, part, sizes.gigantic());
        bed.fill_reserve(NODE, needed).map(drop).unwrap();
        let done = without_allocator(bed, |bed| bed.reorder(&after, part)).unwrap();
        assert!(done.notes.is_empty(), "{:?}", done.notes);
        bed.audit();
        bed.empty_reserve();
        for region in regions {
            bed.offline(region);
        }
    });
}

on_backends!(all:
    remembering_more_shared_tails_is_part_of_what_is_needed,
    what_is_needed_suffices_and_one_less_does_not,
    memory_mapped_by_huge_leaves_takes_the_most_tables,
    one_reserve_serves_many_calls,
    a_reserve_is_filled_wholly_or_not_at_all,
    each_node_has_its_own,
);

on_backends!(pages_of_4k:
    fragmented_memory_gives_single_frames_instead_of_blocks,
    a_part_without_shared_tails_has_enough_from_pages_of_any_size,
);
