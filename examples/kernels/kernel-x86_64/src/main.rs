//! A kernel that embeds mm-core: it boots, maps its memory, and runs the experiment on the page tables that its CPU walks.
//!
//! ```text
//!   boot (32 bits) ▶ kernel_main ▶ segments, exceptions ▶ memory map, NFIT ▶ own tables ▶ frames ▶ experiment ▶ exit
//! ```
#![no_std]
#![no_main]

mod acpi;
mod boot;
mod exceptions;
mod exit;
mod firmware;
mod memory;
mod paging;
mod probe;
mod pvh;
mod segments;
mod serial;

use arch_x86_64::{
    Cpu, FiveLevel, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL, OneRoot, SingleCpu, Tlb,
};
use core::panic::PanicInfo;
use exit::{Verdict, exit};
use experiment::{EarlyFrames, Experiment, Frames, MemoryMap, Report, TableSpans, cases};
use firmware::FirmwareMemory;
use mm_core::addr::{Granule, Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, RadixTable};
use mm_core::vmemmap::AuditSlot;
use paging::{AddressSpace, Levels, LinearMap};
use probe::CpuProbe;
use pvh::StartInfo;
use serial::Serial;

/// For how many frames the audit has room in one pass.
const AUDIT_SLOTS: u64 = 1 << 16;

/// What tables translate: a page table, a page directory, a page-directory-pointer table (SDM, volume 3A, "Paging").
const FOUR_LEVEL_SPANS: TableSpans = TableSpans {
    leaf: 21,
    upper: &[30, 39],
};

/// One more: a PML4 table below the PML5.
const FIVE_LEVEL_SPANS: TableSpans = TableSpans {
    leaf: 21,
    upper: &[30, 39, 48],
};

/// Called by the boot code with the physical address of the start information, on the kernel's stack.
extern "C" fn kernel_main(start_info: u64) -> ! {
    Serial::initialise();
    // SAFETY: 1: called once each, in this order, by the boot code's only call.
    let probe = unsafe {
        exceptions::initialise(segments::initialise());
        CpuProbe::new()
    };
    let levels = Levels::current();
    let map = read_memory_map(start_info);
    print_memory_map(levels, &map);

    let image_end = paging::image_end();
    let Some(early_range) = memory::early_range(&map, image_end, boot::IDENTITY_END) else {
        panic!("no RAM below 4 GiB and above the kernel");
    };
    let early = EarlyFrames::new(early_range);
    // SAFETY: 1: the boot tables are in use. 2: RAM behind the image, by the memory map.
    let space = match unsafe { AddressSpace::build(levels, &map, &early) } {
        Ok(space) => space,
        Err(error) => panic!("{error:?}"),
    };
    // SAFETY: 1: this code, its data and its stack are linked into the image, and what was read of the firmware's memory
    // was copied. 2: RAM and persistent memory are.
    let direct_map = unsafe { space.activate() };

    let Some(scratch) = memory::early_slice(&early, &direct_map, AUDIT_SLOTS, AuditSlot::default)
    else {
        panic!("no memory for the audit");
    };
    // SAFETY: 1: the map is the firmware's, `early` came from `early_range`, and nothing else was taken. 2: it maps all RAM linearly.
    let frames = unsafe { memory::frames(&map, early_range, &early, &direct_map, image_end) };
    let Some(frames) = frames else {
        panic!("no memory for the allocator's books");
    };
    println!(
        "{} frames free",
        frames.allocator().allocator().free_frames()
    );

    let machine = Machine {
        probe,
        root: space.root(),
        frames: &frames,
        direct_map: &direct_map,
        map: &map,
    };
    let good = match levels {
        // SAFETY: 1: the root is in use, in 4-level format.
        Levels::Four => unsafe {
            machine.run::<FourLevel>(MODEL_4_LEVEL, FOUR_LEVEL_SPANS, scratch)
        },
        // SAFETY: 1: the root is in use, in 5-level format.
        Levels::Five => unsafe {
            machine.run::<FiveLevel>(MODEL_5_LEVEL, FIVE_LEVEL_SPANS, scratch)
        },
    };
    exit(if good {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

fn read_memory_map(start_info: u64) -> MemoryMap {
    // SAFETY: 1: the boot tables are in use, and the value does not outlive this function. 2: nobody writes yet.
    let firmware = unsafe { FirmwareMemory::new() };
    let Some(start) = StartInfo::read(&firmware, start_info) else {
        panic!("no PVH start information at {start_info:#x}");
    };
    MemoryMap {
        ram: start.ram,
        device: acpi::persistent_memory(&firmware, start.rsdp),
    }
}

fn print_memory_map(levels: Levels, map: &MemoryMap) {
    println!("kernel-x86_64, {} levels of page tables", levels.count());
    let lists = [("RAM", &map.ram), ("persistent memory", &map.device)];
    for (name, list) in lists {
        for range in list.as_slice() {
            let start = range.start().base(Granule::Size4K);
            let kib = (range.frames() << Granule::Size4K.shift()) >> 10;
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
    /// Runs the experiment, and says whether all went well.
    ///
    /// # Safety
    ///
    /// 1. `root` is the root that the CPU translates by, in the format `F`, and `model`'s vmemmap is empty in it.
    unsafe fn run<F: EntryFormat>(
        &self,
        model: MemoryModel,
        spans: TableSpans,
        scratch: &mut [AuditSlot],
    ) -> bool {
        let &[device] = self.map.device.as_slice() else {
            panic!("one range of persistent memory is needed; give the machine an NVDIMM");
        };
        let device: PfnRange = device;
        // SAFETY: 1: this is ring 0. 2: there is one CPU.
        let cpu = unsafe { Cpu::new() };
        // SAFETY: 1: no other CPU was started.
        let one_cpu = unsafe { SingleCpu::new() };
        // SAFETY: 1: duty 1. 2: the direct map reaches all RAM. 3: there is one thread, and it has no other value for the
        // tables. 4: there is one CPU.
        let table = unsafe {
            RadixTable::<F, _, _, _>::new(
                self.root,
                self.frames,
                self.direct_map,
                Tlb::new(cpu, one_cpu, OneRoot),
            )
        };
        // SAFETY: 1: the probe uses this CPU, and it translates by the root (duty 1). 2: duty 1. 3: the direct map reaches all
        // RAM, and the allocator was made for this.
        let experiment = unsafe {
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
        let mut experiment = match experiment {
            Ok(experiment) => experiment,
            Err(error) => panic!("{error}"),
        };
        let mut serial = Serial::new();
        let mut report = Report::new(&mut serial);
        let compound = [9, 18].map(|order| Order::new(order).unwrap_or(Order::BASE));
        experiment.run(self.map, cases(&model, device, &compound), &mut report);
        report.finish()
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    exit(Verdict::Panicked)
}
