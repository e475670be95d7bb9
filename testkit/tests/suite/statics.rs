//! A kernel has its vmemmap and its regions in statics, each under a lock, and uses them on any CPU.

use arch_sim::{FlatTable, SimFrames, SimMemory};
use hosted::{Backend, Sim};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{
    AcquireError, DeviceAltmap, DirectMap, FrameAllocator, OutOfFrames, OwnedBlock, Released,
};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::vmemmap::{Region, Vmemmap};
use std::ptr::NonNull;
use std::sync::{LazyLock, Mutex};
use std::thread;

const MODEL: MemoryModel = Sim::MODEL;

const fn range(start: u64, frames: u64) -> PfnRange {
    match Pfn::new(start) {
        Some(start) => match PfnRange::new(start, frames) {
            Ok(range) => range,
            Err(_) => panic!("too many frames"),
        },
        None => panic!("no such frame"),
    }
}

static RAM: PfnRange = range(1 << 20, 1 << 16);
static RESERVED: PfnRange = range(1 << 22, 1 << 15);
static DEVICE: [PfnRange; 2] = [range(1 << 22, 1 << 18), range(1 << 24, 1 << 16)];

static MEMORY: LazyLock<SimMemory> =
    LazyLock::new(|| SimMemory::new(MODEL.granule(), &[RAM, RESERVED]).unwrap());
static FRAMES: LazyLock<SimFrames> =
    LazyLock::new(|| SimFrames::new(&MEMORY, &[(NodeId::new(0), &[RAM])]).unwrap());

/// The kernel's allocator, as a value without state.
struct Ram;

// SAFETY: 1 to 5: as for `SimFrames`, which does all of it.
unsafe impl FrameAllocator for Ram {
    fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
        FRAMES.allocate(order, node)
    }

    unsafe fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        // SAFETY: 1 and 2: the caller's.
        unsafe { FRAMES.acquire(first, references) }
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1 and 2: the caller's.
        unsafe { FRAMES.release(block, references) }
    }

    unsafe fn free(&self, block: OwnedBlock) {
        // SAFETY: 1: the caller's.
        unsafe { FRAMES.free(block) }
    }

    unsafe fn keep(&self, block: OwnedBlock) -> Block {
        // SAFETY: 1: the caller's.
        unsafe { FRAMES.keep(block) }
    }

    unsafe fn split(&self, block: Block) {
        // SAFETY: 1 and 2: the caller's.
        unsafe { FRAMES.split(block) }
    }

    fn node_of(&self, frame: Pfn) -> NodeId {
        FRAMES.node_of(frame)
    }
}

/// The kernel's direct map, as a value without state.
struct Linear;

// SAFETY: 1 to 3: as for `SimMemory`, which does it.
unsafe impl DirectMap for Linear {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        MEMORY.frame_pointer(frame)
    }
}

// SAFETY: 1 to 4: the flat table below is for this value alone, and its memory has all frames.
static VMEMMAP: Mutex<Vmemmap<Page<Mask>, Ram, Linear>> =
    Mutex::new(match unsafe { Vmemmap::new(MODEL, Ram, Linear) } {
        Ok(vmemmap) => vmemmap,
        Err(_) => panic!("the descriptor does not fit the model"),
    });
static TABLE: Mutex<Option<FlatTable>> = Mutex::new(None);
static REGIONS: Mutex<Vec<Region<'static>>> = Mutex::new(Vec::new());
static ALTMAP: LazyLock<DeviceAltmap<Linear>> = LazyLock::new(|| {
    // SAFETY: 1 to 3: the memory has these frames, for this altmap and the vmemmap above alone.
    unsafe { DeviceAltmap::new(&MODEL, Linear, RESERVED, NodeId::new(0)) }.unwrap()
});

fn bring_online(pagemap: &DevPagemap<'static>) {
    let mut table = TABLE.lock().unwrap();
    let table = table.get_or_insert_with(|| FlatTable::new(MODEL.granule(), Sim::HUGE_LEAF));
    let region = VMEMMAP.lock().unwrap().online(table, pagemap).unwrap();
    REGIONS.lock().unwrap().push(region);
}

#[test]
fn regions_in_a_static_go_offline_on_another_cpu() {
    let order = Geometry::compound(Order::new(9).unwrap());
    let (first, second) = DEVICE.split_at(1);
    let with_altmap = DevPagemap::new(&MODEL, first, order).unwrap();
    let with_altmap = with_altmap.with_altmap(&*ALTMAP).unwrap();
    let without = DevPagemap::new(&MODEL, second, order).unwrap();
    for pagemap in [with_altmap, without] {
        thread::spawn(move || bring_online(&pagemap))
            .join()
            .unwrap();
    }
    assert!(ALTMAP.in_use() > 0 && FRAMES.outstanding() > 0);
    thread::spawn(|| {
        let regions = std::mem::take(&mut *REGIONS.lock().unwrap());
        assert_eq!(regions.len(), 2);
        let mut table = TABLE.lock().unwrap();
        for region in regions {
            let offlined = VMEMMAP
                .lock()
                .unwrap()
                .offline(table.as_mut().unwrap(), region);
            assert_eq!(offlined.unwrap().kept, 0);
        }
    })
    .join()
    .unwrap();
    assert_eq!((ALTMAP.in_use(), FRAMES.outstanding()), (0, 0));
}
