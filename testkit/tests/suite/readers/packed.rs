//! Readers of memory with packed heads: pages, references, and what is frozen.

use super::bed::{Bed, Done, Handle, on_bed, on_bed_with, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::descriptor::Descriptor;
use mm_core::pagemap::{DevPagemap, Heads, Tables, Tails};
use mm_core::paging::{PageTable, Replacement};
use mm_core::readers::{NoReference, PageReference, Put};
use mm_core::vmemmap::{OfflineError, Reserve};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use testkit::on_backends;
use testkit::testbed::Sizes;

const NODE: NodeId = NodeId::new(0);
const ROUNDS: u64 = 60;

/// Six pages, of which four are in one page of places and two in the next.
fn on_pages(kind: BackendKind, test: impl FnOnce(&mut Bed<'_>, &DevPagemap<'_>, PfnRange, Order)) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, kind.model().descriptors_per_page() - 4, 6)];
    on_bed(kind, |bed| {
        let pagemap = pagemap(&kind.model(), &ranges, order)
            .with_heads(Heads::Packed)
            .with_tables(Tables::Shared);
        test(bed, &pagemap, ranges[0], order);
    });
}

fn pages_are_found_with_their_heads(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let model = kind.model();
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        bed.expect(frames, &[(frames, order)]);
        let reader = bed.reader();
        let reading = reader.enter();
        for first in (0..6).map(|page| frames.start().saturating_add(page << order.get())) {
            let last = first.saturating_add(order.frames() - 1);
            let of_first = reading.page_of(first).unwrap();
            of_first
                .head()
                .flags()
                .store(first.get(), Ordering::Relaxed);
            let own = of_first.own_descriptor().unwrap();
            assert_eq!(own.flags().load(Ordering::Relaxed), first.get());
            for frame in [first.saturating_add(1), last] {
                let page = reading.page_of(frame).unwrap();
                assert_eq!(page.frames(), PfnRange::new(first, order.frames()).unwrap());
                assert!(page.own_descriptor().is_none());
                let head = page.head();
                assert_eq!(head.flags().load(Ordering::Relaxed), first.get());
                assert_eq!(head.order(), order);
            }
            // By a walk too.
            let described = bed.vmemmap.descriptor(&bed.table, first).unwrap();
            let flags = described.own().unwrap().flags();
            assert_eq!(flags.load(Ordering::Relaxed), first.get());
            assert!(
                bed.vmemmap
                    .descriptor(&bed.table, last)
                    .unwrap()
                    .own()
                    .is_none()
            );
        }
        drop(reading);
        let mut listed = bed.vmemmap.pages(&bed.table, frames);
        assert_eq!(listed.by_ref().take(6).count(), 6);
        assert!(listed.next().is_none());
        let listed = bed.vmemmap.pages(&bed.table, frames);
        for page in listed {
            assert_eq!(
                (page.order, page.heads, page.tails),
                (order, Heads::Packed, Tails::PerOrder)
            );
        }
        assert!(model.heads().is_some());
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        bed.expect(frames, &[]);
    });
}

fn references_are_counted_in_packed_heads(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        let reader = bed.reader();
        let first = frames.start().saturating_add(order.frames());
        let page = PfnRange::new(first, order.frames()).unwrap();
        let count = || {
            reader
                .enter()
                .page_of(first)
                .unwrap()
                .head()
                .references()
                .get()
        };
        let of = [first, first.saturating_add(1), page.last()];
        let references = of.map(|frame| reader.enter().reference(frame).unwrap());
        assert_eq!(count(), Some(4));
        for reference in &references {
            assert_eq!((reference.frames(), reference.order()), (page, order));
            assert_eq!(reference.head().references().get(), Some(4));
        }
        let [one, two, three] = references;
        assert_eq!(one.put(), Put::Shared);
        drop(two);
        let raw = three.into_raw();
        assert_eq!((raw, count()), (first, Some(2)));
        // SAFETY: 1: it came from `into_raw`. 2: once.
        let three = unsafe { PageReference::from_raw(reader, raw) };
        assert_eq!((three.first(), three.order()), (first, order));
        assert_eq!(three.put(), Put::Shared);
        // The neighbours' are their own.
        let other = reader
            .enter()
            .page_of(frames.start())
            .unwrap()
            .head()
            .references()
            .get();
        assert_eq!(other, Some(1));
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        assert_eq!(
            reader.enter().reference(first).err(),
            Some(NoReference::NotOnline)
        );
    });
}

fn frozen_pages_go_offline_beside_their_neighbours(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        let reader = bed.reader();
        let unit = order.max(kind.model().subsection());
        let start = frames.start().saturating_add(unit.frames());
        let piece = PfnRange::new(start, unit.frames()).unwrap();
        let other = reader.enter().reference(piece.last()).unwrap();
        // SAFETY: 1: as for `bed.reader`. 2: the one of each page is this test's.
        let busy = unsafe { bed.vmemmap.try_offline(&mut bed.table, pagemap, piece, 1) };
        assert_eq!(
            busy.map(drop),
            Err(OfflineError::Busy {
                first: other.first()
            })
        );
        assert_eq!(other.put(), Put::Shared);
        // SAFETY: 1 and 2: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, pagemap, piece, 1) }.unwrap();
        assert!(reader.enter().reference(piece.start()).is_err());
        assert!(reader.enter().reference(frames.start()).is_ok());
        let first = piece.start();
        let refused = bed.vmemmap.depopulate(&mut bed.table, pagemap, piece);
        assert_eq!(refused.map(drop), Err(OfflineError::Frozen { first }));
        drop(frozen);
        let reference = reader.enter().reference(piece.start()).unwrap();
        assert_eq!(reference.put(), Put::Shared);
        // SAFETY: 1 and 2: as above.
        unsafe { bed.vmemmap.try_offline(&mut bed.table, pagemap, piece, 1) }.unwrap();
        assert!(reader.enter().page_of(piece.start()).is_none());
        assert!(reader.enter().page_of(frames.start()).is_some());
        bed.audit();
        bed.vmemmap
            .populate(&mut bed.table, pagemap, piece)
            .unwrap();
        bed.expect(frames, &[(frames, order)]);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

/// The pagemaps of what `frames` become: pages of two orders with packed heads, base pages beside such, and pages
/// with their heads in place.
fn forms<'p>(kind: BackendKind, ranges: &'p [PfnRange]) -> [DevPagemap<'p>; 4] {
    let sizes = Sizes::of(kind.model());
    let of = |order, heads| {
        pagemap(&kind.model(), ranges, order)
            .with_heads(heads)
            .with_tails(Tails::PerOrder)
            .with_tables(Tables::Shared)
    };
    [
        of(sizes.natural(), Heads::Packed),
        of(sizes.vmemmap_page(), Heads::Packed),
        of(Order::BASE, Heads::Packed),
        of(sizes.natural(), Heads::InPlace),
    ]
}

fn fill(bed: &mut Bed<'_>, forms: &[DevPagemap<'_>], frames: PfnRange) {
    let largest = Sizes::of(bed.kind.model()).natural();
    let needed = forms
        .iter()
        .map(|to| bed.vmemmap.reserve_needed(&bed.table, to, frames, largest));
    let all = needed.fold(Reserve::default(), |all, one| Reserve {
        frames: all.frames + one.frames,
        tables: all.tables + one.tables,
        huge_leaves: 0,
    });
    let filled = bed.vmemmap.fill_reserve(&mut bed.table, NODE, all);
    filled.map(drop).unwrap();
}

/// A reader that has found an old head looks at it until it is done. Until the second wait is over the memory is in
/// use as what it has become, and does not change again.
fn old_heads_stay_until_a_second_wait(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let (large, small) = (sizes.natural(), sizes.vmemmap_page());
    let ranges = [sizes.blocks(large, 4, 2)];
    let first = ranges[0].start();
    on_bed(kind, |bed| {
        let forms = forms(kind, &ranges);
        let region = bed.vmemmap.online(&mut bed.table, &forms[0]).unwrap();
        fill(bed, &forms, ranges[0]);
        let reader = bed.reader();
        let old = kind.model().packed_head(first, large).unwrap();
        for releases in [true, false] {
            // SAFETY: 1: as for `bed.reader`. 2: the one of each page is this test's.
            let frozen = unsafe {
                bed.vmemmap
                    .freeze_units(&bed.table, &forms[1], ranges[0], 1)
            };
            let quiescent = frozen.unwrap().wait();
            let reading = reader.enter();
            let page = reading.page_of(ranges[0].last()).unwrap();
            assert_eq!(page.order(), large);
            let (table, after) = (&mut bed.table, &forms[1]);
            let committed = bed
                .vmemmap
                .commit_reorder(table, quiescent, after, ranges[0], 1);
            assert_eq!((committed.changed.busy, committed.changed.error), (0, None));
            let old_heads = committed.old_heads.unwrap();
            assert_eq!(page.head().order(), large, "it is still there");
            assert_eq!(page.head().references().get(), None, "and frozen");
            drop(reading);
            bed.expect(ranges[0], &[(ranges[0], small)]);
            drop(reader.enter().reference(first).unwrap());
            bed.audit();
            assert!(bed.table.lookup(old).mapping().is_some());
            // Nobody makes a head there, or takes another one, before that is over.
            // SAFETY: 1 and 2: as above.
            let busy = unsafe {
                bed.vmemmap
                    .freeze_units(&bed.table, &forms[0], ranges[0], 1)
            };
            assert_eq!(busy.unwrap().busy(), 2);
            let refused = bed.vmemmap.depopulate(&mut bed.table, after, ranges[0]);
            assert_eq!(refused.map(drop), Err(OfflineError::Frozen { first }));
            if releases {
                let before = bed.vmemmap.reserve(NODE);
                let released = bed
                    .vmemmap
                    .release_heads(&mut bed.table, after, old_heads.wait());
                assert_eq!(released, Ok(()));
                assert!(bed.table.lookup(old).mapping().is_none());
                assert!(bed.vmemmap.reserve(NODE).frames > before.frames);
            } else {
                drop(old_heads);
            }
            bed.audit();
            for to in [2, 3, 0] {
                // SAFETY: 1: as above.
                let changed = unsafe {
                    bed.vmemmap.reorder_beside_readers(
                        &mut bed.table,
                        &forms[to],
                        ranges[0],
                        (1, 1),
                    )
                };
                let changed = changed.unwrap();
                assert_eq!((changed.busy, changed.error), (0, None), "{to} {changed:?}");
                let order = forms[to].geometry().order();
                bed.expect(ranges[0], &[(ranges[0], order)]);
                bed.audit();
            }
        }
        bed.vmemmap.empty_reserve(&mut bed.table);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        bed.expect(ranges[0], &[]);
    });
}

/// Gets references and looks whether they keep their pages as they are.
fn read(reader: Handle<'_>, frames: PfnRange, done: &AtomicBool, had: &AtomicU64, seed: u64) {
    let mut state = seed;
    while !done.load(Ordering::Acquire) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let frame = frames
            .start()
            .saturating_add((state >> 33) % frames.frames());
        if let Some(page) = reader.enter().page_of(frame) {
            assert!(page.frames().contains(frame));
            let _ = page.head().references().get();
        }
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

/// Heads are packed, in place, and of other orders, whole pages and parts, beside readers in threads.
fn packed_pages_change_beside_readers(kind: BackendKind, replacement: Replacement) {
    let sizes = Sizes::of(kind.model());
    let ranges = [sizes.blocks(sizes.natural(), 4, 3)];
    on_bed_with(kind, replacement, |bed| {
        let forms = forms(kind, &ranges);
        let region = bed.vmemmap.online(&mut bed.table, &forms[0]).unwrap();
        fill(bed, &forms, ranges[0]);
        let (done, had) = (AtomicBool::new(false), AtomicU64::new(0));
        let reader = bed.reader();
        thread::scope(|scope| {
            let ends = Done(&done);
            let (done, had) = (&done, &had);
            let spawn = |seed| scope.spawn(move || read(reader, ranges[0], done, had, seed));
            let threads = [0, 1001].map(spawn);
            let mut changes = 0;
            let mut index = 0;
            while index < ROUNDS || had.load(Ordering::Relaxed) <= ROUNDS || changes < ROUNDS {
                let to = &forms[(index % 11 % 4) as usize];
                let order = to.geometry().order().max(sizes.vmemmap_page());
                let pages = ranges[0].frames() >> order.get();
                let first = (ranges[0].start().get() >> order.get()) + index * 5 % pages;
                let part = sizes.blocks(order, first, 1);
                // SAFETY: 1: as for `bed.reader`; the one of each page is this test's.
                let changed = unsafe {
                    bed.vmemmap
                        .reorder_beside_readers(&mut bed.table, to, part, (1, 1))
                };
                let changed = changed.unwrap();
                assert_eq!(changed.error, None, "{index}");
                changes += changed.folded.changed;
                index += 1;
                if index % 16 == 0 {
                    bed.audit();
                }
            }
            drop(ends);
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(bed.kernel.take_without_owner(), []);
        bed.vmemmap.empty_reserve(&mut bed.table);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn packed_pages_change_beside_readers_by_direct_exchange(kind: BackendKind) {
    packed_pages_change_beside_readers(kind, Replacement::Direct);
}

fn packed_pages_change_beside_readers_by_break_before_make(kind: BackendKind) {
    packed_pages_change_beside_readers(kind, Replacement::BreakBeforeMake);
}

on_backends!(radix:
    old_heads_stay_until_a_second_wait,
    packed_pages_change_beside_readers_by_direct_exchange,
    packed_pages_change_beside_readers_by_break_before_make,
    pages_are_found_with_their_heads,
    references_are_counted_in_packed_heads,
    frozen_pages_go_offline_beside_their_neighbours,
);
