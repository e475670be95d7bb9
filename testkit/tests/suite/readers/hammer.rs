//! Everything at once: memory comes online and goes offline, is folded and unfolded, and changes its order
//! from the largest pages to the smallest and back, while threads take references and store to heads.

use super::bed::{Bed, Done, Handle, on_bed_with, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Tables, Tails};
use mm_core::paging::Replacement;
use mm_core::vmemmap::{Change, Changed, OfflineError, Reserve};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use testkit::on_backends;
use testkit::testbed::Sizes;

const ROUNDS: u64 = 40;
const NODE: NodeId = NodeId::new(0);

/// What the owner of the page that starts with frame `first` writes into its head.
fn stamp_of(first: u64) -> u64 {
    first + 1
}

/// Takes references until `done`. As long as there is one, the page is what it is: its head has the stamp of
/// its owner, or none yet, and keeps what is stored there, and each of its frames leads to it.
fn read(reader: Handle<'_>, frames: PfnRange, (done, had): (&AtomicBool, &AtomicU64), seed: u64) {
    for index in seed.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let frame = frames
            .start()
            .saturating_add(index * 6007 % frames.frames());
        let Ok(reference) = reader.enter().reference(frame) else {
            continue;
        };
        let (first, order) = (reference.first(), reference.order());
        assert_eq!(first, frame.align_down(order));
        let word = (seed % 4) as usize;
        let before = reference.head().private()[word].fetch_add(1, Ordering::Relaxed);
        let stamp = reference.head().flags().load(Ordering::Relaxed);
        assert!(
            stamp == 0 || stamp == stamp_of(first.get()),
            "{first}: {stamp}"
        );
        let other = first.saturating_add(index * 4001 % order.frames());
        let found = reader
            .enter()
            .page_of(other)
            .map(|page| (page.first(), page.order()));
        assert_eq!(found, Some((first, order)), "the page of {other}");
        let now = reference.head().private()[word].load(Ordering::Relaxed);
        assert_eq!(now, before + 1, "a store was lost");
        had.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stamps the heads of what is found of `frames`.
fn stamp(reader: Handle<'_>, frames: PfnRange) {
    let mut rest = Some(frames);
    while let Some(left) = rest {
        let reference = reader.enter().reference(left.start()).ok();
        let mut end = left.start();
        if let Some(page) = &reference {
            page.head()
                .flags()
                .store(stamp_of(page.first().get()), Ordering::Relaxed);
            end = page.frames().last();
        }
        rest = left.split_at(end.get() - left.start().get() + 1).1;
    }
}

/// Memory of one large page and the ways to use it.
struct Memory<'p> {
    all: PfnRange,
    /// In large, middle and base pages.
    pagemaps: [DevPagemap<'p>; 3],
}

impl Memory<'_> {
    /// A change, with what is right of it.
    fn changed(changed: Changed) -> bool {
        assert_eq!(changed.error, None);
        changed.busy == 0
    }

    fn reorder(&self, bed: &mut Bed<'_>, to: usize, part: PfnRange) -> bool {
        let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
        let largest = self.pagemaps[0].geometry().order();
        let needed = vmemmap.reserve_needed(table, &self.pagemaps[to], part, largest);
        vmemmap.fill_reserve(table, NODE, needed).map(drop).unwrap();
        // SAFETY: 1: all CPUs translate by the machine's one table. The owners' references are the test's,
        // which does not use them.
        let changed =
            unsafe { vmemmap.reorder_beside_readers(table, &self.pagemaps[to], part, (1, 1)) };
        Self::changed(changed.unwrap())
    }

    /// Unfolds `part`, whole middle pages, and folds it again, if they share anything.
    fn unfold_and_fold(&self, bed: &mut Bed<'_>, part: PfnRange) {
        if self.pagemaps[1].tails().0 == Tails::None {
            return;
        }
        for change in [Change::Unfold, Change::Fold] {
            let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
            // SAFETY: 1: as above.
            let changed = unsafe {
                vmemmap.change_beside_readers(table, change, &self.pagemaps[1], part, (1, 1))
            };
            if !Self::changed(changed.unwrap()) {
                return;
            }
        }
    }

    /// Takes `part`, whole pages, offline, and brings it back as middle pages.
    fn offline_and_online(&self, bed: &mut Bed<'_>, part: PfnRange) {
        let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
        // SAFETY: 1: as above.
        match unsafe { vmemmap.try_offline(table, &self.pagemaps[1], part, 1) } {
            Err(OfflineError::Busy { .. } | OfflineError::SplitsPage { .. }) => return,
            offlined => offlined.map(drop).unwrap(),
        }
        bed.expect(part, &[]);
        let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
        vmemmap
            .populate(table, &self.pagemaps[1], part)
            .map(drop)
            .unwrap();
    }
}

/// Everything, in turns, under one policy. `large` pages become `middle` ones and base pages.
fn everything_at_once(
    kind: BackendKind,
    (large, middle): (Order, Order),
    (tails, tables): (Tails, Tables),
    replacement: Replacement,
) {
    let sizes = Sizes::of(kind.model());
    let ranges = [sizes.blocks(large, 4, 1)];
    on_bed_with(kind, replacement, |bed| {
        let of = |order| {
            let pagemap = pagemap(&kind.model(), &ranges, order).with_tails(tails);
            pagemap.with_tables(tables)
        };
        let memory = Memory {
            all: ranges[0],
            pagemaps: [of(large), of(middle), of(Order::BASE)],
        };
        let region = bed
            .vmemmap
            .online(&mut bed.table, &memory.pagemaps[0])
            .unwrap();
        let (done, had) = (AtomicBool::new(false), AtomicU64::new(0));
        let reader = bed.reader();
        stamp(reader, memory.all);
        thread::scope(|scope| {
            let ends = Done(&done);
            let counters = (&done, &had);
            let spawn = |seed| scope.spawn(move || read(reader, memory.all, counters, seed));
            let readers = [1, 1002].map(spawn);
            let pages = memory.all.frames() >> middle.get();
            let mut changes = 0;
            let enough = |index, changes| {
                index >= ROUNDS && changes >= ROUNDS / 4 && had.load(Ordering::Relaxed) > ROUNDS
            };
            for index in 0.. {
                if enough(index, changes) {
                    break;
                }
                let number = (memory.all.start().get() >> middle.get()) + index * 5 % pages;
                let part = sizes.blocks(middle, number, 1);
                let is_changed = match index % 8 {
                    0 => memory.reorder(bed, 1, memory.all),
                    1 | 4 => memory.reorder(bed, 2, part),
                    2 | 5 => memory.reorder(bed, 1, part),
                    3 if memory.reorder(bed, 1, part) => {
                        memory.unfold_and_fold(bed, part);
                        true
                    }
                    6 if memory.reorder(bed, 1, part) => {
                        memory.offline_and_online(bed, part);
                        true
                    }
                    7 => memory.reorder(bed, 0, memory.all),
                    _ => false,
                };
                changes += u64::from(is_changed);
                stamp(reader, part);
                bed.vmemmap.empty_reserve(&mut bed.table);
                if index % 8 == 7 {
                    bed.audit();
                }
            }
            drop(ends);
            readers
                .into_iter()
                .for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(bed.kernel.take_without_owner(), []);
        assert_eq!(bed.vmemmap.reserve(NODE), Reserve::default());
        assert!(
            memory.reorder(bed, 0, memory.all),
            "every reference was given back"
        );
        bed.vmemmap.empty_reserve(&mut bed.table);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn everything_at_once_in_a_table(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let middle = sizes.natural();
    let orders = (Order::new(middle.get() + 2).unwrap(), middle);
    for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
        for replacement in [Replacement::Direct, Replacement::BreakBeforeMake] {
            everything_at_once(kind, orders, (tails, Tables::Private), replacement);
        }
    }
}

/// Where a page of several tables is small enough to be written often.
fn everything_at_once_with_shared_tables(kind: BackendKind) {
    if !kind.has_tables() {
        return;
    }
    let sizes = Sizes::of(kind.model());
    let orders = (sizes.gigantic(), sizes.natural());
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        everything_at_once(kind, orders, (tails, Tables::Shared), Replacement::Direct);
    }
}

on_backends!(radix: everything_at_once_in_a_table);
on_backends!(pages_of_4k: everything_at_once_with_shared_tables);
