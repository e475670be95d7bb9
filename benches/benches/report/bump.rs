//! Frames for operations whose instructions are counted: taken one after the other, in memory that nobody
//! has touched.

use arch_x86_64::{FourLevelTable, MODEL_4_LEVEL};
use benches::NoCpu;
use core::cell::Cell;
use figures::Frames;
#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapMut, MmapOptions};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, DirectMap, LinearMap, PlainAllocator, SharedCounts};
use mm_core::pagemap::DevPagemap;
use mm_core::paging::{OneRoot, RadixTable};
use mm_core::vmemmap::{Region, Vmemmap};
use std::time::{Duration, Instant};

/// The largest block is what a huge leaf maps, and is aligned to itself.
const ALIGN: u64 = 512;

/// An allocator that only goes on.
pub(crate) struct Bump {
    next: Cell<u64>,
    /// A power of two where frames are shuffled.
    frames: u64,
    order: Frames,
    out: Cell<u64>,
}

impl Bump {
    /// Goes back to where it began, behind `kept` frames, which are out.
    fn restart(&self, kept: u64) {
        assert_eq!(self.out.get(), kept, "frames are out");
        self.next.set(kept);
    }

    fn take(&self, frames: u64) -> Option<Pfn> {
        if self.order == Frames::Shuffled {
            return (frames == 1).then(|| self.take_any()).flatten();
        }
        let first = self.next.get().next_multiple_of(frames);
        let next = first + frames;
        if next > self.frames {
            return None;
        }
        self.next.set(next);
        self.out.set(self.out.get() + frames);
        Pfn::new(first)
    }

    /// A frame that is not next to the one before.
    fn take_any(&self) -> Option<Pfn> {
        let next = self.next.get();
        if next == self.frames {
            return None;
        }
        self.next.set(next + 1);
        self.out.set(self.out.get() + 1);
        // Each step can be undone, so each frame comes once.
        let mask = self.frames - 1;
        let mixed = next.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
        let mixed = mixed ^ (mixed >> (mask.count_ones() / 2 + 1));
        Pfn::new(mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) & mask)
    }
}

// SAFETY: 1: it goes on only, until all is back. 2: it counts frames. 3: the direct map has all of them.
unsafe impl PlainAllocator for Bump {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        Block::new(self.take(order.frames())?, order)
    }

    fn allocate_run(&self, at_most: u64, _node: NodeId) -> Option<PfnRange> {
        if self.order == Frames::Shuffled {
            return self.take_any().map(PfnRange::single);
        }
        let frames = at_most.min(self.frames - self.next.get());
        let first = Pfn::new(self.next.get())?;
        let run = PfnRange::new(first, frames).ok()?;
        self.next.set(self.next.get() + frames);
        self.out.set(self.out.get() + frames);
        Some(run)
    }

    unsafe fn free(&self, block: Block) {
        self.out.set(self.out.get() - block.order().frames());
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}

type Allocator = Counted<Bump, SharedCounts<'static>>;

/// Memory that nobody has touched.
pub(crate) struct Memory {
    map: MmapMut,
    frames: u64,
    order: Frames,
}

impl Memory {
    /// For descriptors of so many GiB in base pages, and tables: 16 MiB and 8 tables for each GiB at most.
    pub(crate) fn for_gib(gib: u64, order: Frames) -> Self {
        let frames = gib * (4096 + 8) + 4 * ALIGN;
        let frames = match order {
            Frames::InOrder => frames,
            Frames::Shuffled => frames.next_power_of_two(),
        };
        let bytes = ((frames + ALIGN) * Granule::Size4K.bytes()) as usize;
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
        let map = map.unwrap();
        // As a kernel maps all of its memory. Where the host has none, it is as good as it gets.
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::HugePage);
        Self { map, frames, order }
    }

    /// Where its frame 0 is.
    fn start(&self) -> VirtAddr {
        let at = self.map.as_ptr().expose_provenance() as u64;
        VirtAddr::new(at.next_multiple_of(ALIGN * Granule::Size4K.bytes()))
    }

    fn direct_map(&self) -> LinearMap {
        // SAFETY: 1: allocators over it have no other frames. 2: it is not at 0.
        unsafe { LinearMap::new(self.start(), Granule::Size4K) }
    }

    /// All of it but the first page, which is a root table.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let page = Granule::Size4K.bytes() as usize;
        let before = self.start().get() as usize - self.map.as_ptr() as usize;
        &mut self.map[before + page..]
    }
}

/// A page table by which nobody translates, and a vmemmap. Its frames are those of a memory, in
/// its order.
pub(crate) struct Kernel<M: DirectMap = LinearMap> {
    pub(crate) vmemmap: Vmemmap<Page<Mask>, &'static Allocator, M>,
    table: FourLevelTable<&'static Allocator, LinearMap, NoCpu>,
    frames: &'static Allocator,
}

impl<M: DirectMap> Kernel<M> {
    /// One that stores descriptors by what `direct_map` makes of the memory's. The memory is there as long as
    /// it is used, and no other kernel over it has anything online meanwhile.
    pub(crate) fn new(
        memory: &Memory,
        pagemap: &DevPagemap<'_>,
        direct_map: impl FnOnce(LinearMap) -> M,
    ) -> Self {
        let linear = memory.direct_map();
        let bump = Bump {
            next: Cell::new(0),
            frames: memory.frames,
            order: memory.order,
            out: Cell::new(0),
        };
        let words = SharedCounts::words_for(pagemap.shared_frames());
        let counts = SharedCounts::new(vec![0; words as usize].leak());
        let frames: &Allocator = Box::leak(Box::new(Counted::new(bump, counts)));
        let root = frames.allocator().take(1).unwrap();
        // SAFETY: taken just now, a page.
        unsafe {
            let page = Granule::Size4K.bytes() as usize;
            linear.frame_pointer(root).write_bytes(0, page);
        }
        // SAFETY: 1: an empty root. 2: the direct map has all frames. 3: one thread. 4: no CPU. 5: 1 of
        // `OneRoot::new`: there is no other root.
        let table = unsafe { RadixTable::new(root, OneRoot::new(), frames, linear, NoCpu) };
        // SAFETY: 1 to 3: one table, one memory, one vmemmap.
        let vmemmap = unsafe { Vmemmap::new(MODEL_4_LEVEL, frames, direct_map(linear)) };
        Self {
            vmemmap: vmemmap.unwrap(),
            table,
            frames,
        }
    }

    /// How long it takes to bring `pagemap` online, in the same frames each time.
    #[allow(dead_code, reason = "not every program measures times")]
    pub(crate) fn time_online(&mut self, pagemap: &DevPagemap<'_>) -> Duration {
        self.frames.allocator().restart(1);
        let start = Instant::now();
        let region = counted_online(self, pagemap);
        let took = start.elapsed();
        counted_offline(self, region);
        took
    }

    /// Brings it online and takes it offline.
    pub(crate) fn there_and_back(&mut self, pagemap: &DevPagemap<'_>) {
        let out = self.frames.allocator().out.get();
        let region = counted_online(self, pagemap);
        // Where no block is to be had, there are no huge leaves.
        let is_shuffled = self.frames.allocator().order == Frames::Shuffled;
        assert!(
            is_shuffled || region.notes().is_empty(),
            "otherwise than asked"
        );
        counted_offline(self, region);
        assert_eq!(self.frames.allocator().out.get(), out);
    }
}

#[inline(never)]
fn counted_online<'p, M: DirectMap>(
    kernel: &mut Kernel<M>,
    pagemap: &DevPagemap<'p>,
) -> Region<'p> {
    let region = kernel.vmemmap.online(&mut kernel.table, pagemap);
    core::hint::black_box(region.unwrap())
}

#[inline(never)]
fn counted_offline<M: DirectMap>(kernel: &mut Kernel<M>, region: Region<'_>) {
    kernel.vmemmap.offline(&mut kernel.table, region).unwrap();
}
