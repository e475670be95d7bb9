//! CPUs that help: what is online is as if nobody had helped, and what fails leaves nothing behind.

use super::{SHARED, compound, memory, pagemap};
use hosted::{BackendKind, Threads};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Page;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::Workers;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::thread;
use testkit::testbed::{Encoding, Faults, Setup, Testbed, fail_each};
use testkit::{OnBackend, on_backends};

/// Each part on a thread of its own, one after the other, the last part first. Notes how many there were.
struct Backwards(Mutex<Vec<usize>>);

impl Backwards {
    fn leaked() -> &'static Self {
        Box::leak(Box::new(Self(Mutex::default())))
    }

    /// How many parts there were each time since it was asked last.
    fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// SAFETY: 1: the numbers from the last to the first. 2 and 3: each thread is started here and joined.
unsafe impl Workers for Backwards {
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        for index in (0..parts).rev() {
            thread::scope(|scope| scope.spawn(|| part(index)).join()).unwrap();
        }
        self.0.lock().unwrap().push(parts);
    }
}

/// Each policy whose descriptors are described in another way, with the size of the pages.
fn kinds(kind: BackendKind) -> [(Order, Tails); 3] {
    let order = compound(&kind.model());
    [
        (Order::BASE, Tails::None),
        (order, Tails::PerOrder),
        (order, Tails::PerCompound),
    ]
}

/// The bytes of all descriptors of `range`, as they are seen in the vmemmap.
fn descriptors(bed: &dyn Testbed<'_>, range: PfnRange) -> Vec<Vec<u8>> {
    let model = bed.model();
    let shift = model.granule().shift();
    let pages = range.frames() / model.descriptors_per_page();
    let first = model.descriptor_address(range.start()).unwrap();
    let at = |page| first.checked_add(page << shift).unwrap();
    let bytes = |page| {
        let leaf = bed.leaf(at(page)).unwrap();
        bed.memory().page_bytes(leaf.frame_at(at(page), shift))
    };
    (0..pages).map(|page| bytes(page).unwrap()).collect()
}

/// What `range` looks like when it is online, and what that costs.
fn online(
    kind: BackendKind,
    encoding: Encoding,
    range: PfnRange,
    pagemap: &DevPagemap<'_>,
    workers: Option<&'static dyn Workers>,
) -> (Vec<Vec<u8>>, String) {
    let mut seen = None;
    let setup = Setup::new(&[range]).with_encoding(encoding);
    kind.testbed(&setup, |bed| {
        bed.use_workers(workers);
        let region = bed.online(pagemap).unwrap();
        assert!(region.notes().is_empty());
        bed.audit();
        seen = Some((descriptors(bed, range), format!("{:?}", bed.stats())));
        bed.offline(region);
        assert_eq!(bed.frames().outstanding(), 0);
    });
    seen.unwrap()
}

/// Much more than one batch, and no multiple of a part.
fn what_others_describe_is_what_one_would_have_described(kind: BackendKind) {
    let model = kind.model();
    let backwards = Backwards::leaked();
    let several: &'static dyn Workers = Threads::leaked(NonZeroUsize::new(3).unwrap());
    for (order, tails) in kinds(kind) {
        for encoding in [Encoding::Mask, Encoding::Pointer] {
            if tails == Tails::PerOrder && encoding == Encoding::Pointer {
                continue;
            }
            let frames = 3 * SHARED / model.granule().bytes() + 8;
            let ranges = [memory(&model, order, tails, frames)];
            let pagemap = pagemap(&model, &ranges, order, tails);
            let pagemap = pagemap.with_huge_leaves(false);
            let [range] = ranges;
            let alone = online(kind, encoding, range, &pagemap, None);
            for workers in [backwards as &'static dyn Workers, several] {
                let helped = online(kind, encoding, range, &pagemap, Some(workers));
                assert!(helped == alone, "{order} {tails:?} {encoding:?}");
            }
            let asked = backwards.asked();
            assert!(!asked.is_empty(), "{order} {tails:?}: nobody was asked");
            assert!(asked.iter().all(|parts| *parts > 1), "{asked:?}");
        }
    }
}

/// A huge leaf with 4K pages has 2 MiB of descriptors.
fn huge_leaves_are_described_by_all(kind: BackendKind) {
    let model = kind.model();
    let backwards = Backwards::leaked();
    let ranges = [memory(&model, Order::BASE, Tails::None, 1024)];
    let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None);
    let [range] = ranges;
    let alone = online(kind, Encoding::Mask, range, &pagemap, None);
    let helped = online(kind, Encoding::Mask, range, &pagemap, Some(backwards));
    assert!(helped == alone);
    assert_eq!(backwards.asked(), [16, 16]);
}

fn little_memory_is_described_by_nobody_else(kind: BackendKind) {
    let model = kind.model();
    let backwards = Backwards::leaked();
    for (order, tails) in kinds(kind) {
        let frames = SHARED / model.granule().bytes() - 8;
        let ranges = [memory(&model, order, tails, frames)];
        let pagemap = pagemap(&model, &ranges, order, tails);
        let pagemap = pagemap.with_huge_leaves(false);
        online(kind, Encoding::Mask, ranges[0], &pagemap, Some(backwards));
        assert_eq!(backwards.asked(), [], "{order} {tails:?}");
    }
}

on_backends!(
    all: what_others_describe_is_what_one_would_have_described,
    little_memory_is_described_by_nobody_else,
);
on_backends!(pages_of_4k: huge_leaves_are_described_by_all);

/// With 64K pages, whose frames are few: each of them fails.
#[test]
fn failures_leave_nothing_behind_and_cost_nothing() {
    let kind = BackendKind::AArch64_64K;
    let model = kind.model();
    let several: &'static dyn Workers = Threads::leaked(NonZeroUsize::new(2).unwrap());
    for (order, tails) in kinds(kind) {
        let ranges = [memory(&model, order, tails, 24)];
        let pagemap = pagemap(&model, &ranges, order, tails);
        let pagemap = pagemap.with_huge_leaves(false);
        kind.testbed(&Setup::new(&ranges), |bed| {
            bed.use_workers(Some(several));
            let undo = |bed: &mut dyn Testbed<'_>, region| {
                bed.offline(region);
            };
            let needed = fail_each(bed, Faults::Ram, |bed| bed.online(&pagemap), undo);
            assert!(needed >= 24, "{needed}");
        });
    }
}

/// Whoever uses a vmemmap may send it to another thread.
#[test]
fn a_vmemmap_with_workers_can_be_sent() {
    fn is_send<T: Send>() {}
    type Any =
        mm_core::vmemmap::Vmemmap<Page, &'static arch_sim::SimFrames, &'static arch_sim::SimMemory>;
    is_send::<Any>();
}
