//! Stores past the caches: only for much memory, and ended before anything links it.

use super::{compound, memory, pagemap};
use arch_sim::{SimFrames, SimMemory};
use arch_x86_64::{FourLevel, MODEL_4_LEVEL};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Descriptor, Mask, Page, Pointer};
use mm_core::frame::{DirectMap, Pattern};
use mm_core::pagemap::Tails;
use mm_core::paging::{
    Flush, FlushScope, Leaf, Lookup, MapError, Mapping, Mmu, OneRoot, PageTable, RadixTable,
    Refuse, TableRecords,
};
use mm_core::vmemmap::{Vmemmap, Workers};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

thread_local! {
    /// Whether this thread has streamed, and not ended that.
    static STREAMS: Cell<bool> = const { Cell::new(false) };
}

/// A direct map that streams from so many bytes on. Counts how many bytes, and by how many threads there is
/// something that was not ended.
struct Watched<'m> {
    memory: &'m SimMemory,
    from: u64,
    bytes: AtomicU64,
    open: AtomicUsize,
}

impl Watched<'_> {
    fn assert_ended(&self) {
        let open = self.open.load(Ordering::SeqCst);
        assert_eq!(open, 0, "an entry is made for what is not there yet");
    }
}

// SAFETY: 1 to 3: the memory's. 4: stored as all others. 5: so are they visible.
unsafe impl DirectMap for Watched<'_> {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.memory.frame_pointer(frame)
    }

    fn streams_from(&self) -> u64 {
        self.from
    }

    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        let words = pattern.words().len();
        self.bytes
            .fetch_add((places.len() * words * 8) as u64, Ordering::SeqCst);
        if !STREAMS.replace(true) {
            self.open.fetch_add(1, Ordering::SeqCst);
        }
        let page = self.frame_pointer(frame).cast::<u64>();
        // SAFETY: 1: the caller's.
        unsafe { pattern.store(page.add(places.start * words), places.len()) };
    }

    fn end_stream(&self) {
        if STREAMS.replace(false) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// No CPU, but one is told of tables before they are linked.
struct Links<'w>(&'w Watched<'w>);

// SAFETY: 1 and 2: there is no CPU.
unsafe impl Mmu<FourLevel> for Links<'_> {
    fn flush(&self, _scope: FlushScope<'_>) {}

    fn publish(&self) {
        self.0.assert_ended();
    }
}

type Engine<'w> = RadixTable<FourLevel, &'w SimFrames, &'w SimMemory, Links<'w>, OneRoot>;

/// The engine as a page table that knows nothing but single leaves.
struct LeafByLeaf<'w>(Engine<'w>, &'w Watched<'w>);

// SAFETY: 1 to 5: the engine's.
unsafe impl PageTable for LeafByLeaf<'_> {
    type Replace = Refuse;

    fn granule(&self) -> Granule {
        self.0.granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.0.huge_leaf()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        self.0.lookup(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        self.1.assert_ended();
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.0.map_leaf(at, leaf, node, records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.0.clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        self.0.flush(obligation, records);
    }
}

/// How the engine is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Engine,
    LeafByLeaf,
}

/// How many bytes were streamed when `range` came online, in pages of `order`, by a map that streams from
/// `from` bytes on. Each entry is made after that was ended, on every thread.
fn streamed<D: Descriptor>(
    table: Table,
    (order, tails): (Order, Tails),
    range: PfnRange,
    from: u64,
    workers: Option<&'static dyn Workers>,
) -> u64 {
    let frame = |frame| Pfn::new(frame).unwrap();
    let ram = PfnRange::new(frame(1 << 34), 1 << 13).unwrap();
    let root = ram.last().saturating_add(1 << 10);
    let memory = SimMemory::new(Granule::Size4K, &[ram, PfnRange::single(root)]).unwrap();
    let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
    let map = Watched {
        memory: &memory,
        from,
        bytes: AtomicU64::new(0),
        open: AtomicUsize::new(0),
    };
    // SAFETY: 1: simulated memory is zero at first. 2: it has all frames. 3 to 5: one table, no CPU, one root.
    // 6: there is one allocator.
    let mut engine: Engine<'_> =
        unsafe { RadixTable::new(root, OneRoot::new(), &frames, &memory, Links(&map)) };
    // SAFETY: 1 to 3: one memory, one table, one vmemmap.
    let vmemmap = unsafe { Vmemmap::<D, _, _>::new(MODEL_4_LEVEL, &frames, &map) };
    let mut vmemmap = vmemmap.unwrap();
    vmemmap.use_workers(workers);
    let ranges = [range];
    let pagemap = pagemap(&MODEL_4_LEVEL, &ranges, order, tails);
    let region = match table {
        Table::Engine => vmemmap.online(&mut engine, &pagemap),
        Table::LeafByLeaf => {
            let mut table = LeafByLeaf(engine, &map);
            let region = vmemmap.online(&mut table, &pagemap);
            engine = table.0;
            region
        }
    };
    let bytes = map.bytes.load(Ordering::SeqCst);
    map.assert_ended();
    vmemmap.offline(&mut engine, region.unwrap()).unwrap();
    assert_eq!(frames.outstanding(), 0);
    bytes
}

fn kinds() -> [(Order, Tails); 4] {
    let order = compound(&MODEL_4_LEVEL);
    [
        (Order::BASE, Tails::None),
        (order, Tails::PerOrder),
        (order, Tails::PerCompound),
        (Order::new(18).unwrap(), Tails::PerOrder),
    ]
}

#[test]
fn what_is_streamed_is_ended_before_an_entry_leads_to_it() {
    let threads: &'static dyn Workers = hosted::Threads::leaked(NonZeroUsize::new(3).unwrap());
    for table in [Table::Engine, Table::LeafByLeaf] {
        for workers in [None, Some(threads)] {
            for (order, tails) in kinds() {
                let frames = if order.get() == 18 { 4 } else { 704 };
                let range = memory(&MODEL_4_LEVEL, order, tails, frames);
                let bytes = streamed::<Page<Mask>>(table, (order, tails), range, 0, workers);
                let when = format!("{table:?}, {order} {tails:?}");
                // Each once; the frame of an order's tails is no page's own.
                let shared = if tails == Tails::PerOrder { 1 } else { 0 };
                assert_eq!(bytes, (frames + shared) * 4096, "{when}");
            }
            let (order, tails) = (compound(&MODEL_4_LEVEL), Tails::PerCompound);
            let range = memory(&MODEL_4_LEVEL, order, tails, 704);
            let bytes = streamed::<Page<Pointer>>(table, (order, tails), range, 0, workers);
            assert!(bytes >= 704 * 4096);
        }
    }
}

#[test]
fn little_memory_is_not_streamed() {
    for (order, tails) in kinds() {
        let frames = if order.get() == 18 { 4 } else { 512 };
        let range = memory(&MODEL_4_LEVEL, order, tails, frames);
        let of = |from| streamed::<Page<Mask>>(Table::Engine, (order, tails), range, from, None);
        assert!(of(frames * 4096) > 0, "{order} {tails:?}");
        assert_eq!(of(frames * 4096 + 1), 0, "{order} {tails:?}");
    }
}
