//! Marks: state of single frames, whatever their descriptors are mapped to.

use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::{MarkError, MarkStats, Offlined};
use std::collections::BTreeSet;
use testkit::testbed::{Setup, Sizes, Testbed, shuffled};
use testkit::{OnBackend, on_backends};

const NODE: NodeId = NodeId::new(0);

fn compound<'p>(model: &MemoryModel, ranges: &'p [PfnRange], order: Order) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::compound(order)).unwrap()
}

/// The order of the memory whose marks are in one frame: half a page of bits.
fn bitmap_order(model: &MemoryModel) -> Order {
    Order::new(model.granule().shift() as u8 + 2).unwrap()
}

fn at(range: PfnRange, index: u64) -> Pfn {
    range.start().checked_add(index).unwrap()
}

/// Exactly `expected` of `frames` are marked.
fn assert_marked(bed: &dyn Testbed<'_>, frames: PfnRange, expected: &BTreeSet<Pfn>) {
    assert_eq!(bed.marked(frames), *expected);
    // Each of those, its neighbours, and some others.
    let near = |frame: &Pfn| {
        let before = Pfn::new(frame.get().saturating_sub(1));
        [before, Some(*frame), frame.checked_add(1)]
    };
    let some = (0..frames.frames()).step_by(509);
    let some = some.map(|index| Some(at(frames, index)));
    for frame in expected.iter().flat_map(near).chain(some).flatten() {
        assert_eq!(bed.is_marked(frame), expected.contains(&frame), "{frame}");
    }
    assert_eq!(bed.mark_stats().marked, expected.len() as u64);
}

fn a_mark_is_of_one_frame_and_survives_fold_and_unfold(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for (order, tables) in [
        (sizes.natural(), Tables::Private),
        (sizes.gigantic(), Tables::Shared),
    ] {
        for tails in [Tails::PerCompound, Tails::PerOrder] {
            let ranges = [sizes.blocks(order, 8, if order == sizes.natural() { 16 } else { 1 })];
            kind.testbed(&Setup::new(&ranges), |bed| {
                let frames = ranges[0];
                let base = compound(&model, &ranges, Order::BASE).with_huge_leaves(false);
                let region = bed.online(&base).unwrap();
                let before = bed.audit();
                let folded_as = compound(&model, &ranges, order)
                    .with_tails(tails)
                    .with_tables(tables)
                    .with_huge_leaves(false);
                let mut expected = BTreeSet::new();
                let mut mark = |bed: &mut dyn Testbed<'_>, indices: [u64; 3]| {
                    for index in indices {
                        let frame = at(frames, index);
                        assert_eq!(bed.mark(frame, NODE), Ok(true));
                        assert_eq!(bed.mark(frame, NODE), Ok(false));
                        expected.insert(frame);
                    }
                    assert_marked(bed, frames, &expected);
                    bed.audit();
                };
                let head = order.frames() * (frames.frames() / order.frames() - 1);
                let shared = head + 3 * model.descriptors_per_page();
                // Base pages; folded: a head, a tail of the head's page, a shared tail; unfolded.
                mark(bed, [0, order.frames() / 2 + 188, frames.frames() - 1]);
                bed.fold(&folded_as, frames).map(drop).unwrap();
                mark(bed, [head + 64, head + 1, shared]);
                bed.unfold(&folded_as, frames).map(drop).unwrap();
                mark(bed, [2, frames.frames() / 3, shared + 2]);
                bed.fold(&folded_as, frames).map(drop).unwrap();
                assert_marked(bed, frames, &expected);
                for frame in &expected {
                    assert!(bed.unmark(*frame));
                    assert!(!bed.unmark(*frame));
                }
                assert_marked(bed, frames, &BTreeSet::new());
                assert_eq!(bed.mark_stats(), MarkStats::default());
                bed.unfold(&folded_as, frames).map(drop).unwrap();
                assert_eq!(bed.audit(), before);
                assert_eq!(bed.offline(region), Offlined { marked: 0, kept: 0 });
            });
        }
    }
}

fn a_mark_writes_to_no_descriptor_and_to_no_table(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 8, 8)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let folded_as = compound(&model, &ranges, sizes.natural()).with_tails(Tails::PerOrder);
        let region = bed.online(&folded_as).unwrap();
        let before = bed.snapshot();
        let marked = [0, 5, 300, ranges[0].frames() - 1].map(|index| at(ranges[0], index));
        for frame in marked {
            assert_eq!(bed.mark(frame, NODE), Ok(true));
        }
        for frame in marked {
            assert!(bed.unmark(frame));
        }
        bed.assert_unchanged(&before, "marked and unmarked");
        let first = bed.descriptor(ranges[0].start());
        assert_eq!(bed.mark(ranges[0].start(), NODE), Ok(true));
        assert_eq!(bed.descriptor(ranges[0].start()), first);
        bed.offline(region);
    });
}

fn the_first_mark_takes_a_frame_and_the_last_gives_it_back(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    // Enough for several bitmaps on each of the 64 chains.
    let bitmap = bitmap_order(&model);
    let order = sizes.natural().max(bitmap);
    let blocks = 256;
    let ranges = [sizes.blocks(order, 3, (blocks << bitmap.get()) >> order.get())];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let folded_as = compound(&model, &ranges, order)
            .with_tails(Tails::PerOrder)
            .with_piece(Piece::Range);
        let region = bed.online(&folded_as).unwrap();
        let without = bed.frames().outstanding();
        let frame_in = |block: u64, index: u64| at(ranges[0], (block << bitmap.get()) + index);
        let last = bitmap.frames() - 1;
        let mut expected = BTreeSet::new();
        for block in 0..blocks {
            for index in [0, last] {
                assert_eq!(bed.mark(frame_in(block, index), NODE), Ok(true));
                expected.insert(frame_in(block, index));
            }
            assert_eq!(bed.mark_stats().frames, block + 1);
            assert_eq!(bed.frames().outstanding(), without + block + 1);
        }
        bed.audit();
        assert_eq!(bed.marked(ranges[0]), expected);

        // In an order that takes bitmaps from the start, the middle and the end of chains.
        for (step, block) in shuffled(blocks as usize, 3).into_iter().enumerate() {
            let (step, block) = (step as u64, block as u64);
            assert!(bed.unmark(frame_in(block, 0)));
            assert_eq!(bed.mark_stats().frames, blocks - step);
            assert!(bed.unmark(frame_in(block, last)));
            expected.remove(&frame_in(block, 0));
            expected.remove(&frame_in(block, last));
            assert_eq!(bed.mark_stats().frames, blocks - step - 1);
            assert_eq!(bed.marked(ranges[0]), expected);
        }
        assert_eq!(bed.frames().outstanding(), without);
        bed.audit();
        bed.offline(region);
    });
}

fn only_what_is_online_has_marks(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 8, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed
            .online(&compound(&model, &ranges, sizes.natural()))
            .unwrap();
        let before = bed.snapshot();
        let frame = ranges[0].last().checked_add(1).unwrap();
        assert_eq!(bed.mark(frame, NODE), Err(MarkError::NotOnline { frame }));
        let frame = model.all_frames().last().checked_add(1).unwrap();
        assert_eq!(bed.mark(frame, NODE), Err(MarkError::NotOnline { frame }));
        assert!(!bed.is_marked(frame) && !bed.unmark(frame));
        bed.assert_unchanged(&before, "refused");
        bed.offline(region);
    });
}

fn marks_are_on_the_node_that_was_asked_for(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.natural(), 8, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let region = bed
            .online(&compound(&model, &ranges, sizes.natural()))
            .unwrap();
        let marks = |bed: &dyn Testbed<'_>| {
            [0, 1].map(|node| bed.stats().node(NodeId::new(node)).mark_frames)
        };
        assert_eq!(bed.mark(ranges[0].last(), NodeId::new(1)), Ok(true));
        bed.audit();
        assert_eq!(marks(bed), [0, 1]);
        // The nearest that has memory.
        assert!(bed.unmark(ranges[0].last()));
        bed.frames().fill_node(NodeId::new(1));
        assert_eq!(bed.mark(ranges[0].last(), NodeId::new(1)), Ok(true));
        bed.frames().empty_node(NodeId::new(1));
        bed.audit();
        assert_eq!(marks(bed), [1, 0]);
        assert_eq!(bed.offline(region), Offlined { marked: 1, kept: 0 });
        assert_eq!(marks(bed), [0, 0]);
    });
}

fn offline_reports_marks_and_forgets_those_of_its_frames_only(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    // Neighbours, two of which share a bitmap.
    let ranges = [sizes.blocks(order, 8, 2)];
    let others = [sizes.blocks(order, 10, 3), sizes.blocks(order, 1, 1)];
    kind.testbed(&Setup::new(&[ranges[0], others[0], others[1]]), |bed| {
        let folded_as = compound(&model, &ranges, order);
        let region = bed.online(&folded_as).unwrap();
        let other = bed.online(&compound(&model, &others, order)).unwrap();
        let mut frames = BTreeSet::new();
        let unit = sizes.subsection().frames();
        for frame in [
            ranges[0].start(),
            at(ranges[0], unit - 1),
            at(ranges[0], unit),
            ranges[0].last(),
            others[0].start(),
            others[0].last(),
            others[1].last(),
        ] {
            assert_eq!(bed.mark(frame, NODE), Ok(true));
            frames.insert(frame);
        }
        let all = model.all_frames();
        assert_eq!(bed.marked(all), frames);

        let piece = ranges[0].take_first(unit).0;
        let gone = bed.marked(piece);
        assert_eq!(gone.len(), 2);
        let offlined = bed.depopulate(&folded_as, piece);
        assert_eq!(offlined, Ok(Offlined { marked: 2, kept: 0 }));
        frames.retain(|frame| !gone.contains(frame));
        assert_eq!(bed.marked(all), frames);
        bed.audit();

        assert_eq!(bed.offline(region), Offlined { marked: 2, kept: 0 });
        frames.retain(|frame| !ranges[0].contains(*frame));
        assert_eq!(bed.marked(all), frames);
        bed.audit();
        assert_eq!(bed.offline(other), Offlined { marked: 3, kept: 0 });
        assert_eq!(bed.mark_stats(), MarkStats::default());

        // What comes online again is not marked.
        let region = bed.online(&folded_as).unwrap();
        assert_eq!(bed.marked(all), BTreeSet::new());
        bed.offline(region);
    });
}

/// A refused offline keeps them, and so does an offline that lacks memory.
fn an_offline_that_fails_keeps_marks(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    let ranges = [sizes.blocks(order, 2, 1)];
    kind.testbed(&Setup::new(&ranges), |bed| {
        let shared = compound(&model, &ranges, order).with_tables(Tables::Shared);
        let region = bed.online(&shared).unwrap();
        let last = sizes.subsections(ranges[0]).pop().unwrap();
        assert_eq!(bed.mark(last.last(), NODE), Ok(true));
        let before = bed.snapshot();
        let odd = PfnRange::new(at(last, 1), last.frames() - 1).unwrap();
        assert!(bed.depopulate(&shared, odd).is_err());
        // It is part of a shared table, where there are tables.
        bed.frames().fail_after(0);
        let failed = bed.depopulate(&shared, last);
        bed.frames().no_more_faults();
        assert_eq!(failed.is_err(), bed.has_tables());
        match failed {
            Ok(offlined) => assert_eq!(offlined, Offlined { marked: 1, kept: 0 }),
            Err(_) => {
                bed.assert_unchanged(&before, "failed");
                assert_eq!(
                    bed.depopulate(&shared, last),
                    Ok(Offlined { marked: 1, kept: 0 })
                );
            }
        }
        bed.offline(region);
    });
}

on_backends!(all:
    a_mark_is_of_one_frame_and_survives_fold_and_unfold,
    a_mark_writes_to_no_descriptor_and_to_no_table,
    the_first_mark_takes_a_frame_and_the_last_gives_it_back,
    only_what_is_online_has_marks,
    marks_are_on_the_node_that_was_asked_for,
    offline_reports_marks_and_forgets_those_of_its_frames_only,
    an_offline_that_fails_keeps_marks,
);
