//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the translation tables that its CPU walks.
//!
//! ```text
//!   boot (MMU off) ▶ kernel_main ▶ exceptions ▶ device tree ▶ own tables, any granule ▶ frames ▶ experiment ▶ the other CPUs ▶ readers ▶ exit
//! ```
#![no_std]
#![no_main]

mod boot;
mod cpus;
mod emulator;
mod exceptions;
mod exit;
mod firmware;
mod paging;
mod probe;
mod processors;
mod quiesce;
mod registers;
mod serial;

use arch_aarch64::{Cpu, Format4K, Format16K, Format64K, MODEL_4K, MODEL_16K, MODEL_64K, Tlb};
use core::panic::PanicInfo;
use exit::exit;
use experiment::{
    ArmDescriptors, CpuProbe, EarlyFrames, Emulator, Layout, OtherCpus, Report, Setting, Started,
    Verdict,
};
use firmware::BootInformation;
use mm_core::addr::Granule;
use mm_core::model::MemoryModel;
use mm_core::paging::EntryFormat;
use mm_core::readers::InterruptsOff;
use paging::{KernelSpace, upper_shape};
use probe::Instructions;
use processors::Processors;
use quiesce::OthersStopped;
use serial::Serial;

/// The sizes of compound pages that are tried: what a block of the lowest level with blocks maps, and more.
const fn compound(granule: Granule) -> [u64; 2] {
    match granule {
        Granule::Size4K => [2 << 20, 1 << 30],
        Granule::Size16K => [32 << 20, 1 << 30],
        Granule::Size64K => [512 << 20, 2 << 30],
    }
}

/// Called by the boot code with what X0 was, on the kernel's stack.
extern "C" fn kernel_main(device_tree: u64) -> ! {
    Serial::initialise();
    // SAFETY: 1: the boot code has set up both stacks, and runs this on SP_EL0.
    let probe = unsafe {
        exceptions::initialise();
        CpuProbe::new()
    };
    // SAFETY: 1: the boot code's tables are in use, and nothing writes below the image.
    let information = match unsafe { BootInformation::read(device_tree) } {
        Ok(information) => information,
        Err(error) => panic!("cannot start: {error:?}"),
    };
    let BootInformation {
        granule,
        map,
        dump,
        processors,
    } = information;
    println!("kernel-aarch64, pages of {} KiB", granule.bytes() >> 10);
    map.print(granule, &mut Serial::new());
    if let Err(missing) = registers::has_granule(granule) {
        println!(
            "skipped: the CPU has no pages of {} KiB (ID_AA64MMFR0_EL1.{} = {:#x})",
            granule.bytes() >> 10,
            missing.field,
            missing.value
        );
        exit(Verdict::Skipped);
    }
    let layout = Layout {
        granule,
        map: &map,
        image_end: paging::image_end(),
        first_free: paging::image_end(),
        mapped_end: boot::IDENTITY_END,
    };
    let gic = processors.map(|processors| processors.gic);
    // SAFETY: 1: RAM behind the image, below the end of what is mapped where it is.
    let build = |early: &EarlyFrames| unsafe { KernelSpace::build(granule, &map, gic, early) };
    // SAFETY: 1: the map is the device tree's, and from the image's end on nothing is in use. 2: the boot code's tables are in use. 3: the
    // kernel's tables map all memory; of the rest this code, its data, its stacks and the serial port are all that is in use, and what
    // was read of the device tree was copied.
    // 4: the probe uses this CPU, and no other was started.
    let started = unsafe { Started::new(&layout, probe, build) };
    let mut started = match started {
        Ok(started) => started,
        Err(error) => panic!("{error}"),
    };
    let next = match dump {
        true => Next::Dump,
        false => Next::All(processors),
    };
    exit(match granule {
        // SAFETY: 1: TCR_EL1.TG1 is 4 KiB.
        Granule::Size4K => unsafe { run::<Format4K>(&mut started, MODEL_4K, next) },
        // SAFETY: 1: TCR_EL1.TG1 is 16 KiB.
        Granule::Size16K => unsafe { run::<Format16K>(&mut started, MODEL_16K, next) },
        // SAFETY: 1: TCR_EL1.TG1 is 64 KiB.
        Granule::Size64K => unsafe { run::<Format64K>(&mut started, MODEL_64K, next) },
    })
}

/// What the kernel does.
#[derive(Clone, Copy)]
enum Next {
    /// Memory online, to be dumped; nothing else.
    Dump,
    /// All of the experiment, with the other CPUs if they can be started.
    All(Option<Processors>),
}

/// The experiment on this CPU, without a way to keep CPUs from addresses first, then with one. Then readers on the others, which are started
/// in between.
///
/// # Safety
///
/// 1. TTBR1 names the kernel's tables, in the format `F`.
unsafe fn run<F: EntryFormat>(
    started: &mut Started<'_, CpuProbe<Instructions>>,
    model: MemoryModel,
    next: Next,
) -> Verdict {
    // SAFETY: 1 of both: this is EL1, and the first CPU only. 2 of `Cpu`: the CPUs of the virtual machine are in one domain. 2: such as have
    // not started do nothing.
    let (cpu, stopped) = unsafe { (Cpu::new(), OthersStopped::new()) };
    if let Err(error) = cpu.check(F::GRANULE) {
        panic!("{error}");
    }
    let setting = Setting {
        model,
        shape: upper_shape(model.granule()),
        compound: compound(model.granule()),
    };
    let refusing = Tlb::<F, _>::new(cpu);
    let mmu = Tlb::<F, _, _>::with_quiesce(cpu, stopped);
    let mut serial = Serial::new();
    let mut report = Report::new(&mut serial);
    let processors = match next {
        Next::All(processors) => processors,
        Next::Dump => {
            let emulator = Emulator {
                wait: &|| Serial::new().wait_for_input(),
                tell: emulator::tell,
            };
            // SAFETY: 1: duty 1. 2: the machine's, which `KernelSpace::build` maps.
            unsafe { started.run_dump::<F>(&setting, &mmu, emulator, &mut report) };
            return report.finish();
        }
    };
    // SAFETY: 1: duty 1; there is one CPU, whose MMU both are.
    unsafe {
        started.run::<F, ArmDescriptors, _>(&setting, [&refusing, &mmu], |map| map, &mut report)
    };

    let readers = format_args!("readers");
    match processors {
        Some(processors) if processors.affinities().len() > 1 => {
            // SAFETY: 1: this is the first CPU, on the kernel's tables. 2: `KernelSpace::build` maps all of that. 3: they are the device
            // tree's. 4: the MMU is that of all CPUs.
            match unsafe { cpus::start(&processors, model.granule()) } {
                Ok(cpus) => {
                    report.line(format_args!(
                        "{} other CPUs started, {} left out",
                        cpus.count(),
                        processors.left_out()
                    ));
                    let grace = InterruptsOff::new(cpus.rounds());
                    // SAFETY: 1: duty 1; the CPUs were handed the same root, and TLBI reaches all of them.
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
            format_args!("the device tree lacks CPUs, PSCI or a GICv3"),
        ),
    }
    report.finish()
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    exit(Verdict::Panicked)
}
