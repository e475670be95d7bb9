//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the page tables that its harts walk.
//!
//! ```text
//!   boot (no translation) ▶ kernel_main ▶ exceptions ▶ device tree ▶ own tables, in any mode ▶ frames ▶ experiment ▶ the other harts ▶ readers ▶ exit
//! ```
#![no_std]
#![no_main]

mod boot;
mod console;
mod cpus;
mod emulator;
mod exceptions;
mod exit;
mod firmware;
mod paging;
mod probe;
mod sbi;

use arch_riscv64::{Hart, Sbi, SingleHart, Sv39, Sv48, Sv57, SvFormat, Tlb};
use console::Console;
use core::panic::PanicInfo;
use cpus::NotStarted;
use exit::exit;
use experiment::{
    CpuProbe, EarlyFrames, Emulator, Layout, OtherCpus, Refusing, Report, RiscVEntries, Setting,
    Started, Verdict,
};
use firmware::{BootInformation, Harts, MAPPED};
use mm_core::readers::InterruptsOff;
use paging::{GRANULE, KernelSpace, Mode};
use probe::Instructions;

/// The sizes of compound pages that are tried: 2 MiB and 1 GiB.
const COMPOUND: [u64; 2] = [2 << 20, 1 << 30];

/// Called by the boot code with what A0 and A1 were, on the kernel's stack.
extern "C" fn kernel_main(this_hart: u64, device_tree: u64) -> ! {
    // SAFETY: 1 of both: the boot code has set up both stacks.
    let probe = unsafe {
        exceptions::initialise();
        CpuProbe::new()
    };
    // SAFETY: 1: so the boot code finds it, and nothing is written but the image.
    let information = match unsafe { BootInformation::read(device_tree) } {
        Ok(information) => information,
        Err(error) => panic!("cannot start: {error:?}"),
    };
    let BootInformation {
        mode,
        map,
        dump,
        harts,
    } = information;
    println!("kernel-riscv64, {mode}");
    map.print(GRANULE, &mut Console);
    let layout = Layout {
        granule: GRANULE,
        map: &map,
        image_end: paging::image_end(),
        // Below the image is firmware.
        first_free: paging::image_end(),
        mapped_end: MAPPED.end,
    };
    // SAFETY: 1: RAM behind the image, without translation.
    let build = |early: &EarlyFrames| unsafe { KernelSpace::build(mode, &map, early) };
    // SAFETY: 1: the map is the device tree's, and from the image's end on nothing is in use. 2: there is no translation. 3: the kernel's
    // tables map all memory; of the rest this code, its data and its stacks are all that is in use, and what was read of the device tree was copied.
    // 4: the probe uses this hart, and no other was started.
    let started = unsafe { Started::new(&layout, probe, build) };
    let mut started = match started {
        Ok(started) => started,
        Err(error) => panic!("{error}"),
    };
    // SAFETY: 1: this is the first hart, and the image stays. 2: they are the device tree's.
    let parked = unsafe { cpus::park(&harts, this_hart) };
    let harts = (this_hart, harts, parked, dump);
    exit(match mode {
        // SAFETY: 1: `activate` has seen that satp has this mode.
        Mode::Sv39 => unsafe { run::<Sv39>(&mut started, mode, harts) },
        // SAFETY: 1: as above.
        Mode::Sv48 => unsafe { run::<Sv48>(&mut started, mode, harts) },
        // SAFETY: 1: as above.
        Mode::Sv57 => unsafe { run::<Sv57>(&mut started, mode, harts) },
    })
}

/// The experiment on this hart, then readers on the others, which are started in between.
///
/// # Safety
///
/// 1. satp names the kernel's tables, in the format `F`, which is the mode's.
unsafe fn run<F: SvFormat>(
    started: &mut Started<'_, CpuProbe<Instructions>>,
    mode: Mode,
    (this_hart, harts, parked, dump): (u64, Harts, Result<(), NotStarted>, bool),
) -> Verdict {
    // SAFETY: 1: this is supervisor mode.
    let hart = unsafe { Hart::new() };
    if let Err(error) = hart.check::<F>() {
        panic!("{error}");
    }
    let setting = Setting {
        model: mode.model(),
        shape: mode.shape(),
        compound: COMPOUND,
    };
    // SAFETY: 1: the other harts are parked, and have no translation.
    let mmu = Tlb::new(hart, unsafe { SingleHart::new() });
    let mut console = Console;
    let mut report = Report::new(&mut console);
    if dump {
        let emulator = Emulator {
            wait: &sbi::wait_for_input,
            tell: emulator::tell,
        };
        // SAFETY: 1: duty 1. 2: the machine's, which `KernelSpace::build` maps.
        unsafe { started.run_dump::<F>(&setting, &mmu, emulator, &mut report) };
        return report.finish();
    }
    // SAFETY: 1: duty 1; there is one hart, whose MMU both are.
    unsafe {
        started.run::<F, RiscVEntries, _>(&setting, [&Refusing(&mmu), &mmu], |map| map, &mut report)
    };

    let readers = format_args!("readers");
    if harts.ids().len() < 2 {
        report.skip(readers, format_args!("there is one hart (--cpus)"));
        return report.finish();
    }
    // SAFETY: 1: this is supervisor mode, under OpenSBI, which starts the harts.
    let sbi = match unsafe { Sbi::new() } {
        Ok(sbi) => sbi,
        Err(error) => {
            report.skip(readers, format_args!("{error}"));
            return report.finish();
        }
    };
    // SAFETY: 1: this is the first hart, on the kernel's tables, which map all of that. 2: they are the device tree's. 3: the MMU that is used from
    // now on is that of all harts. 4: so they are, where that was no error.
    match parked.and_then(|()| unsafe { cpus::start(&harts, this_hart) }) {
        Ok(cpus) => {
            report.line(format_args!(
                "{} other CPUs started, {} left out",
                cpus.count(),
                harts.left_out()
            ));
            let mmu = Tlb::new(hart, sbi);
            let grace = InterruptsOff::new(cpus.rounds());
            // SAFETY: 1: duty 1; the harts were handed the same root, and firmware has all of them fence.
            unsafe { started.run_readers::<F, _, _>(&setting, &mmu, (&cpus, &grace), &mut report) };
        }
        Err(error) => report.check("the other harts start", Err(error)),
    }
    report.finish()
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    exit(Verdict::Panicked)
}
