//! Readers in threads of their own, while memory comes online, goes offline, is frozen and thawed.

use super::bed::{Bed, Done, Handle, on_bed_with, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::paging::Replacement;
use mm_core::readers::NoReference;
use mm_core::vmemmap::OfflineError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use testkit::on_backends;
use testkit::testbed::Sizes;

const READERS: u64 = 2;
const ROUNDS: u64 = 90;

/// Asks about frames of `frames`, which are pages of `order`, until `done`: whatever is found is the
/// page that it should be, and is so as long as there is a reference. Counts its references in `had`.
fn read(
    reader: Handle<'_>,
    frames: PfnRange,
    order: Order,
    (done, had): (&AtomicBool, &AtomicU64),
    seed: u64,
) {
    for index in seed.. {
        if done.load(Ordering::Acquire) {
            break;
        }
        let frame = frames.start().saturating_add(index * 37 % frames.frames());
        let expected = (frame.align_down(order), order);
        let found = {
            let reading = reader.enter();
            let page = reading.page_of(frame);
            if let Some(page) = &page {
                let _ = page.head().mappings().load(Ordering::Relaxed);
            }
            page.map(|page| (page.first(), page.order()))
        };
        assert!(found.is_none_or(|found| found == expected), "{found:?}");
        // The guard is not held any longer than this takes.
        let reference = reader.enter().reference(frame);
        match reference {
            Ok(reference) => {
                assert_eq!((reference.first(), reference.order()), expected);
                let stamp = u64::from(reference.head().mappings().load(Ordering::Relaxed));
                // It has just come online, or has the stamp of its owner.
                let is_right = stamp == 0 || stamp == stamp_of(expected.0.get());
                assert!(is_right, "{frame}: {stamp}");
                had.fetch_add(1, Ordering::Relaxed);
            }
            Err(NoReference::NotOnline | NoReference::Refused) => {}
        }
    }
}

/// What the owner of a page writes into its head.
fn stamp_of(first: u64) -> u64 {
    first % 251 + 1
}

/// Stamps the head of every page of `frames`.
fn stamp(reader: Handle<'_>, frames: PfnRange, order: Order) {
    for page in 0..frames.frames() / order.frames() {
        let first = frames.start().saturating_add(page * order.frames());
        let reading = reader.enter();
        let head = reading.page_of(first).unwrap();
        let stamp = stamp_of(first.get()) as u32;
        head.head().mappings().store(stamp, Ordering::Relaxed);
    }
}

/// What the writer does in a round with a part that is online.
fn round(bed: &mut Bed<'_>, pagemap: &DevPagemap<'_>, part: PfnRange, round: u64) {
    let order = pagemap.geometry().order();
    // SAFETY: 1: all CPUs translate by the machine's one table. 2: the owner's references are the
    // test's, which does not use them.
    let frozen = unsafe { bed.vmemmap.freeze(&bed.table, pagemap, part, 1) };
    let frozen = match frozen {
        Err(OfflineError::Busy { .. }) => return thread::yield_now(),
        frozen => frozen.unwrap(),
    };
    let quiescent = match round % 3 {
        0 => return drop(frozen),
        1 => return drop(frozen.wait()),
        _ => frozen.wait(),
    };
    bed.vmemmap.commit(&mut bed.table, quiescent).unwrap();
    bed.vmemmap.populate(&mut bed.table, pagemap, part).unwrap();
    stamp(bed.reader(), part, order);
}

fn readers_find_pages_as_they_are(
    kind: BackendKind,
    order: Order,
    tails: Tails,
    replacement: Replacement,
) {
    let sizes = Sizes::of(kind.model());
    on_bed_with(kind, replacement, |bed| {
        let large = order.max(sizes.natural());
        let ranges = [sizes.blocks(large, 3, 4)];
        let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(tails);
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        let (done, had) = (AtomicBool::new(false), AtomicU64::new(0));
        let reader = bed.reader();
        stamp(reader, ranges[0], order);
        thread::scope(|scope| {
            let ends = Done(&done);
            let counters = (&done, &had);
            let spawn = |seed| scope.spawn(move || read(reader, ranges[0], order, counters, seed));
            let readers: Vec<_> = (0..READERS).map(|reader| spawn(reader * 1001)).collect();
            // On a busy machine readers begin late.
            let enough = |index| index >= ROUNDS && had.load(Ordering::Relaxed) >= ROUNDS;
            for index in (0..).take_while(|index| !enough(*index)) {
                let part = sizes.blocks(large, 3 + index % 4, 1);
                round(bed, &pagemap, part, index);
                if index % 50 == 0 {
                    bed.audit();
                }
            }
            drop(ends);
            readers
                .into_iter()
                .for_each(|reader| reader.join().unwrap());
        });
        let heads = ranges[0].frames() / order.frames();
        for page in 0..heads {
            let first = ranges[0].start().saturating_add(page * order.frames());
            let reading = reader.enter();
            let references = reading.page_of(first).unwrap().head().references().get();
            assert_eq!(references, Some(1), "every reference was given back");
        }
        assert_eq!(bed.kernel.take_without_owner(), []);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn pages_go_offline_and_come_back_beside_readers(kind: BackendKind) {
    let natural = Sizes::of(kind.model()).natural();
    for tails in [Tails::PerCompound, Tails::PerOrder, Tails::None] {
        readers_find_pages_as_they_are(kind, natural, tails, Replacement::Direct);
    }
}

fn base_pages_and_large_ones_go_offline_and_come_back_beside_readers(kind: BackendKind) {
    let table = Sizes::of(kind.model()).table();
    readers_find_pages_as_they_are(kind, Order::BASE, Tails::None, Replacement::Direct);
    readers_find_pages_as_they_are(kind, table, Tails::PerOrder, Replacement::BreakBeforeMake);
}

on_backends!(radix:
    pages_go_offline_and_come_back_beside_readers,
    base_pages_and_large_ones_go_offline_and_come_back_beside_readers,
);
