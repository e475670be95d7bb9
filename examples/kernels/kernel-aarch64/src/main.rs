//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the translation tables that its CPU walks.
//!
//! ```text
//!   boot (MMU off) ▶ kernel_main ▶ exceptions ▶ device tree ▶ own tables, any granule ▶ frames ▶ experiment ▶ exit
//! ```
#![no_std]
#![no_main]

mod boot;
mod device_tree;
mod exceptions;
mod exit;
mod firmware;
mod paging;
mod probe;
mod registers;
mod serial;

use arch_aarch64::{Cpu, Format4K, Format16K, Format64K, MODEL_4K, MODEL_16K, MODEL_64K, Tlb};
use core::panic::PanicInfo;
use exit::{Verdict, exit};
use experiment::{
    EarlyFrames, Experiment, Frames, MemoryMap, Report, TableSpans, cases, early_range, early_slice,
};
use firmware::BootInformation;
use mm_core::addr::{Granule, Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, RadixTable};
use mm_core::vmemmap::AuditSlot;
use paging::{AddressSpace, LinearMap};
use probe::CpuProbe;
use serial::Serial;

/// For how many frames the audit has room in one pass.
const AUDIT_SLOTS: u64 = 1 << 16;

/// What tables translate, from the last level upwards (Arm ARM, "Translation using the 4KB granule", and likewise for the others).
const SPANS_4K: TableSpans = TableSpans {
    leaf: 21,
    upper: &[30, 39],
};
const SPANS_16K: TableSpans = TableSpans {
    leaf: 25,
    upper: &[36, 47],
};
const SPANS_64K: TableSpans = TableSpans {
    leaf: 29,
    upper: &[42],
};

/// The sizes of compound pages that are tried: what a block of the lowest level with blocks maps, and more.
const COMPOUND_4K: [u64; 2] = [2 << 20, 1 << 30];
const COMPOUND_16K: [u64; 2] = [32 << 20, 1 << 30];
const COMPOUND_64K: [u64; 2] = [512 << 20, 2 << 30];

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
    let BootInformation { granule, map } = information;
    print_memory_map(granule, &map);
    if let Err(missing) = registers::has_granule(granule) {
        println!(
            "skipped: the CPU has no pages of {} KiB (ID_AA64MMFR0_EL1.{} = {:#x})",
            granule.bytes() >> 10,
            missing.field,
            missing.value
        );
        exit(Verdict::Skipped);
    }

    let image_end = paging::image_end();
    let Some(early_range) = early_range(&map, granule, image_end, boot::IDENTITY_END) else {
        panic!("no RAM above the kernel and below 2 GiB");
    };
    let early = EarlyFrames::new(early_range);
    // SAFETY: 1: the boot code's tables are in use. 2: RAM behind the image, by the memory map.
    let space = match unsafe { AddressSpace::build(granule, &map, &early) } {
        Ok(space) => space,
        Err(error) => panic!("{error:?}"),
    };
    // SAFETY: 1: this code, its data, its stacks and the serial port are all that is in use; what was read of the device tree was copied.
    let direct_map = unsafe { space.activate() };

    // SAFETY: 1: `early` came from RAM behind the image. 2: the direct map reaches all RAM.
    let scratch = unsafe {
        early_slice(
            &early,
            granule,
            &direct_map,
            AUDIT_SLOTS,
            AuditSlot::default,
        )
    };
    let Some(scratch) = scratch else {
        panic!("no memory for the audit");
    };
    // SAFETY: 1: the map is the device tree's, and from the image's end on nothing is in use; `early` came from `early_range`, and
    // nothing else was taken. 2: it maps all RAM linearly.
    let frames =
        unsafe { experiment::frames(&map, early_range, &early, granule, &direct_map, image_end) };
    let Some(frames) = frames else {
        panic!("no memory for the allocator's books");
    };
    println!(
        "{} frames free",
        frames.allocator().allocator().free_frames()
    );

    let Some(root) = space.root() else {
        panic!("no root table");
    };
    let machine = Machine {
        probe,
        root,
        frames: &frames,
        direct_map: &direct_map,
        map: &map,
    };
    let good = match granule {
        // SAFETY: 1: TTBR1 names the root, and TCR_EL1.TG1 is 4 KiB.
        Granule::Size4K => unsafe {
            machine.run::<Format4K>(MODEL_4K, SPANS_4K, &COMPOUND_4K, scratch)
        },
        // SAFETY: 1: TTBR1 names the root, and TCR_EL1.TG1 is 16 KiB.
        Granule::Size16K => unsafe {
            machine.run::<Format16K>(MODEL_16K, SPANS_16K, &COMPOUND_16K, scratch)
        },
        // SAFETY: 1: TTBR1 names the root, and TCR_EL1.TG1 is 64 KiB.
        Granule::Size64K => unsafe {
            machine.run::<Format64K>(MODEL_64K, SPANS_64K, &COMPOUND_64K, scratch)
        },
    };
    exit(if good {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

fn print_memory_map(granule: Granule, map: &MemoryMap) {
    println!("kernel-aarch64, pages of {} KiB", granule.bytes() >> 10);
    for (name, list) in [("RAM", &map.ram), ("device memory", &map.device)] {
        for range in list.as_slice() {
            let start = range.start().base(granule);
            let kib = (range.frames() << granule.shift()) >> 10;
            println!("{name}: {kib} KiB at {start}");
        }
    }
}

/// What the kernel has got ready.
struct Machine<'m> {
    probe: CpuProbe,
    root: Pfn,
    frames: &'m Frames<'m>,
    direct_map: &'m LinearMap,
    map: &'m MemoryMap,
}

impl Machine<'_> {
    /// Runs the experiment with compound pages of `compound` bytes, and says whether all went well.
    ///
    /// # Safety
    ///
    /// 1. `root` is the root that the CPU translates the upper half by, in the format `F`, and `model`'s vmemmap is empty in it.
    unsafe fn run<F: EntryFormat>(
        &self,
        model: MemoryModel,
        spans: TableSpans,
        compound: &[u64; 2],
        scratch: &mut [AuditSlot],
    ) -> bool {
        let &[device] = self.map.device.as_slice() else {
            panic!("no device memory; give the machine more memory, and `device=` its size");
        };
        let device: PfnRange = device;
        // SAFETY: 1: this is EL1. 2: there is one CPU.
        let cpu = unsafe { Cpu::new() };
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM. 3: there is one thread, and it has no other value for the
        // tables. 4: there is one CPU.
        let table = unsafe {
            RadixTable::<F, _, _, _>::new(
                self.root,
                self.frames,
                self.direct_map,
                Tlb::<F, _>::new(cpu),
            )
        };
        // SAFETY: 1: the probe uses this CPU, and it translates by the root (duty 1). 2: duty 1; nobody else has the vmemmap. 3: the direct map reaches all
        // RAM, and the allocator was made for this.
        let mut experiment = unsafe {
            Experiment::new(
                &self.probe,
                table,
                model,
                self.frames,
                self.direct_map,
                scratch,
                spans,
            )
        };
        let mut serial = Serial::new();
        let mut report = Report::new(&mut serial);
        let granule = model.granule();
        let compound =
            compound.map(|bytes| Order::from_bytes(bytes, granule).unwrap_or(Order::BASE));
        experiment.run(
            self.map,
            cases(&model, &spans, device, &compound),
            &mut report,
        );
        experiment.run_battery(device, &mut report);
        report.finish()
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    exit(Verdict::Panicked)
}
