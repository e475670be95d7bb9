//! What it takes to bring 1 TiB online with packed heads, in one piece, beside heads in place and beside
//! memset of the heads alone. Times are medians; the memory was used before.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use arch_x86_64::{FourLevelTable, MODEL_4_LEVEL};
use benches::NoCpu;
use comfy_table::{CellAlignment, Table, presets};
use core::cell::RefCell;
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, DirectMap, LinearMap, PlainAllocator, SharedCounts};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Piece, Tables, Tails};
use mm_core::paging::{OneRoot, RadixTable};
use mm_core::vmemmap::Vmemmap;
use std::alloc::{Layout, alloc_zeroed};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How often each case is done; `--quick` for less.
const ROUNDS: usize = 200;
const QUICK_ROUNDS: usize = 20;

/// RAM for descriptors and tables: 64 MiB.
const FRAMES: u64 = 1 << 14;

/// 1 TiB from 1 TiB on.
const ONLINE: (u64, u64) = (1 << 28, 1 << 28);

/// Frames that follow each other, from the first one on when all are back.
struct Bump {
    next: u64,
    out: u64,
}

struct Ram(RefCell<Bump>);

impl Ram {
    fn take(&self, at_most: u64) -> Option<PfnRange> {
        let mut bump = self.0.borrow_mut();
        if bump.out == 0 {
            bump.next = 1;
        }
        let frames = at_most.min(FRAMES - bump.next);
        let run = PfnRange::new(Pfn::new(bump.next)?, frames).ok()?;
        bump.next += frames;
        bump.out += frames;
        Some(run)
    }
}

// SAFETY: 1: it goes on, until all is back. 2: blocks are single frames. 3: it is all of the direct map's.
unsafe impl PlainAllocator for Ram {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let frame = (order == Order::BASE).then(|| self.take(1))??;
        Some(Block::single(frame.start()))
    }

    fn allocate_run(&self, at_most: u64, _node: NodeId) -> Option<PfnRange> {
        self.take(at_most)
    }

    unsafe fn free(&self, block: Block) {
        self.0.borrow_mut().out -= block.order().frames();
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}

type Frames = Counted<Ram, SharedCounts<'static>>;

struct Kernel {
    vmemmap: Vmemmap<Page<Mask>, &'static Frames, LinearMap>,
    table: FourLevelTable<&'static Frames, LinearMap, NoCpu>,
    frames: &'static Frames,
    direct_map: LinearMap,
}

impl Kernel {
    fn new() -> Self {
        let page = Granule::Size4K.bytes();
        let layout = Layout::from_size_align((FRAMES * page) as usize, 1 << 21).unwrap();
        // SAFETY: it has a size.
        let memory = unsafe { alloc_zeroed(layout) };
        assert!(!memory.is_null(), "no memory");
        let at = VirtAddr::new(memory.expose_provenance() as u64);
        // SAFETY: 1: what the allocator has is this memory. 2: it is not at 0.
        let direct_map = unsafe { LinearMap::new(at, Granule::Size4K) };
        let ram = Ram(RefCell::new(Bump { next: 1, out: 0 }));
        let frames = Counted::new(ram, SharedCounts::new(vec![0; 1 << 10].leak()));
        let frames: &Frames = Box::leak(Box::new(frames));
        // SAFETY: 1: an empty root, which the allocator does not have. 2: the direct map has all frames. 3: one
        // thread. 4: no CPU. 5: 1 of `OneRoot::new`: there is no other root.
        let table =
            unsafe { RadixTable::new(Pfn::ZERO, OneRoot::new(), frames, direct_map, NoCpu) };
        // SAFETY: 1 to 3: one table, one memory, one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(MODEL_4_LEVEL, frames, direct_map) };
        Self {
            vmemmap: vmemmap.unwrap(),
            table,
            frames,
            direct_map,
        }
    }

    /// How long it takes to bring all online and take it offline, and how many frames that was.
    fn there_and_back(&mut self, pagemap: &DevPagemap<'_>) -> (Duration, Duration, u64) {
        let start = Instant::now();
        let region = self.vmemmap.online(&mut self.table, pagemap).unwrap();
        let online = start.elapsed();
        assert!(region.notes().is_empty(), "otherwise than asked");
        let out = self.frames.allocator().0.borrow().out;
        let start = Instant::now();
        self.vmemmap.offline(&mut self.table, region).unwrap();
        let offline = start.elapsed();
        assert_eq!(self.frames.allocator().0.borrow().out, 0, "all is back");
        (online, offline, out)
    }

    /// How long it takes to fill as many frames with zero.
    fn memset(&self, frames: u64) -> Duration {
        let run = self.frames.allocator().take(frames).unwrap();
        let bytes = (frames * Granule::Size4K.bytes()) as usize;
        let memory = self.direct_map.frame_pointer(run.start());
        let start = Instant::now();
        // SAFETY: all of it was taken just now.
        unsafe { memory.write_bytes(black_box(0), bytes) };
        let elapsed = start.elapsed();
        self.frames.allocator().0.borrow_mut().out = 0;
        elapsed
    }
}

fn main() {
    let rounds = benches::rounds(QUICK_ROUNDS, ROUNDS);
    let order = |order| Order::new(order).unwrap();
    let range = PfnRange::new(Pfn::new(ONLINE.0).unwrap(), ONLINE.1).unwrap();
    let pagemap = |size| {
        let pages = Geometry::compound(order(size));
        let pagemap = DevPagemap::of_range(&MODEL_4_LEVEL, range, pages).unwrap();
        let pagemap = pagemap.with_tails(Tails::PerOrder).with_piece(Piece::Range);
        pagemap.with_tables(Tables::Shared)
    };
    let cases = [
        ("1 GiB, in place", pagemap(18)),
        ("1 GiB, packed", pagemap(18).with_heads(Heads::Packed)),
        ("2 MiB, packed", pagemap(9).with_heads(Heads::Packed)),
    ];
    let mut kernel = Kernel::new();
    let mut taken = [const { Vec::new() }; 3];
    let mut set = Vec::new();
    // The first one touches the memory.
    for round in 0..=rounds {
        for ((_, pagemap), taken) in cases.iter().zip(&mut taken) {
            let measured = kernel.there_and_back(pagemap);
            taken.extend((round > 0).then_some(measured));
        }
        let heads = ONLINE.1 >> 9 >> MODEL_4_LEVEL.vmemmap_page_order().get();
        let measured = kernel.memset(heads);
        set.extend((round > 0).then_some(measured));
    }

    let mut table = Table::new();
    let header = ["1 TiB, pages of", "frames", "online, us", "offline, us"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        format!("{:.1}", times[times.len() / 2].as_secs_f64() * 1e6)
    };
    for ((name, _), taken) in cases.iter().zip(&taken) {
        table.add_row([
            (*name).to_owned(),
            taken[0].2.to_string(),
            median(taken.iter().map(|times| times.0).collect()),
            median(taken.iter().map(|times| times.1).collect()),
        ]);
    }
    let frames = "8192".to_owned();
    table.add_row([
        "memset of the heads of 2 MiB".to_owned(),
        frames,
        median(set),
        String::new(),
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
