//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the page tables that its CPU walks.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ NFIT ▶ own tables ▶ frames ▶ experiment ▶ exit
//! ```
#![no_std]
#![no_main]

mod acpi;
mod paging;

use arch_x86_64::{
    Choices, Cpu, FiveLevel, FourLevel, LongModeFormat, MODEL_4_LEVEL, MODEL_5_LEVEL, SingleCpu,
    Tlb,
};
use boot_x86_64::{Booted, FirmwareMemory, Instructions, Serial, exit, println};
use experiment::{
    CpuProbe, EarlyFrames, Layout, MemoryMap, Refusing, Setting, Started, Verdict, X86Entries,
};
use mm_core::model::MemoryModel;
use paging::{GRANULE, KernelSpace, Levels};

/// Memory below this is left to firmware.
const LOW_MEMORY: u64 = 1 << 20;

/// The sizes of compound pages that are tried: 2 MiB and 1 GiB.
const COMPOUND: [u64; 2] = [2 << 20, 1 << 30];

boot_x86_64::entry!(main);

fn main(Booted { start, probe }: Booted) -> ! {
    let levels = Levels::current();
    // SAFETY: 1: the boot tables are in use, and the value is used in this line only. 2: nobody writes yet.
    let device = acpi::persistent_memory(&unsafe { FirmwareMemory::new() }, start.rsdp);
    let map = MemoryMap {
        ram: start.ram,
        device,
    };
    println!("kernel-x86_64, {} levels of page tables", levels.count());
    map.print(GRANULE, &mut Serial::new());
    let layout = Layout {
        granule: GRANULE,
        map: &map,
        image_end: boot_x86_64::image_end(),
        first_free: LOW_MEMORY,
        mapped_end: boot_x86_64::IDENTITY_END,
    };
    // SAFETY: 1: RAM behind the image, below the end of what is mapped where it is.
    let build = |early: &EarlyFrames| unsafe { KernelSpace::build(levels, &map, early) };
    // SAFETY: 1: the map is the firmware's, and above low memory only the image is in use. 2: the boot tables are in use. 3: the kernel's
    // tables map RAM and persistent memory, and the image with this code, its data and its stack; what was read of the firmware's memory
    // was copied.
    // 4: the probe uses this CPU, and no other was started.
    let started = unsafe { Started::new(&layout, probe, build) };
    let mut started = match started {
        Ok(started) => started,
        Err(error) => panic!("{error}"),
    };
    exit(match levels {
        // SAFETY: 1: four levels are in use.
        Levels::Four => unsafe { run::<FourLevel>(&mut started, MODEL_4_LEVEL, levels) },
        // SAFETY: 1: five levels are in use.
        Levels::Five => unsafe { run::<FiveLevel>(&mut started, MODEL_5_LEVEL, levels) },
    })
}

/// # Safety
///
/// 1. The CPU walks so many levels, in the format `F`.
unsafe fn run<F: LongModeFormat>(
    started: &mut Started<'_, CpuProbe<Instructions>>,
    model: MemoryModel,
    levels: Levels,
) -> Verdict {
    // SAFETY: 1: this is ring 0. 2: there is one CPU.
    let cpu = unsafe { Cpu::new() };
    if let Err(error) = cpu.check::<F>(Choices::new()) {
        panic!("{error}");
    }
    // SAFETY: 1: no other CPU was started.
    let one_cpu = unsafe { SingleCpu::new() };
    let mmu = Tlb::new(cpu, one_cpu);
    let setting = Setting {
        model,
        shape: levels.shape(),
        compound: COMPOUND,
    };
    // SAFETY: 1: duty 1; there is one CPU, whose MMU both are.
    unsafe { started.run::<F, X86Entries>(&setting, &Refusing(&mmu), &mmu, &mut Serial::new()) }
}
