//! What others may do while the library works, with threads as CPUs: they read descriptors that are
//! folded and unfolded, and store to those of other memory; another vmemmap takes frames from the
//! same allocator; and the memory of an altmap is used otherwise as soon as the altmap is not.
//!
//! Tests see wrong values and lost stores, if they are unlucky. What they cannot see is whether
//! anything orders the bytes that one thread writes before another one reads them. For that, run
//! them under ThreadSanitizer: `cargo xtask sanitize thread`. It knows locks by their atomics, and
//! the standard library's are compiled without it; so the locks here are made of atomics.

use arch_sim::{SimFrames, SimMemory};
use hosted::{BackendKind, Radix, X86_64};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Descriptor, Mask, Page, TailEncoding};
use mm_core::frame::{
    Counted, DeviceAltmap, DirectMap, FrameAllocator, PlainAllocator, ReferenceCounts,
    SharedCounts, WordCounts,
};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::paging::{FlushScope, Mmu, Replacement};
use mm_core::vmemmap::Vmemmap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use testkit::engine::{EngineParts, WithEngine};
use testkit::testbed::Sizes;
use testkit::threads::{Accessed, ThreadCpus};

const NODE: NodeId = NodeId::new(0);

/// How often memory is folded, unfolded, taken offline and brought back.
const ROUNDS: usize = 4;

/// The `index`th of `frames`, counted round and round.
fn frame_of(frames: PfnRange, index: u64) -> Pfn {
    frames.start().saturating_add(index % frames.frames())
}

/// The descriptor of `frame`, by an access.
fn descriptor(cpus: &ThreadCpus, frame: Pfn) -> Accessed<'_, Page<Mask>> {
    cpus.descriptor(cpus.model().descriptor_address(frame).unwrap())
}

/// Reads descriptors of `frames`, which are base pages that are made compound pages of `order`,
/// until `done`: each names itself or its head.
fn read(cpus: &ThreadCpus, frames: PfnRange, order: Order, done: &AtomicBool) {
    let model = cpus.model();
    for index in 0.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        // An odd step meets every frame after a while.
        let frame = frame_of(frames, index * 37);
        let at = model.descriptor_address(frame).unwrap();
        let head = model.descriptor_address(frame.align_down(order)).unwrap();
        let (named, its_order) = {
            let page = cpus.descriptor::<Page<Mask>>(at);
            let _ = page.mappings().load(Ordering::Relaxed);
            (Mask::head_of(at, page.word()), page.order())
        };
        assert!(named == at || named == head, "{frame} names {named}");
        assert!(
            its_order == order || its_order == Order::BASE,
            "{frame}: {its_order:?}"
        );
    }
}

/// Stores to descriptors of `frames` until `done`, and tells how often.
fn store(cpus: &ThreadCpus, frames: PfnRange, done: &AtomicBool) -> u64 {
    let mut stores = 0;
    while !done.load(Ordering::Acquire) {
        let page = descriptor(cpus, frame_of(frames, stores * 37));
        page.mappings().fetch_add(1, Ordering::Relaxed);
        stores += 1;
    }
    stores
}

/// Three units of base pages: one is folded and unfolded beside a CPU that reads its descriptors,
/// one has a CPU that stores to its own, and one goes offline and comes back.
fn reads_beside_a_fold_and_stores_elsewhere_are_as_they_should_be(
    kind: BackendKind,
    replacement: Replacement,
    tails: Tails,
    huge_leaves: bool,
) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ram = PfnRange::new(Pfn::new(1 << 30).unwrap(), 1 << 13).unwrap();
    let root = ram.last().saturating_add(1 << 10);
    let granule = model.granule();
    let memory = SimMemory::new(granule, &[ram, PfnRange::single(root)]).unwrap();
    let frames = SimFrames::new(&memory, &[(NODE, &[ram])]).unwrap();
    let cpus = ThreadCpus::new(kind, &memory, root, replacement);
    // SAFETY: 1: the root is zero. 2: the memory has all frames. 3: the one table.
    let mut table = unsafe { cpus.table(&frames) };
    // SAFETY: 1 to 3: there is one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(model, &frames, &memory) };
    let mut vmemmap = vmemmap.unwrap();

    let ranges = [sizes.blocks(sizes.table(), 3, 3)];
    let [folded, stored, removed] = [3, 4, 5].map(|unit| sizes.blocks(sizes.table(), unit, 1));
    let pagemap = |geometry| {
        DevPagemap::new(&model, &ranges, geometry)
            .unwrap()
            .with_piece(Piece::Range)
            .with_huge_leaves(huge_leaves)
            .with_tails(tails)
    };
    let (base, compound) = (
        pagemap(Geometry::BASE_PAGES),
        pagemap(Geometry::compound(order)),
    );
    let region = vmemmap.online(&mut table, &base).unwrap();

    let done = AtomicBool::new(false);
    let stores = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&cpus, folded, order, &done));
        let storer = scope.spawn(|| store(&cpus, stored, &done));
        let pages = folded.frames() >> order.get();
        for _ in 0..ROUNDS {
            let changed = vmemmap.fold(&mut table, &compound, folded).unwrap();
            assert_eq!(changed.changed, pages);
            vmemmap.depopulate(&mut table, &base, removed).unwrap();
            let changed = vmemmap.unfold(&mut table, &compound, folded).unwrap();
            assert_eq!(changed.changed, pages);
            vmemmap.populate(&mut table, &base, removed).unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
        storer.join().unwrap()
    });
    let counted = (0..stored.frames()).map(|index| {
        let page = descriptor(&cpus, frame_of(stored, index));
        u64::from(page.mappings().load(Ordering::Relaxed))
    });
    assert_eq!(counted.sum::<u64>(), stores);
    vmemmap.offline(&mut table, region).unwrap();
    assert_eq!(frames.outstanding(), 0);
    assert!(memory.violations().is_empty(), "{}", memory.violations());
}

fn in_every_way(kind: BackendKind, replacement: Replacement) {
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for huge_leaves in [true, false] {
            reads_beside_a_fold_and_stores_elsewhere_are_as_they_should_be(
                kind,
                replacement,
                tails,
                huge_leaves,
            );
        }
    }
}

#[test]
fn cpus_read_beside_a_fold_by_direct_exchange_and_store_elsewhere() {
    in_every_way(BackendKind::X86_64, Replacement::Direct);
}

#[test]
fn cpus_read_beside_a_fold_by_break_before_make_and_store_elsewhere() {
    in_every_way(BackendKind::AArch64_4K, Replacement::BreakBeforeMake);
}

/// Single frames, by a bit for each.
struct Bits {
    first: Pfn,
    taken: Vec<AtomicBool>,
}

impl Bits {
    fn bit(&self, frame: Pfn) -> &AtomicBool {
        &self.taken[(frame.get() - self.first.get()) as usize]
    }
}

// SAFETY: 1: a bit that was set is not set again until it is cleared. 2: blocks are single frames.
// 3: the memory of the test has all of them.
unsafe impl PlainAllocator for Bits {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        if order != Order::BASE {
            return None;
        }
        let take = |bit: &AtomicBool| !bit.swap(true, Ordering::AcqRel);
        let index = self.taken.iter().position(take)?;
        Some(Block::single(self.first.saturating_add(index as u64)))
    }

    unsafe fn free(&self, block: Block) {
        self.bit(block.first()).store(false, Ordering::Release);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NODE
    }
}

/// The MMU: nobody translates by these tables.
struct NoCpu;

// SAFETY: 1 to 3: there is no CPU.
unsafe impl<F> Mmu<F> for NoCpu {
    fn flush(&self, _scope: FlushScope<'_>) {}

    fn publish(&self) {}
}

/// Brings memory online and offline on tables of its own, with frames that others take too.
fn comes_and_goes<C: ReferenceCounts>(frames: &Counted<Bits, C>, memory: &SimMemory, root: Pfn) {
    let model = X86_64::RADIX_MODEL;
    let parts = EngineParts {
        root,
        other_roots: None,
        frames,
        memory,
        mmu: &NoCpu,
    };
    // SAFETY: 1: of the table's, 1: the root is zero. 2: the memory has all frames. 3: the one table below it.
    // 4: no CPU translates by it. 5: there is one root. 6: there is one allocator.
    let mut table = unsafe { X86_64::engine(parts) };
    // SAFETY: 1 to 3: this table has one vmemmap, with all frames of the memory.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(model, frames, memory) };
    let mut vmemmap = vmemmap.unwrap();
    let sizes = Sizes::of(model);
    let ranges = [sizes.blocks(sizes.table(), 3, 2)];
    let pagemap = DevPagemap::new(&model, &ranges, Geometry::compound(sizes.natural()))
        .unwrap()
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared);
    for _ in 0..64 {
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        vmemmap.offline(&mut table, region).unwrap();
    }
}

/// Two vmemmaps at once, with frames of `ram` that are counted in `counts`.
fn two_vmemmaps_at_once<C: ReferenceCounts + Sync>(ram: PfnRange, counts: C) {
    let first = ram.start();
    let roots = PfnRange::new(ram.last().saturating_add(1 << 10), 2).unwrap();
    let memory = &SimMemory::new(X86_64::RADIX_MODEL.granule(), &[ram, roots]).unwrap();
    let bits = Bits {
        first,
        taken: (0..ram.frames()).map(|_| AtomicBool::new(false)).collect(),
    };
    let frames = &Counted::new(bits, counts).shared_with_others();
    thread::scope(|scope| {
        let both = [roots.start(), roots.last()]
            .map(|root| scope.spawn(move || comes_and_goes(frames, memory, root)));
        for thread in both {
            thread.join().unwrap();
        }
    });
    let taken = frames.allocator().taken.iter();
    assert_eq!(taken.filter(|bit| bit.load(Ordering::Relaxed)).count(), 0);
    assert!(memory.violations().is_empty(), "{}", memory.violations());
}

fn ram_of_both() -> PfnRange {
    PfnRange::new(Pfn::new(1 << 30).unwrap(), 1 << 10).unwrap()
}

#[test]
fn two_vmemmaps_take_frames_from_one_allocator_at_once() {
    let ram = ram_of_both();
    let mut words: Vec<_> = (0..ram.frames()).map(|_| AtomicU32::new(0)).collect();
    two_vmemmaps_at_once(ram, WordCounts::new(ram, &mut words).unwrap());
}

#[test]
fn two_vmemmaps_count_what_they_share_at_once() {
    two_vmemmaps_at_once(ram_of_both(), SharedCounts::new(&mut [0; 64]));
}

#[test]
fn memory_of_an_altmap_may_be_used_otherwise_once_none_of_it_is_in_use() {
    let model = &X86_64::RADIX_MODEL;
    let bytes = model.granule().bytes() as usize;
    let reserved = Sizes::of(*model).blocks(model.subsection(), 1, 1);
    let memory = &SimMemory::new(model.granule(), &[reserved]).unwrap();
    let fill = |frame, value| {
        // SAFETY: a page of the memory, and nobody else's at this time.
        unsafe { memory.frame_pointer(frame).write_bytes(value, bytes) };
    };
    // SAFETY: 1 to 3: the frames are this test's, which has no vmemmap.
    let altmap = unsafe { DeviceAltmap::new(model, memory, reserved, NODE) };
    let altmap = &altmap.unwrap();
    let frames = altmap.allocate_run(9, NODE).unwrap();
    thread::scope(|scope| {
        let user = scope.spawn(|| {
            fill(frames.last(), 1);
            // SAFETY: 1 and 2: the frames are this test's, and nobody uses them any more.
            unsafe { altmap.release_run(frames) };
        });
        let other = scope.spawn(|| {
            while altmap.in_use() > 0 {
                thread::yield_now();
            }
            (0..reserved.frames()).for_each(|index| fill(frame_of(reserved, index), 2));
        });
        user.join().unwrap();
        other.join().unwrap();
    });
    assert_eq!(memory.page_bytes(frames.last()), Some(vec![2; bytes]));
}
