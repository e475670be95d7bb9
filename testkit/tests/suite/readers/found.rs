//! What is found, and what the map costs.

use super::bed::{Bed, on_bed, pagemap, span};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::{OfflineError, OnlineError, Vmemmap};
use testkit::on_backends;
use testkit::testbed::Sizes;
use testkit::testbed::shuffled;

fn a_page_is_found_when_all_of_it_is_online_and_no_longer(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    // All is asked about after each piece, so they are few.
    let large = Order::new(sizes.natural().get() + 2).unwrap();
    for (order, tails) in [
        (Order::BASE, Tails::None),
        (sizes.natural(), Tails::PerCompound),
        (large, Tails::PerOrder),
        (large, Tails::None),
    ] {
        on_bed(kind, |bed| {
            let large = order.max(sizes.natural());
            let ranges = [sizes.blocks(large, 6, 3)];
            let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(tails);
            let pieces = sizes.subsections(ranges[0]);
            let mut online: Vec<bool> = pieces.iter().map(|_| false).collect();
            let expect = |bed: &Bed<'_>, online: &[bool]| {
                let pages = (0..ranges[0].frames() / large.frames())
                    .map(|page| sizes.blocks(large, 6 + page, 1));
                let is_whole = |page: &PfnRange| {
                    let mut parts = pieces.iter().zip(online);
                    parts.all(|(piece, online)| *online || !page.contains_range(*piece))
                };
                let found: Vec<_> = match order {
                    Order::BASE => {
                        let parts = pieces.iter().zip(online);
                        let online = parts.filter(|(_, online)| **online);
                        online.map(|(piece, _)| (*piece, order)).collect()
                    }
                    _ => pages.filter(is_whole).map(|page| (page, order)).collect(),
                };
                bed.expect(ranges[0], &found);
            };
            for index in shuffled(pieces.len(), 7) {
                let notes = bed
                    .vmemmap
                    .populate(&mut bed.table, &pagemap, pieces[index]);
                notes.map(drop).unwrap();
                online[index] = true;
                expect(bed, &online);
            }
            let audit = bed.audit();
            assert_eq!(audit.online_map_frames, 1);
            assert_eq!(bed.vmemmap.stats().online_map_frames, 1);
            for index in shuffled(pieces.len(), 8) {
                let gone = bed
                    .vmemmap
                    .depopulate(&mut bed.table, &pagemap, pieces[index]);
                gone.map(drop).unwrap();
                online[index] = false;
                expect(bed, &online);
            }
            bed.audit();
        });
    }
}

/// A page of several subsections comes online by pieces, and one of them as base pages by another
/// pagemap, whichever comes first and wherever it lies.
fn a_page_with_memory_of_others_in_between_is_not_found(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let order = Order::new(sizes.natural().get() + 2).unwrap();
    let ranges = [sizes.blocks(order, 6, 1)];
    let page = pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerCompound);
    let base = pagemap(&kind.model(), &ranges, Order::BASE);
    let pieces = sizes.subsections(ranges[0]);
    for other in 0..pieces.len() {
        for last in 0..pieces.len() {
            on_bed(kind, |bed| {
                let Bed { vmemmap, table, .. } = bed;
                let mut come = |index: usize| {
                    let pagemap = if index == other { &base } else { &page };
                    vmemmap.populate(table, pagemap, pieces[index]).unwrap();
                };
                (0..pieces.len())
                    .filter(|index| *index != last)
                    .for_each(&mut come);
                come(last);
                bed.expect(ranges[0], &[(pieces[other], Order::BASE)]);
                // Once it has gone, and the page's own piece has come, all of the page is there.
                let Bed { vmemmap, table, .. } = bed;
                vmemmap.depopulate(table, &base, pieces[other]).unwrap();
                bed.expect(ranges[0], &[]);
                let Bed { vmemmap, table, .. } = bed;
                vmemmap.populate(table, &page, pieces[other]).unwrap();
                bed.expect(ranges[0], &[(ranges[0], order)]);
                let Bed { vmemmap, table, .. } = bed;
                vmemmap.depopulate(table, &page, ranges[0]).unwrap();
            });
        }
    }
}

fn a_frame_has_a_descriptor_of_its_own_beside_its_head(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        let ranges = [sizes.blocks(sizes.natural(), 5, 2)];
        let pagemap = pagemap(&kind.model(), &ranges, sizes.natural()).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        let reader = bed.reader();
        let reading = reader.enter();
        let per_page = kind.model().descriptors_per_page();
        for index in 0..ranges[0].frames() {
            let frame = ranges[0].start().saturating_add(index);
            let page = reading.page_of(frame).unwrap();
            assert_eq!(
                page.frames(),
                sizes.blocks(sizes.natural(), 5 + index / sizes.natural().frames(), 1)
            );
            assert_eq!(page.head().references().get(), Some(1));
            let in_page = index % sizes.natural().frames();
            let own = page.own_descriptor().map(|own| own.is_tail());
            assert_eq!(own, (in_page < per_page).then_some(in_page > 0));
        }
        drop(reading);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

/// A range that begins and ends within spans, with a whole one between.
fn three_spans(kind: BackendKind, order: Order) -> PfnRange {
    let span = span(&kind.model());
    let page = Sizes::of(kind.model()).blocks(order, span / order.frames() - 1, 1);
    PfnRange::new(page.start(), span + 2 * order.frames()).unwrap()
}

fn whole_spans_cost_no_frame_and_a_part_of_one_does(kind: BackendKind) {
    let span = span(&kind.model());
    // 32 of them are a span.
    let order = Order::new(span.trailing_zeros() as u8 - 5).unwrap();
    let ranges = [three_spans(kind, order)];
    let pagemap = pagemap(&kind.model(), &ranges, order)
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Range);
    on_bed(kind, |bed| {
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        assert_eq!(bed.audit().online_map_frames, 2);
        let ends = [ranges[0].start(), ranges[0].last()];
        let middle = ranges[0].start().saturating_add(ranges[0].frames() / 2);
        let is_online = |bed: &Bed<'_>, frame| bed.reader().enter().is_online(frame);
        for frame in ends.into_iter().chain([middle]) {
            assert!(is_online(bed, frame));
        }
        let after = ranges[0].last().saturating_add(1);
        assert!(!is_online(bed, after));
        // A page of the whole span.
        let page = PfnRange::new(middle.align_down(order), order.frames()).unwrap();
        bed.frames.fail_after(0);
        let refused = bed.vmemmap.depopulate(&mut bed.table, &pagemap, page);
        assert!(matches!(refused, Err(OfflineError::OutOfFrames(_))));
        bed.frames.no_more_faults();
        assert!(is_online(bed, page.start()));
        assert_eq!(bed.audit().online_map_frames, 2);
        bed.vmemmap
            .depopulate(&mut bed.table, &pagemap, page)
            .unwrap();
        assert!(!is_online(bed, page.start()) && !is_online(bed, page.last()));
        assert!(is_online(bed, page.last().saturating_add(1)));
        assert_eq!(bed.audit().online_map_frames, 3);
        bed.vmemmap
            .populate(&mut bed.table, &pagemap, page)
            .unwrap();
        assert!(is_online(bed, page.last()));
        bed.audit();
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        assert!(ends.into_iter().all(|frame| !is_online(bed, frame)));
    });
}

fn a_failed_online_leaves_no_frame_of_the_map_and_nothing_to_be_found(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    let span = span(&kind.model());
    let near = |at: u64| {
        let first = (at - order.frames()) / order.frames();
        sizes.blocks(order, first, 2)
    };
    // Each across a border of spans.
    let ranges = [near(span), near(2 * span)];
    let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerCompound);
    on_bed(kind, |bed| {
        let mut failures = 0;
        let region = loop {
            bed.frames.fail_after(failures);
            let result = bed.vmemmap.online(&mut bed.table, &pagemap);
            bed.frames.no_more_faults();
            match result {
                Ok(region) => break region,
                Err(error) => {
                    assert!(matches!(error, OnlineError::OutOfFrames(_)), "{error}");
                    assert_eq!(bed.audit().frames(), 0);
                    assert_eq!(bed.frames.outstanding(), 0);
                    ranges.iter().for_each(|range| bed.expect(*range, &[]));
                }
            }
            failures += 1;
        };
        // Three frames of bits, at least as many tables, and the descriptors.
        assert!(failures >= 8, "{failures}");
        assert_eq!(bed.audit().online_map_frames, 3);
        let found = ranges.map(|range| (range, order));
        ranges.iter().for_each(|range| bed.expect(*range, &found));
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn a_failed_piece_leaves_no_frame_of_the_map(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.table();
    let ranges = [sizes.blocks(order, 3, 1)];
    let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerCompound);
    on_bed(kind, |bed| {
        let mut pieces = sizes.subsections(ranges[0]);
        let last = pieces.pop().unwrap();
        for piece in &pieces {
            let piece = bed.vmemmap.populate(&mut bed.table, &pagemap, *piece);
            piece.map(drop).unwrap();
        }
        assert_eq!(bed.audit().online_map_frames, 0);
        let before = bed.frames.outstanding();
        // All that the last piece takes: it shares tail and table with the others.
        bed.frames.fail_after(0);
        let refused = bed.vmemmap.populate(&mut bed.table, &pagemap, last);
        bed.frames.no_more_faults();
        assert!(matches!(refused, Err(OnlineError::OutOfFrames(_))));
        assert_eq!(bed.frames.outstanding(), before);
        bed.audit();
        bed.vmemmap
            .populate(&mut bed.table, &pagemap, last)
            .unwrap();
        bed.expect(ranges[0], &[(ranges[0], order)]);
        let region = bed.vmemmap.region(&bed.table, &pagemap).unwrap();
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn another_value_adopts_what_readers_find(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        let ranges = [sizes.blocks(sizes.natural(), 5, 2)];
        let pagemap = pagemap(&kind.model(), &ranges, sizes.natural());
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        drop(region);
        let found = [(ranges[0], sizes.natural())];
        // SAFETY: 1: the same machine, and the value before is not used any more. 2: its root.
        let adopted = unsafe { Vmemmap::adopt_with_readers(bed.readers, bed.frames, bed.memory) };
        bed.vmemmap = adopted.unwrap();
        bed.expect(ranges[0], &found);
        let region = bed.vmemmap.region(&bed.table, &pagemap).unwrap();
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        bed.expect(ranges[0], &[]);
    });
}

fn what_was_folded_and_unfolded_is_found_as_it_is(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        let ranges = [sizes.blocks(sizes.natural(), 5, 4)];
        let base = pagemap(&kind.model(), &ranges, Order::BASE);
        let compound = pagemap(&kind.model(), &ranges, sizes.natural()).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &base).unwrap();
        let part = sizes.blocks(sizes.natural(), 6, 1);
        let fold = bed.vmemmap.fold(&mut bed.table, &compound, part);
        fold.map(drop).unwrap();
        bed.expect(part, &[(part, sizes.natural())]);
        // A part of the page takes all of it from readers, and nothing more.
        if part.frames() > kind.model().subsection().frames() {
            let piece = sizes.subsections(part)[1];
            bed.vmemmap
                .depopulate(&mut bed.table, &base, piece)
                .unwrap();
            bed.expect(part, &[]);
            bed.vmemmap.populate(&mut bed.table, &base, piece).unwrap();
            let unfold = bed.vmemmap.unfold(&mut bed.table, &compound, part);
            assert!(unfold.is_err(), "a part of it is base pages");
        }
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        bed.expect(ranges[0], &[]);
    });
}

on_backends!(radix:
    a_page_is_found_when_all_of_it_is_online_and_no_longer,
    a_page_with_memory_of_others_in_between_is_not_found,
    a_frame_has_a_descriptor_of_its_own_beside_its_head,
    whole_spans_cost_no_frame_and_a_part_of_one_does,
    a_failed_online_leaves_no_frame_of_the_map_and_nothing_to_be_found,
    a_failed_piece_leaves_no_frame_of_the_map,
    another_value_adopts_what_readers_find,
    what_was_folded_and_unfolded_is_found_as_it_is,
);
