//! A vmemmap whose descriptors are at their own addresses, in memory of the process.
//!
//! No MMU translates by the tables here. So what they map is copied to where it would be seen.

use crate::engine::NoCpu;
use arch_x86_64::FourLevelTable;
use core::cell::RefCell;
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, DirectMap, LinearMap, PlainAllocator, SharedCounts};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tails};
use mm_core::paging::{OneRoot, PageTable, RadixTable};
use mm_core::readers::{self, GracePeriod, Kernel, OnlineEntry, Reader, Readers};
use mm_core::vmemmap::Vmemmap;
use std::alloc::{Layout, alloc};

/// RAM for descriptors and tables: 16 MiB.
const RAM_FRAMES: u64 = 4096;

/// What the array has room for: 64 GiB, one entry of the online map.
const ROOM: u64 = 1 << 24;

/// What is online: 4 GiB in pages of 2 MiB, from 8 GiB on.
const ONLINE: (u64, u64) = (1 << 21, 1 << 20);

/// Single frames, taken from a list.
pub struct Ram(RefCell<Vec<Pfn>>);

// SAFETY: 1: a frame is on the list or out. 2: blocks are single frames. 3: it is all of the direct map's.
unsafe impl PlainAllocator for Ram {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let is_single = order == Order::BASE;
        let frame = is_single.then(|| self.0.borrow_mut().pop())??;
        Some(Block::single(frame))
    }

    unsafe fn free(&self, block: Block) {
        self.0.borrow_mut().push(block.first());
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::default()
    }
}

/// A guard that costs nothing, as with quiescent states.
pub struct NoGuard;

// SAFETY: 1 to 3: there is one thread, and it takes nothing offline.
unsafe impl GracePeriod for NoGuard {
    type Guard<'g> = ();

    fn enter(&self) {}

    fn wait(&self) {}
}

/// The process as a kernel.
pub struct Host {
    direct_map: LinearMap,
    grace: NoGuard,
}

// SAFETY: 1: the one array of the process. 2: it is the vmemmap's.
unsafe impl Kernel for Host {
    type Grace = NoGuard;
    type DirectMap = LinearMap;
    type Access<'k, D: 'static> = &'k D;

    fn grace(&self) -> &NoGuard {
        &self.grace
    }

    fn direct_map(&self) -> &LinearMap {
        &self.direct_map
    }

    #[inline]
    unsafe fn descriptor<D: 'static>(&self, at: VirtAddr) -> &D {
        // SAFETY: 1: the caller's.
        unsafe { readers::at_its_address(at) }
    }

    fn last_reference(&self, _first: Pfn, _order: Order) {}
}

/// Where frames come from.
pub type Frames = Counted<Ram, SharedCounts<'static>>;

/// What is measured: memory of it is online, and stays so as long as the process runs.
pub struct RealArray {
    /// The vmemmap.
    pub vmemmap: Vmemmap<Page<Mask>, &'static Frames, LinearMap, Readers<'static, Host>>,
    /// Its page table, by which nobody translates.
    pub table: FourLevelTable<&'static Frames, LinearMap, NoCpu>,
    /// The handle.
    pub reader: Reader<'static, Page<Mask>, Host>,
    /// What is online.
    pub online: PfnRange,
}

/// Memory that is there until the process ends; its address.
fn leaked(bytes: u64, align: u64) -> VirtAddr {
    let layout = Layout::from_size_align(bytes as usize, align as usize).unwrap();
    // SAFETY: it has a size.
    let memory = unsafe { alloc(layout) };
    assert!(!memory.is_null(), "no memory");
    VirtAddr::new(memory.expose_provenance() as u64)
}

impl RealArray {
    /// With 4 GiB online in pages of 2 MiB, whose heads are in the vmemmap.
    pub fn new() -> Self {
        Self::with_heads(Heads::InPlace)
    }

    /// With 4 GiB online in pages of 2 MiB.
    pub fn with_heads(heads: Heads) -> Self {
        let order = |order| Order::new(order).unwrap();
        let page = Granule::Size4K.bytes();
        let model = MemoryModel::new(ModelConfig {
            granule: Granule::Size4K,
            descriptor_bytes: 64,
            vmemmap_base: leaked(ROOM * 64, 16 << 20),
            frames: ROOM,
            section: order(15),
            subsection: order(9),
            max_order: order(18),
        })
        .unwrap();
        // Places for the heads of all pages that fill a vmemmap page.
        let places = leaked(ROOM * 2 / 64 * 64, page);
        let model = model.with_heads(places).unwrap();
        // SAFETY: 1: what the allocator has is this memory. 2: it is not at 0.
        let direct_map =
            unsafe { LinearMap::new(leaked(RAM_FRAMES * page, page), Granule::Size4K) };
        let ram = (0..RAM_FRAMES).rev().filter_map(Pfn::new).collect();
        let counts = SharedCounts::new(vec![0; 1024].leak());
        let frames: &Frames = Box::leak(Box::new(Counted::new(Ram(RefCell::new(ram)), counts)));
        let root = frames.allocator().allocate(Order::BASE, NodeId::default());
        let root = root.unwrap().first();
        // SAFETY: taken just now, a page.
        unsafe { direct_map.frame_pointer(root).write_bytes(0, page as usize) };
        // SAFETY: 1: an empty root. 2: the direct map has all frames. 3: one thread. 4: no CPU. 5: 1 of
        // `OneRoot::new`: there is no other root.
        let mut table = unsafe { RadixTable::new(root, OneRoot::new(), frames, direct_map, NoCpu) };

        let kernel = Box::leak(Box::new(Host {
            direct_map,
            grace: NoGuard,
        }));
        let entries: Vec<_> = (0..model.online_entries())
            .map(|_| OnlineEntry::new())
            .collect();
        let readers = Readers::new(model, entries.leak(), kernel).unwrap();
        // SAFETY: 1: the array is this value's, with one table, and the direct map has all frames. 2: the
        // root is new.
        let vmemmap = unsafe { Vmemmap::with_readers(readers, frames, direct_map) };
        let mut vmemmap = vmemmap.unwrap();
        let online = PfnRange::new(Pfn::new(ONLINE.0).unwrap(), ONLINE.1).unwrap();
        let pagemap = DevPagemap::of_range(&model, online, Geometry::compound(order(9))).unwrap();
        let pagemap = pagemap.with_tails(Tails::PerOrder).with_heads(heads);
        let region = vmemmap.online(&mut table, &pagemap).unwrap();
        assert!(region.notes().is_empty());
        let vmemmap_of = model.descriptors(online).unwrap();
        show(&model, &table, direct_map, vmemmap_of);
        if heads == Heads::Packed {
            let ends = [online.start(), online.last()];
            let [first, last] = ends.map(|frame| model.packed_head(frame, order(9)).unwrap());
            let places = VirtRange::between(first, last).unwrap();
            show(&model, &table, direct_map, places);
        }
        // SAFETY: 1: one thread, which sees what the table maps. 2 to 4: nothing is changed.
        let reader = unsafe { vmemmap.reader() };
        Self {
            vmemmap,
            table,
            reader,
            online,
        }
    }
}

impl Default for RealArray {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies what `table` maps in the pages of `range` to where it would be seen.
fn show(model: &MemoryModel, table: &impl PageTable, direct_map: LinearMap, range: VirtRange) {
    let page = model.granule().bytes();
    let first = range.start().get() & !(page - 1);
    for at in (first..=range.last().get()).step_by(page as usize) {
        let at = VirtAddr::new(at);
        let mapping = table.lookup(at).mapping().unwrap();
        let frame = mapping.frame_of(at, model.granule()).unwrap();
        let to = core::ptr::with_exposed_provenance_mut::<u8>(at.get() as usize);
        // SAFETY: both are whole pages, one of an array and one of RAM.
        unsafe { to.copy_from(direct_map.frame_pointer(frame).as_ptr(), page as usize) };
    }
}
