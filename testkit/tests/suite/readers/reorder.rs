//! Pages that others may have references to become pages of another order.

use super::bed::{Bed, Done, Handle, on_bed_with, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Granule, NodeId, Order, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::paging::Replacement;
use mm_core::readers::NoReference;
use mm_core::vmemmap::{Changed, FoldError, FrozenUnits, Reserve};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use testkit::on_backends;
use testkit::testbed::Sizes;
use testkit::threads::ThreadKernel;

const ROUNDS: u64 = 60;
const NODE: NodeId = NodeId::new(0);

/// The orders that the tests have: a page, and the smaller ones that it becomes.
struct Orders {
    large: Order,
    small: Order,
}

fn orders(kind: BackendKind) -> Orders {
    let sizes = Sizes::of(kind.model());
    Orders {
        large: sizes.natural(),
        small: sizes.vmemmap_page(),
    }
}

fn reorder(bed: &mut Bed<'_>, pagemap: &DevPagemap<'_>, frames: PfnRange) -> Changed {
    // SAFETY: 1: all CPUs translate by the machine's one table. The owners' references are the test's,
    // which does not use them.
    let changed = unsafe {
        bed.vmemmap
            .reorder_beside_readers(&mut bed.table, pagemap, frames, (1, 1))
    };
    changed.unwrap()
}

fn fill(bed: &mut Bed<'_>, pagemap: &DevPagemap<'_>, frames: PfnRange) {
    let large = orders(bed.kind).large;
    let needed = bed
        .vmemmap
        .reserve_needed(&bed.table, pagemap, frames, large);
    let filled = bed.vmemmap.fill_reserve(&mut bed.table, NODE, needed);
    filled.map(drop).unwrap();
}

/// A page with a reference of another owner stays, and all others change; each new page has the
/// references that were named, and the others none that anybody could take.
fn a_page_in_use_stays_and_the_others_change(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let Orders { large, small } = orders(kind);
    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
        let ranges = [sizes.blocks(large, 4, 3)];
        let unit = |index: u64| sizes.blocks(large, 4 + index, 1);
        on_bed_with(kind, Replacement::Direct, |bed| {
            let before = pagemap(&kind.model(), &ranges, large).with_tails(tails);
            let after = pagemap(&kind.model(), &ranges, small).with_tails(tails);
            let region = bed.vmemmap.online(&mut bed.table, &before).unwrap();
            let reader = bed.reader();
            let reference = reader.enter().reference(unit(1).last()).unwrap();
            fill(bed, &after, ranges[0]);
            let changed = reorder(bed, &after, ranges[0]);
            assert_eq!((changed.busy, changed.error), (1, None));
            assert_eq!(changed.first_busy, Some(unit(1).start()));
            let expected = [(unit(0), small), (unit(1), large), (unit(2), small)];
            bed.expect(ranges[0], &expected);
            bed.audit();
            drop(reference);
            for page in 0..3 {
                let last = reader.enter().reference(unit(page).last()).unwrap();
                assert_eq!(last.first(), unit(page).last().align_down(last.order()));
            }
            fill(bed, &after, unit(1));
            assert_eq!(reorder(bed, &after, ranges[0]).busy, 0);
            bed.expect(ranges[0], &[(ranges[0], small)]);
            fill(bed, &before, ranges[0]);
            assert_eq!(reorder(bed, &before, ranges[0]).busy, 0);
            bed.expect(ranges[0], &[(ranges[0], large)]);
            bed.vmemmap.empty_reserve(&mut bed.table);
            bed.vmemmap.offline(&mut bed.table, region).unwrap();
        });
    }
}

fn freeze<'m>(
    bed: &mut Bed<'m>,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> FrozenUnits<'m, Page<Mask>, ThreadKernel<'m>> {
    // SAFETY: 1: all CPUs translate by the machine's one table. 2: the owners' references are the test's,
    // which does not use them.
    let frozen = unsafe { bed.vmemmap.freeze_units(&bed.table, pagemap, frames, 1) };
    frozen.unwrap()
}

/// While it is frozen nobody gets a reference. What is dropped, or cannot be changed for want of a
/// reserve, is as it was.
fn what_is_not_changed_is_thawed_as_it_was(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let Orders { large, small } = orders(kind);
    let ranges = [sizes.blocks(large, 4, 2)];
    on_bed_with(kind, Replacement::Direct, |bed| {
        let before = pagemap(&kind.model(), &ranges, large).with_tails(Tails::PerOrder);
        let after = pagemap(&kind.model(), &ranges, small).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &before).unwrap();
        let reader = bed.reader();
        let frozen = freeze(bed, &after, ranges[0]);
        let refused = reader.enter().reference(ranges[0].last());
        assert_eq!(refused.err(), Some(NoReference::Refused));
        drop(frozen);
        drop(reader.enter().reference(ranges[0].last()).unwrap());
        // Enough for one of the two pages.
        fill(bed, &after, sizes.blocks(large, 4, 1));
        let quiescent = freeze(bed, &after, ranges[0]).wait();
        let table = &mut bed.table;
        let changed = bed
            .vmemmap
            .commit_reorder(table, quiescent, &after, ranges[0], 1)
            .changed;
        assert_eq!(changed.folded.changed, 1);
        assert_eq!(
            changed.error,
            Some(FoldError::ReserveTooSmall { node: NODE })
        );
        let first = sizes.blocks(large, 4, 1);
        let second = sizes.blocks(large, 5, 1);
        bed.expect(ranges[0], &[(first, small), (second, large)]);
        for frame in [first.start(), first.last(), second.start(), second.last()] {
            drop(reader.enter().reference(frame).unwrap());
        }
        assert_eq!(bed.kernel.take_without_owner(), []);
        bed.vmemmap.empty_reserve(&mut bed.table);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

/// Takes references until `done`: each is to a page that the frame is part of, and that stays as long
/// as the reference is there.
fn read(reader: Handle<'_>, frames: PfnRange, (done, had): (&AtomicBool, &AtomicU64), seed: u64) {
    for index in seed.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let frame = frames.start().saturating_add(index * 37 % frames.frames());
        assert!(reader.enter().is_online(frame), "it is online all the time");
        let Ok(reference) = reader.enter().reference(frame) else {
            continue;
        };
        let order = reference.order();
        assert_eq!(reference.first(), frame.align_down(order));
        let reading = reader.enter();
        let page = reading.page_of(frame).unwrap();
        let now = (page.first(), page.order());
        assert_eq!(now, (reference.first(), order), "it has changed");
        drop(reading);
        drop(reference);
        had.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pages become smaller ones, whole and in part, and large ones again, beside readers in threads.
fn orders_change_beside_readers(kind: BackendKind, tails: Tails, replacement: Replacement) {
    let sizes = Sizes::of(kind.model());
    let Orders { large, small } = orders(kind);
    let ranges = [sizes.blocks(large, 4, 3)];
    on_bed_with(kind, replacement, |bed| {
        let of = |order| {
            let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(tails);
            pagemap.with_tables(Tables::Shared)
        };
        let pagemaps = [of(large), of(small), of(Order::BASE)];
        let region = bed.vmemmap.online(&mut bed.table, &pagemaps[0]).unwrap();
        let needed = pagemaps
            .iter()
            .map(|to| bed.vmemmap.reserve_needed(&bed.table, to, ranges[0], large));
        let all = needed.fold(Reserve::default(), |all, one| Reserve {
            frames: all.frames + one.frames,
            tables: all.tables + one.tables,
            huge_leaves: 0,
        });
        bed.vmemmap
            .fill_reserve(&mut bed.table, NODE, all)
            .map(drop)
            .unwrap();
        let (done, had) = (AtomicBool::new(false), AtomicU64::new(0));
        let reader = bed.reader();
        thread::scope(|scope| {
            let ends = Done(&done);
            let counters = (&done, &had);
            let spawn = |seed| scope.spawn(move || read(reader, ranges[0], counters, seed));
            let readers = [0, 1001].map(spawn);
            let mut changes = 0;
            let enough = |index, changes| {
                index >= ROUNDS && had.load(Ordering::Relaxed) > ROUNDS && changes >= ROUNDS
            };
            for index in 0.. {
                if enough(index, changes) {
                    break;
                }
                let pagemap = &pagemaps[(index % 7 % 3) as usize];
                let order = pagemap.geometry().order().max(sizes.vmemmap_page());
                let pages = ranges[0].frames() >> order.get();
                let first = (ranges[0].start().get() >> order.get()) + index * 5 % pages;
                let part = sizes.blocks(order, first, 1);
                let changed = reorder(bed, pagemap, part);
                assert_eq!(changed.error, None);
                changes += changed.folded.changed;
                if index % 16 == 0 {
                    bed.audit();
                }
            }
            drop(ends);
            readers
                .into_iter()
                .for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(bed.kernel.take_without_owner(), []);
        bed.vmemmap.empty_reserve(&mut bed.table);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn orders_change_beside_readers_by_direct_exchange(kind: BackendKind) {
    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
        orders_change_beside_readers(kind, tails, Replacement::Direct);
    }
}

fn orders_change_beside_readers_by_break_before_make(kind: BackendKind) {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        orders_change_beside_readers(kind, tails, Replacement::BreakBeforeMake);
    }
}

/// Where the reserve ends, all that was frozen has the references that it had, also behind a page in use.
fn what_is_left_where_the_reserve_ends_has_its_references(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let Orders { large, small } = orders(kind);
    let ranges = [sizes.blocks(large, 4, 3)];
    let pages = [4, 5, 6].map(|page| sizes.blocks(large, page, 1));
    on_bed_with(kind, Replacement::Direct, |bed| {
        let before = pagemap(&kind.model(), &ranges, large).with_tails(Tails::PerOrder);
        let after = pagemap(&kind.model(), &ranges, small).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &before).unwrap();
        let reader = bed.reader();
        let reference = reader.enter().reference(pages[1].last()).unwrap();
        let quiescent = freeze(bed, &after, ranges[0]).wait();
        let table = &mut bed.table;
        let changed = bed
            .vmemmap
            .commit_reorder(table, quiescent, &after, ranges[0], 7)
            .changed;
        let too_small = FoldError::ReserveTooSmall { node: NODE };
        assert_eq!((changed.busy, changed.error), (1, Some(too_small)));
        assert_eq!(changed.folded.changed, 0);
        drop(reference);
        for page in pages {
            let reading = reader.enter();
            let found = reading.page_of(page.last()).unwrap();
            assert_eq!((found.first(), found.order()), (page.start(), large));
            assert_eq!(found.head().references().get(), Some(1), "{page}");
        }
        assert_eq!(bed.kernel.take_without_owner(), []);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

/// Memory that was a part of a page of which more was missing is found as soon as it is whole pages, also
/// where readers have found nothing before: the bits for that come from the reserve.
fn parts_of_incomplete_pages_are_found_as_whole_ones(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let piece = sizes.subsection();
    let order = |more| Order::new(piece.get() + more).unwrap();
    let ranges = [sizes.blocks(order(2), 4, 1)];
    let last = sizes.blocks(piece, 19, 1);
    for (other, found) in [(piece, Some(piece)), (order(1), None)] {
        on_bed_with(kind, Replacement::Direct, |bed| {
            let of = |order| pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerOrder);
            let region = bed.vmemmap.online(&mut bed.table, &of(order(2))).unwrap();
            let offlined = bed.vmemmap.depopulate(&mut bed.table, &of(order(2)), last);
            offlined.map(drop).unwrap();
            let populated = bed.vmemmap.populate(&mut bed.table, &of(other), last);
            populated.map(drop).unwrap();
            let before: Vec<_> = found.map(|order| (last, order)).into_iter().collect();
            bed.expect(ranges[0], &before);
            let after = of(piece);
            let needed = bed
                .vmemmap
                .reserve_needed(&bed.table, &after, ranges[0], order(2));
            if found.is_none() {
                // All of it is needed, the frame of bits too.
                let less = Reserve {
                    frames: needed.frames - 1,
                    ..needed
                };
                let filled = bed.vmemmap.fill_reserve(&mut bed.table, NODE, less);
                filled.map(drop).unwrap();
                let refused = bed.vmemmap.reorder_step(&mut bed.table, &after, ranges[0]);
                let too_small = FoldError::ReserveTooSmall { node: NODE };
                assert_eq!(refused.err(), Some(too_small));
                bed.expect(ranges[0], &[]);
                bed.audit();
            }
            let filled = bed.vmemmap.fill_reserve(&mut bed.table, NODE, needed);
            filled.map(drop).unwrap();
            let out = bed.frames.outstanding();
            let done = bed.vmemmap.reorder(&mut bed.table, &after, ranges[0]);
            assert_eq!(done.unwrap().rest, None);
            assert_eq!(bed.frames.outstanding(), out);
            bed.expect(ranges[0], &[(ranges[0], piece)]);
            bed.audit();
            bed.vmemmap.empty_reserve(&mut bed.table);
            bed.vmemmap.offline(&mut bed.table, region).unwrap();
        });
    }
}

/// Where a page is in use, the others of what a huge leaf could map get the frames of its block: what is
/// needed suffices, wherever that page is.
fn next_to_a_page_in_use_the_frames_of_a_block_do(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    if kind.model().granule() != Granule::Size4K {
        // Blocks of larger pages are too large for this.
        return;
    }
    let order = sizes.natural();
    let ranges = [sizes.blocks(sizes.table(), 3, 3)];
    let pages = ranges[0].frames() >> order.get();
    // None in a huge leaf, at an end of one, and in each.
    for in_use in [
        vec![],
        vec![0],
        vec![pages / 3 - 1, pages - 5],
        vec![7, pages / 2, pages - 1],
    ] {
        on_bed_with(kind, Replacement::Direct, |bed| {
            let compound = pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerCompound);
            let base = pagemap(&kind.model(), &ranges, Order::BASE)
                .with_huge_leaves(true)
                .with_piece(Piece::Range);
            let region = bed.vmemmap.online(&mut bed.table, &compound).unwrap();
            let needed = bed
                .vmemmap
                .reserve_needed(&bed.table, &base, ranges[0], order);
            let filled = bed.vmemmap.fill_reserve(&mut bed.table, NODE, needed);
            filled.map(drop).unwrap();
            let reader = bed.reader();
            let page = |index: u64| {
                let first = ranges[0].start().saturating_add(index << order.get());
                PfnRange::new(first, order.frames()).unwrap()
            };
            let references: Vec<_> = in_use
                .iter()
                .map(|index| reader.enter().reference(page(*index).last()).unwrap())
                .collect();
            let changed = reorder(bed, &base, ranges[0]);
            assert_eq!((changed.busy, changed.error), (in_use.len() as u64, None));
            let orders = (0..pages).map(|index| match in_use.contains(&index) {
                true => (page(index), order),
                false => (page(index), Order::BASE),
            });
            bed.expect(ranges[0], &orders.collect::<Vec<_>>());
            bed.audit();
            drop(references);
            bed.vmemmap.empty_reserve(&mut bed.table);
            bed.vmemmap.offline(&mut bed.table, region).unwrap();
        });
    }
}

on_backends!(radix:
    next_to_a_page_in_use_the_frames_of_a_block_do,
    a_page_in_use_stays_and_the_others_change,
    what_is_not_changed_is_thawed_as_it_was,
    what_is_left_where_the_reserve_ends_has_its_references,
    parts_of_incomplete_pages_are_found_as_whole_ones,
    orders_change_beside_readers_by_direct_exchange,
    orders_change_beside_readers_by_break_before_make,
);
