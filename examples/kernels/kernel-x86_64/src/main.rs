//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the page tables that its CPU walks.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ NFIT, MADT ▶ own tables ▶ frames ▶ experiment ▶ the other CPUs ▶ readers ▶ exit
//! ```
#![no_std]
#![no_main]

mod acpi;
mod cpus;
mod emulator;
mod paging;
mod streaming;

use arch_x86_64::{
    Choices, Cpu, FiveLevel, FourLevel, LongModeFormat, MODEL_4_LEVEL, MODEL_5_LEVEL, SingleCpu,
    Tlb,
};
use boot_x86_64::{
    Booted, FirmwareMemory, Instructions, Processors, Serial, Trampoline, exit, println,
};
use experiment::{
    CpuProbe, EarlyFrames, Emulator, Layout, MemoryMap, OtherCpus, Refusing, Report, Setting,
    Started, Verdict, X86Entries,
};
use mm_core::model::MemoryModel;
use mm_core::paging::Mmu;
use mm_core::readers::InterruptsOff;
use paging::{GRANULE, KernelSpace, Levels};
use streaming::StreamingMap;

/// Memory below this is left to firmware.
const LOW_MEMORY: u64 = 1 << 20;

/// The sizes of compound pages that are tried: 2 MiB and 1 GiB.
const COMPOUND: [u64; 2] = [2 << 20, 1 << 30];

boot_x86_64::entry!(main);

fn main(Booted { start, probe }: Booted) -> ! {
    let levels = Levels::current();
    // SAFETY: 1: the boot tables are in use, until this function has read all that it wants. 2: nobody writes yet.
    let firmware = unsafe { FirmwareMemory::new() };
    let device = acpi::persistent_memory(&firmware, start.rsdp);
    let processors = acpi::processors(&firmware, start.rsdp);
    // SAFETY: 1: the boot tables are in use. 2: memory below `LOW_MEMORY` is left alone by all else.
    let trampoline = unsafe { Trampoline::place(&start.ram) };
    let others = match start.dump {
        true => Next::Dump,
        false => Next::All(processors.zip(trampoline)),
    };
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
    let local_apic = processors.map(|processors| processors.local_apic);
    // SAFETY: 1: RAM behind the image, below the end of what is mapped where it is.
    let build =
        |early: &EarlyFrames| unsafe { KernelSpace::build(levels, &map, local_apic, early) };
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
        Levels::Four => unsafe { run::<FourLevel>(&mut started, MODEL_4_LEVEL, levels, others) },
        // SAFETY: 1: five levels are in use.
        Levels::Five => unsafe { run::<FiveLevel>(&mut started, MODEL_5_LEVEL, levels, others) },
    })
}

/// What the kernel does.
#[derive(Clone, Copy)]
enum Next {
    /// Memory online, to be dumped; nothing else.
    Dump,
    /// All of the experiment, with the other CPUs if they can be started.
    All(Option<(Processors, Trampoline)>),
}

/// The experiment on this CPU, then readers on the others, which are started in between. Or what is to be dumped.
///
/// # Safety
///
/// 1. The CPU walks so many levels, in the format `F`.
unsafe fn run<F: LongModeFormat>(
    started: &mut Started<'_, CpuProbe<Instructions>>,
    model: MemoryModel,
    levels: Levels,
    next: Next,
) -> Verdict {
    // SAFETY: 1: this is ring 0. 2: the virtual machine's CPUs are alike.
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
    let mut serial = Serial::new();
    let mut report = Report::new(&mut serial);
    let others = match next {
        Next::All(others) => others,
        Next::Dump => {
            let emulator = Emulator {
                wait: &|| Serial::new().wait_for_input(),
                tell: emulator::tell,
            };
            // SAFETY: 1: duty 1. 2: the machine's.
            unsafe { started.run_dump::<F>(&setting, &mmu, emulator, &mut report) };
            return report.finish();
        }
    };
    let mmus: [&dyn Mmu<F>; 2] = [&Refusing(&mmu), &mmu];
    // SAFETY: 1: duty 1; there is one CPU, whose MMU both are. 2: a `StreamingMap` is the direct map.
    unsafe { started.run::<F, X86Entries, _>(&setting, mmus, StreamingMap::new, &mut report) };
    report.check("descriptors are streamed", StreamingMap::was_used());

    let readers = format_args!("readers");
    match others {
        Some((processors, trampoline)) if processors.ids().len() > 1 => {
            // SAFETY: 1: this is the first CPU, on the kernel's tables, which lie behind the image, and RAM in one piece below
            // 3 GiB. 2: `KernelSpace::build` maps all of that. 3: ACPI's, and nobody uses low memory. 4: the MMU that is used
            // from now on is that of all CPUs.
            let cpus = unsafe { cpus::start(&processors, trampoline, started.root()) };
            match cpus {
                Ok(cpus) => {
                    report.line(format_args!(
                        "{} other CPUs started, {} left out",
                        cpus.count(),
                        processors.left_out()
                    ));
                    let mmu = Tlb::new(cpu, &cpus::MAILBOX);
                    let grace = InterruptsOff::new(cpus.rounds());
                    // SAFETY: 1: duty 1; the CPUs use the same root, and the mailbox reaches them.
                    unsafe {
                        started.run_readers::<F, _, _>(&setting, &mmu, (&cpus, &grace), &mut report)
                    };
                }
                Err(error) => report.check("the other CPUs start", Err(error)),
            }
        }
        Some(_) => report.skip(readers, format_args!("there is one CPU (--cpus)")),
        None => report.skip(
            readers,
            format_args!("firmware lists no CPUs, or no RAM below 1 MiB"),
        ),
    }
    report.finish()
}
