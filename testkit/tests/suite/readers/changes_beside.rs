//! Pages become others beside readers in threads.

use super::bed::{Done, Handle, on_bed_with, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::Tails;
use mm_core::paging::Replacement;
use mm_core::vmemmap::Change;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use testkit::on_backends;
use testkit::testbed::Sizes;

const ROUNDS: u64 = 60;

/// Takes references until `done`: each is to a base page, or to a page of `order`, that the frame is
/// part of, and that stays as long as the reference is there.
fn read(
    reader: Handle<'_>,
    frames: PfnRange,
    order: Order,
    (done, had): (&AtomicBool, &[AtomicU64; 2]),
    seed: u64,
) {
    for index in seed.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let frame = frames.start().saturating_add(index * 37 % frames.frames());
        assert!(reader.enter().is_online(frame), "it is online all the time");
        let Ok(reference) = reader.enter().reference(frame) else {
            continue;
        };
        let is_base = reference.order() == Order::BASE;
        assert!(
            is_base || reference.order() == order,
            "{}",
            reference.order()
        );
        assert_eq!(reference.first(), frame.align_down(reference.order()));
        let reading = reader.enter();
        let page = reading.page_of(frame).unwrap();
        let now = (page.first(), page.order());
        assert_eq!(
            now,
            (reference.first(), reference.order()),
            "it has changed"
        );
        drop(reading);
        drop(reference);
        had[usize::from(is_base)].fetch_add(1, Ordering::Relaxed);
    }
}

fn pages_change_beside_readers(
    kind: BackendKind,
    tails: Tails,
    huge: bool,
    replacement: Replacement,
) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 4, 3)];
    on_bed_with(kind, replacement, |bed| {
        let base = pagemap(&kind.model(), &ranges, Order::BASE).with_huge_leaves(huge);
        let compound = pagemap(&kind.model(), &ranges, order)
            .with_tails(tails)
            .with_huge_leaves(huge);
        let region = bed.vmemmap.online(&mut bed.table, &base).unwrap();
        let (done, had) = (
            AtomicBool::new(false),
            [AtomicU64::new(0), AtomicU64::new(0)],
        );
        let reader = bed.reader();
        let mut is_folded = [false; 3];
        thread::scope(|scope| {
            let ends = Done(&done);
            let counters = (&done, &had);
            let spawn = |seed| scope.spawn(move || read(reader, ranges[0], order, counters, seed));
            let readers = [0, 1001].map(spawn);
            let enough = |index| {
                let had = had.iter().all(|had| had.load(Ordering::Relaxed) > ROUNDS);
                index >= ROUNDS && had
            };
            for index in (0..).take_while(|index| !enough(*index)) {
                let unit = (index % 3) as usize;
                let frames = sizes.blocks(order, 4 + index % 3, 1);
                let mut change = |change, pagemap| {
                    // SAFETY: 1: all CPUs translate by the machine's one table. 2: the owners'
                    // references
                    // are the test's, which does not use them.
                    let changed = unsafe {
                        bed.vmemmap.change_beside_readers(
                            &mut bed.table,
                            change,
                            pagemap,
                            frames,
                            (1, 1),
                        )
                    };
                    let changed = changed.unwrap();
                    assert_eq!(changed.error, None);
                    changed.busy == 0
                };
                if !is_folded[unit] {
                    is_folded[unit] = change(Change::Fold, &compound);
                } else if change(Change::Unfold, &compound) {
                    while !change(Change::Reshape, &base) {
                        thread::yield_now();
                    }
                    is_folded[unit] = false;
                }
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
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn pages_change_beside_readers_by_direct_exchange(kind: BackendKind) {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for huge in [false, true] {
            pages_change_beside_readers(kind, tails, huge, Replacement::Direct);
        }
    }
}

fn pages_change_beside_readers_by_break_before_make(kind: BackendKind) {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        pages_change_beside_readers(kind, tails, true, Replacement::BreakBeforeMake);
    }
}

on_backends!(radix:
    pages_change_beside_readers_by_direct_exchange,
    pages_change_beside_readers_by_break_before_make,
);
