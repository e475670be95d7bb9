//! What is counted on: a vmemmap on the boot code's tables, with frames of RAM that is free.

use crate::bump::Bump;
use arch_x86_64::{Cpu, FourLevelTable, MODEL_4_LEVEL, SingleCpu, Tlb};
use boot_x86_64::{IDENTITY_END, image_end};
use experiment::RangeList;
use mm_core::addr::{Granule, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, LinearMap, SharedCounts};
use mm_core::paging::OneRoot;
use mm_core::vmemmap::Vmemmap;
use x86_64::registers::control::Cr3;

/// For how many frames references are counted. A case that needs more has them in memory of its own.
pub const COUNT_WORDS: usize = SharedCounts::words_for(1 << 15) as usize;

/// Frames with counts.
type Frames = Counted<Bump, SharedCounts<'static>>;

/// The page table.
pub type CountingTable<'m> = FourLevelTable<&'m Frames, &'m LinearMap, Tlb<Cpu, SingleCpu>>;

/// The vmemmap.
pub type CountingVmemmap<'m> = Vmemmap<Page<Mask>, &'m Frames, &'m LinearMap>;

/// An empty vmemmap, its page table, and what hands out their frames.
pub struct Machine<'l, 'm> {
    pub vmemmap: &'l mut CountingVmemmap<'m>,
    pub table: &'l mut CountingTable<'m>,
    pub frames: &'l Bump,
}

/// RAM behind the image that the boot code has mapped where it is, in one piece.
fn free_ram(ram: &RangeList) -> Option<PfnRange> {
    let behind = PfnRange::whole_frames(
        PhysAddr::new(image_end()),
        IDENTITY_END - image_end(),
        Granule::Size4K,
    )?;
    let parts = ram.as_slice().iter().filter_map(|range| {
        let start = range.start().max(behind.start());
        let last = range.last().min(behind.last());
        PfnRange::new(start, (last.get() + 1).checked_sub(start.get())?).ok()
    });
    parts.max_by_key(|range| range.frames())
}

/// Does `work` on a machine. All frames have to be back afterwards.
///
/// # Errors
///
/// Those of `work`, and what is wrong with the machine.
pub fn on_machine<T>(
    cpu: Cpu,
    ram: &RangeList,
    work: impl FnOnce(Machine<'_, '_>) -> Result<T, &'static str>,
) -> Result<T, &'static str> {
    static mut WORDS: [u64; COUNT_WORDS] = [0; COUNT_WORDS];
    let ram = free_ram(ram).ok_or("there is no RAM")?;
    // SAFETY: there is one thread, and the one before has ended.
    let words = unsafe { &mut *(&raw mut WORDS) };
    let frames = Counted::new(Bump::new(ram), SharedCounts::new(words));
    // SAFETY: 1 and 2: what `free_ram` says is mapped where it is; address 0 is before the image.
    let direct_map = unsafe { LinearMap::new(VirtAddr::new(0), Granule::Size4K) };
    // SAFETY: 1: no other CPU was started.
    let mmu = Tlb::new(cpu, unsafe { SingleCpu::new() });
    let root = Cr3::read().0.start_address().as_u64();
    let root = Pfn::new(root >> Granule::Size4K.shift()).ok_or("there is no root")?;
    // SAFETY: 1: the boot code's tables, the only ones.
    let one_root = unsafe { OneRoot::new() };
    // SAFETY: 1: four levels, which the CPU walks. 2: the direct map has all of them. 3 and 4: one thread on one
    // CPU. 5: there is one root. 6: there is one allocator.
    let mut table = unsafe { FourLevelTable::new(root, one_root, &frames, &direct_map, mmu) };
    // SAFETY: 1 and 4: nobody else uses these addresses. 2: the direct map has all frames. 3: there is one table.
    let vmemmap = unsafe { Vmemmap::new(MODEL_4_LEVEL, &frames, &direct_map) };
    let mut vmemmap = vmemmap.map_err(|_| "the descriptor is not the model's")?;
    let done = work(Machine {
        vmemmap: &mut vmemmap,
        table: &mut table,
        frames: frames.allocator(),
    })?;
    match frames.allocator().frames_out() {
        0 => Ok(done),
        _ => Err("frames are still out"),
    }
}
