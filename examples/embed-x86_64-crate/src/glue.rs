//! All that this kernel writes to embed the library.
//!
//! It has the rest anyway: an `OffsetPageTable`, an allocator with the traits of the `x86_64` crate behind a
//! lock, and the memory map of its firmware.

use crate::allocator;
use arch_x86_64::{
    Choices, Cpu, FourLevel, FourLevelTable, FrameWork, Frames4K, MODEL_4_LEVEL, OffsetMap,
    SingleCpu, Tlb, engine_over, linear_map_of,
};
use mm_core::addr::{NodeId, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{BootFrames, Counted, EarlyFrames, EarlyRange, LinearMap, SharedCounts};
use mm_core::paging::OneRoot;
use mm_core::vmemmap::{LiveDescriptors, Vmemmap};
use spin::{Mutex, MutexGuard, Once};
use x86_64::structures::paging::OffsetPageTable;

/// For how many frames references are counted, those that several entries map.
/// `DevPagemap::shared_frames` tells how many a pagemap needs.
const SHARED_FRAMES: u64 = 1024;

const COUNT_WORDS: usize = SharedCounts::words_for(SHARED_FRAMES) as usize;
static COUNTS: Mutex<[u64; COUNT_WORDS]> = Mutex::new([0; COUNT_WORDS]);
static FRAMES: Once<Frames> = Once::new();

/// The kernel's allocator, as the library sees it: what the firmware's map has until the kernel hands
/// over, and single frames of the kernel's allocator after that, with references counted.
pub type Frames = Counted<
    BootFrames<'static, LinearMap, Frames4K<fn(&mut FrameWork<'_>)>>,
    SharedCounts<'static>,
>;

/// The vmemmap, with the library's ready descriptor.
pub type Descriptors = Vmemmap<Page<Mask>, &'static Frames, LinearMap>;

/// The library's page table, over the kernel's.
pub type Engine<'t> = FourLevelTable<&'static Frames, OffsetMap<'t>, Tlb<Cpu, SingleCpu>>;

/// Finds descriptors of memory that is online, without the lock that `Embedded` is behind.
pub const LIVE: LiveDescriptors<Page<Mask>> = match LiveDescriptors::new(&MODEL_4_LEVEL) {
    Ok(live) => live,
    Err(_) => panic!("the descriptor is not the model's"),
};

/// What belongs behind the kernel's lock for its page tables.
pub struct Embedded {
    /// Where descriptors and tables come from. An audit asks for them.
    pub frames: &'static Frames,
    /// The kernel's page table, for all else that it maps.
    pub table: OffsetPageTable<'static>,
    descriptors: Descriptors,
    tlb: Tlb<Cpu, SingleCpu>,
    one_root: OneRoot,
}

impl Embedded {
    /// A vmemmap on `table` with nothing online, and frames from `ram` until these are handed over.
    ///
    /// # Safety
    ///
    /// 1. `table` is what the only CPU translates by, in ring 0, and there is no other level-4 table.
    /// 2. All RAM is mapped at its offset, for good; `ram` is RAM that nobody uses.
    /// 3. Nobody else uses the addresses of `MODEL_4_LEVEL`. This is called once.
    pub unsafe fn new(table: OffsetPageTable<'static>, ram: &'static [PfnRange]) -> Self {
        // SAFETY: 1 and 2: duty 1.
        let (cpu, one_cpu) = unsafe { (Cpu::new(), SingleCpu::new()) };
        cpu.check::<FourLevel>(Choices::new())
            .unwrap_or_else(|error| panic!("{error}"));
        // SAFETY: 1: duty 2.
        let memory = unsafe { linear_map_of(&table) };
        // SAFETY: 1 and 2: duty 2.
        let early = unsafe { EarlyFrames::new(ram, NodeId::new(0), memory) };
        // SAFETY: 1: the kernel's one allocator, whose frames are all alike. 2: duty 2.
        let full = unsafe { Frames4K::new(with_allocator as fn(&mut FrameWork<'_>)) };
        // SAFETY: 1 and 2: it starts without frames, and is told which of them are in use.
        let boot = unsafe { BootFrames::new(early, full) };
        let words: &'static mut [u64; COUNT_WORDS] = MutexGuard::leak(COUNTS.lock());
        let frames = FRAMES.call_once(|| Counted::new(boot, SharedCounts::new(words)));
        // SAFETY: 1, 3 and 4: duty 3, and there is one table. 2: duty 2.
        let descriptors = unsafe { Vmemmap::new(MODEL_4_LEVEL, frames, memory) };
        Self {
            frames,
            table,
            descriptors: descriptors.unwrap_or_else(|error| panic!("{error}")),
            tlb: Tlb::new(cpu, one_cpu),
            // SAFETY: 1: duty 1.
            one_root: unsafe { OneRoot::new() },
        }
    }

    /// Gives the kernel's allocator all that is left of the memory map, and tells it of what is in use.
    pub fn hand_over(&self) {
        let numbers = |frames: PfnRange| frames.start().get()..frames.last().get() + 1;
        let mut allocator = allocator::FRAMES.lock();
        for range in self.frames.allocator().hand_over() {
            match range {
                EarlyRange::Free(frames) => allocator.add(numbers(frames)),
                EarlyRange::Taken(frames) => allocator.add_in_use(numbers(frames)),
            }
        }
    }

    /// The vmemmap and the page table for its operations.
    pub fn parts(&mut self) -> (&mut Descriptors, Engine<'_>) {
        // SAFETY: 1 and 2: duty 2 of `new`. 3: there are no other frames, and the kernel calls no `clean_up`.
        // 4: duty 1 of `new`, and the check there. 5: duty 1.
        let engine = unsafe { engine_over(&mut self.table, self.one_root, self.frames, self.tlb) };
        let engine = engine.unwrap_or_else(|error| panic!("{error}"));
        (&mut self.descriptors, engine)
    }
}

fn with_allocator(work: &mut FrameWork<'_>) {
    work(&mut *allocator::FRAMES.lock());
}
