//! The pieces of one region: every order of a few, random ones of many.

use super::{SHARED_TAILS, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::{Tables, Tails};
use std::collections::BTreeSet;
use testkit::testbed::{Costs, Setup, Sizes, Testbed, Used, shuffled};
use testkit::{OnBackend, on_backends};

/// Every order of `0..count`.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1);
    let with_last = |shorter: &Vec<usize>| -> Vec<Vec<usize>> {
        let at = |place: usize| {
            let mut longer = shorter.clone();
            longer.insert(place, count - 1);
            longer
        };
        (0..count).map(at).collect()
    };
    shorter.iter().flat_map(with_last).collect()
}

/// The frames that `piece` is the first to need: heads, and the tail frame of a compound page that
/// has none yet.
fn own_frames(
    sizes: Sizes,
    order: Order,
    tails: Tails,
    online: &BTreeSet<Pfn>,
    piece: PfnRange,
) -> u64 {
    let compound = |frame: Pfn| frame.align_down(order);
    let mut needed = 0;
    let mut any_tails = false;
    let mut at = piece.start();
    while at <= piece.last() {
        let head = compound(at);
        let end = head.get() + order.frames();
        let last = piece.last().get().min(end - 1);
        needed += u64::from(at == head);
        let in_piece = (last - at.get() + 1) / sizes.vmemmap_page().frames();
        let has_tails = in_piece > u64::from(at == head);
        let known = match tails {
            Tails::PerOrder => !online.is_empty(),
            _ => online
                .iter()
                .any(|other| compound(*other) == head && *other != head),
        };
        let first_in_piece =
            tails != Tails::PerOrder || !std::mem::replace(&mut any_tails, has_tails);
        needed += u64::from(has_tails && !known && first_in_piece);
        at = Pfn::new(last + 1).unwrap();
    }
    needed
}

/// Brings the pieces online in the order `coming` and offline in the order `going`. After each, what
/// is online costs what it has to, and is all there.
fn comes_and_goes(
    bed: &mut dyn Testbed<'_>,
    pagemap: &mm_core::pagemap::DevPagemap<'_>,
    pieces: &[PfnRange],
    coming: &[usize],
    going: &[usize],
) {
    let sizes = Sizes::of(bed.model());
    let order = pagemap.geometry().order();
    let mut frames = 0;
    // Where tails are mapped: a frame of each vmemmap page of the pieces that is not a head's.
    let mut tail_pages: BTreeSet<Pfn> = BTreeSet::new();
    let per_page = sizes.vmemmap_page().frames();
    for index in coming {
        let piece = pieces[*index];
        frames += own_frames(sizes, order, pagemap.tails().0, &tail_pages, piece);
        bed.populate(pagemap, piece).map(drop).unwrap();
        let pages = (0..piece.frames() / per_page)
            .map(|page| piece.start().saturating_add(page * per_page));
        tail_pages.extend(pages.filter(|frame| !frame.is_aligned(order)));
        let report = bed.audit();
        assert_eq!(report.descriptor_frames, frames, "{coming:?} up to {index}");
        bed.assert_described(piece, order);
    }
    let whole = pagemap.ranges().iter();
    let used: Vec<Used> = whole
        .map(|range| Used::compound(*range, order, pagemap.tails().0))
        .collect();
    let expected = Costs::of(kind_of(bed), pagemap.model()).report(&used, Tables::Private);
    assert_eq!(bed.audit(), expected, "{coming:?}");
    for (turn, index) in going.iter().enumerate() {
        bed.depopulate(pagemap, pieces[*index]).unwrap();
        bed.audit();
        bed.assert_offline(pieces[*index]);
        if let Some(next) = going.get(turn + 1) {
            bed.assert_described(pieces[*next], order);
        }
    }
    assert_eq!(bed.frames().outstanding(), 0, "{coming:?}, then {going:?}");
}

fn kind_of(bed: &dyn Testbed<'_>) -> BackendKind {
    let mut all = BackendKind::ALL.into_iter();
    all.find(|kind| kind.name() == bed.name()).unwrap()
}

/// Two compound pages in four pieces, the second of which has an end and a head.
fn every_order_of_a_few_pieces(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.small().get().max(sizes.subsection().get() + 1) + 1).unwrap();
    let ranges = [sizes.blocks(order, 20, 2)];
    let unit = order.frames() / 2;
    let piece = |first: u64, units: u64| {
        let start = ranges[0].start().saturating_add(first * unit);
        PfnRange::new(start, units * unit).unwrap()
    };
    for pieces in [
        [piece(0, 1), piece(1, 1), piece(2, 1), piece(3, 1)].as_slice(),
        [piece(0, 1), piece(1, 2), piece(3, 1)].as_slice(),
        [piece(0, 3), piece(3, 1)].as_slice(),
    ] {
        let orders = permutations(pieces.len());
        for tails in SHARED_TAILS {
            kind.testbed(&Setup::new(&ranges), |bed| {
                let pagemap = pagemap(&model, &ranges, order, tails);
                for coming in &orders {
                    for going in &orders {
                        comes_and_goes(bed, &pagemap, pieces, coming, going);
                    }
                }
            });
        }
    }
}

/// A compound page with several leaf tables, by sections or as many pieces.
fn any_order_of_many_pieces(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.table().get() + 1).unwrap();
    let ranges = [sizes.blocks(order, 3, 2)];
    let unit = ranges[0].frames() / 32;
    let pieces: Vec<PfnRange> = (0..32)
        .map(|index| ranges[0].start().saturating_add(index * unit))
        .map(|start| PfnRange::new(start, unit).unwrap())
        .collect();
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = pagemap(&model, &ranges, order, tails);
            for seed in 1..4 {
                let (coming, going) = (shuffled(32, seed), shuffled(32, seed + 50));
                comes_and_goes(bed, &pagemap, &pieces, &coming, &going);
            }
        });
    }
}

/// Subsections come and go, one or several at a time, without ever all being there.
fn pieces_that_come_and_go_at_random(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.small().get().max(sizes.subsection().get() + 1) + 2).unwrap();
    let ranges = [sizes.blocks(order, 20, 3)];
    let subsections = sizes.subsections(ranges[0]);
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = pagemap(&model, &ranges, order, tails);
            let mut online = vec![false; subsections.len()];
            for seed in 0..40 {
                let order_of_all = shuffled(subsections.len(), seed * 7 + 1);
                let first = order_of_all[0];
                // As many from there on as are alike, up to a few.
                let alike = |index: &usize| online[*index] == online[first];
                let count = (first..subsections.len()).take_while(alike).count();
                let count = count.min(1 + seed as usize % 5);
                let frames = count as u64 * sizes.subsection().frames();
                let piece = PfnRange::new(subsections[first].start(), frames).unwrap();
                match online[first] {
                    true => {
                        bed.depopulate(&pagemap, piece).unwrap();
                        bed.assert_offline(piece);
                    }
                    false => bed.populate(&pagemap, piece).map(drop).unwrap(),
                }
                let now = !online[first];
                online[first..first + count].fill(now);
                bed.audit();
                for (piece, online) in subsections.iter().zip(&online) {
                    if *online {
                        bed.assert_described(*piece, order);
                    }
                }
            }
            for (piece, online) in subsections.iter().zip(&online) {
                if *online {
                    bed.depopulate(&pagemap, *piece).unwrap();
                }
            }
        });
    }
}

/// The first pieces have the tails of their compound pages, chosen by themselves; when the head
/// comes, and what lies before and behind, they share.
fn a_tail_frame_is_found_from_both_sides(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.subsection().get() + 3).unwrap();
    let ranges = [sizes.blocks(order, 20, 1)];
    let pieces = sizes.subsections(ranges[0]);
    kind.testbed(&Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerCompound);
        bed.populate(&pagemap, pieces[5]).map(drop).unwrap();
        let tail = bed.holder_of(pieces[5].start()).unwrap();
        // Next to it above and below, and apart from all others on both sides.
        for index in [6, 4, 2, 0, 7, 1, 3] {
            bed.populate(&pagemap, pieces[index]).map(drop).unwrap();
            // Of some granules a subsection is one vmemmap page, and that of the first the head's.
            let has_tails = index > 0 || sizes.subsection() > sizes.vmemmap_page();
            let holder = bed.holder_of(pieces[index].last());
            assert_eq!(holder == Some(tail), has_tails, "{index}");
            bed.audit();
        }
        assert_ne!(bed.holder_of(pieces[0].start()), Some(tail));
        bed.depopulate(&pagemap, ranges[0]).unwrap();
    });
}

on_backends!(all:
    every_order_of_a_few_pieces,
    any_order_of_many_pieces,
    pieces_that_come_and_go_at_random,
    a_tail_frame_is_found_from_both_sides,
);
