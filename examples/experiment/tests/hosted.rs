//! The kernels' experiment on simulated memory, laid out as it is in the kernels: 1 GiB of RAM from
//! address 0, 4 GiB of device memory from 4 GiB. What a kernel prints has to be what is printed
//! here.
#![allow(
    clippy::unwrap_used,
    reason = "a test has to stop where it cannot be set up"
)]

use arch_sim::walker::X86_64Walker;
use arch_sim::{Fault as SimFault, SimMemory, SimTlb};
use arch_x86_64::{
    FiveLevel, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL, OneRoot, SingleCpu, Tlb, TlbInstructions,
};
use experiment::{
    Bitmap, Case, Cost, Experiment, Fault, FaultKind, Frames, MemoryMap, Probe, Rationed, Report,
    TableSpans, cases,
};
use mm_core::addr::{Granule, Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::frame::Counted;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Tables, Tails};
use mm_core::paging::{EntryFormat, RadixTable};
use mm_core::vmemmap::AuditSlot;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;

const FOUR_LEVEL: TableSpans = TableSpans {
    leaf: 21,
    upper: &[30, 39],
};
const FIVE_LEVEL: TableSpans = TableSpans {
    leaf: 21,
    upper: &[30, 39, 48],
};
const GIB: u64 = 1 << 30;

fn bytes(start: u64, size: u64) -> PfnRange {
    PfnRange::from_bytes(PhysAddr::new(start), size, Granule::Size4K).unwrap()
}

fn order(bytes: u64) -> Order {
    Order::from_bytes(bytes, Granule::Size4K).unwrap()
}

/// A CPU with a TLB, whose fault handler counts.
struct SimCpu {
    tlb: SimTlb<X86_64Walker>,
    memory: SimMemory,
    faults: Cell<u64>,
}

impl SimCpu {
    fn fault(&self, at: VirtAddr, fault: SimFault) -> Fault {
        self.faults.set(self.faults.get() + 1);
        let kind = match fault {
            SimFault::NotMapped { .. } => FaultKind::NotMapped,
            _ => FaultKind::NotAllowed,
        };
        Fault { at, kind }
    }
}

// SAFETY: 1: memory is accessed at what the simulated CPU translates to. 2: by `fault`.
unsafe impl Probe for SimCpu {
    fn load(&self, at: VirtAddr) -> Result<u64, Fault> {
        let address = self.tlb.access(at).map_err(|fault| self.fault(at, fault))?;
        Ok(self.memory.read_u64(address).unwrap())
    }

    unsafe fn store(&self, at: VirtAddr, value: u64) -> Result<(), Fault> {
        let address = self.tlb.store(at).map_err(|fault| self.fault(at, fault))?;
        self.memory.write_u64(address, value).unwrap();
        Ok(())
    }

    fn faults(&self) -> u64 {
        self.faults.get()
    }
}

/// The instructions of the one CPU.
struct Instructions(SimTlb<X86_64Walker>);

// SAFETY: 1: the simulated CPU drops the page's leaves and all upper entries. 2: it drops
// everything. 3: it has no PCIDs.
unsafe impl TlbInstructions for Instructions {
    fn invlpg(&self, at: VirtAddr) {
        self.0.invalidate_page(at);
    }

    fn has_invpcid(&self) -> bool {
        false
    }

    fn invpcid_all_including_global(&self) {
        self.0.flush_all();
    }

    fn toggle_global(&self) {
        self.0.flush_all();
    }

    fn uses_pcids(&self) -> bool {
        false
    }
}

/// Runs everything and answers with what was printed; asserts that all went well.
fn run<F: EntryFormat>(model: MemoryModel, walker: X86_64Walker, spans: TableSpans) -> String {
    let ram = bytes(0, GIB);
    let usable = bytes(64 << 20, GIB - (64 << 20));
    let device = bytes(4 * GIB, 4 * GIB);
    let memory = SimMemory::new(Granule::Size4K, &[ram]).unwrap();
    let root = Pfn::new(1).unwrap();
    let cpu = SimCpu {
        tlb: SimTlb::new(walker, &memory, root),
        memory: memory.clone(),
        faults: Cell::new(0),
    };
    let words = vec![Cell::new(0); Bitmap::words_for(ram) as usize];
    let bitmap = Bitmap::new(ram, &words).unwrap();
    // SAFETY: 1: nobody else uses simulated RAM above 64 MiB. 2: the memory has all of it.
    unsafe { bitmap.add(usable) };
    let counts: Vec<AtomicU64> = (0..ram.frames()).map(|_| AtomicU64::new(0)).collect();
    let frames: Frames<'_> = Counted::new(Rationed::new(bitmap), ram, &counts).unwrap();

    // SAFETY: 1: there is one simulated CPU.
    let other_cpus = unsafe { SingleCpu::new() };
    let mmu = Tlb::new(Instructions(cpu.tlb.clone()), other_cpus, OneRoot);
    // SAFETY: 1: simulated memory is zero at first, and so is the root table. 2: the memory has it
    // and all frames. 3: there is one table and one thread. 4: there is one CPU.
    let table = unsafe { RadixTable::<F, _, _, _>::new(root, &frames, &memory, mmu) };
    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    // SAFETY: 1: the CPU walks from the table's root. 2: there is nothing else in it. 3: one memory
    // and one allocator.
    let mut experiment =
        unsafe { Experiment::new(&cpu, table, model, &frames, &memory, &mut scratch, spans) };
    let mut map = MemoryMap::default();
    assert!(map.ram.add(bytes(0, 0x9f000)) && map.ram.add(bytes(1 << 20, GIB - (2 << 20))));
    assert!(map.device.add(device));

    let compound = [order(2 << 20), order(GIB)];
    let mut printed = String::new();
    let mut report = Report::new(&mut printed);
    experiment.run(&map, cases(&model, &spans, device, &compound), &mut report);
    let good = report.finish();
    assert!(good, "{printed}");
    assert!(memory.violations().is_empty(), "{}", memory.violations());
    printed
}

#[test]
fn all_checks_pass_on_simulated_memory() {
    let four = run::<FourLevel>(MODEL_4_LEVEL, X86_64Walker::four_level(), FOUR_LEVEL);
    let five = run::<FiveLevel>(MODEL_5_LEVEL, X86_64Walker::five_level(), FIVE_LEVEL);
    println!("{four}{five}");
    // 3 upper tables instead of 2 are the only difference.
    let devices = |printed: &str| -> Vec<String> {
        let rows = printed.lines().filter(|line| line.contains("device"));
        rows.map(str::to_owned).collect()
    };
    assert_eq!(devices(&four), devices(&five));
    assert!(!devices(&four).is_empty());
}

/// Descriptor frames and leaf tables, by the formula.
fn cost(start: u64, size: u64, page: u64, wanted: impl Fn(&Case) -> bool) -> (u64, u64) {
    let range = bytes(start << 20, size << 20);
    let compound = [order(2 << 20), order(GIB)];
    let found = cases(&MODEL_4_LEVEL, &FOUR_LEVEL, range, &compound)
        .filter(|case| case.range == range && case.page_bytes == page)
        .find(wanted);
    let Cost {
        descriptor_frames,
        leaf_tables,
        ..
    } = Cost::of(&found.unwrap(), &[], &MODEL_4_LEVEL, &FOUR_LEVEL);
    (descriptor_frames, leaf_tables)
}

/// The formula, against what was measured on Linux (the same sizes, from 24 GiB on).
#[test]
fn the_arithmetic_agrees_with_what_linux_was_measured_to_use() {
    let cost = |start, size, page| cost(start, size, page, |_| true);
    assert_eq!(cost(24576, 4096, 4096), (16384, 0));
    assert_eq!(cost(24576, 4096, GIB), (8, 32));
    assert_eq!(cost(24576, 8192, 2 << 20), (8192, 64));
    assert_eq!(cost(24576, 1026, 4096), (4104, 1));
    assert_eq!(cost(24578, 1026, 4096), (4104, 2));
    assert_eq!(cost(24578, 1026, 2 << 20), (1026, 9));
}

/// What one gibibyte costs where more than tails of one compound page is shared.
#[test]
fn sharing_further_costs_what_the_design_says() {
    let cost = |page, tails, tables| {
        cost(24576, 1024, page, |case| {
            (case.tails, case.tables) == (tails, tables)
        })
    };
    assert_eq!(cost(GIB, Tails::PerCompound, Tables::Shared), (2, 2));
    assert_eq!(cost(GIB, Tails::PerOrder, Tables::Private), (2, 8));
    assert_eq!(cost(GIB, Tails::PerOrder, Tables::Shared), (2, 2));
    assert_eq!(cost(2 << 20, Tails::PerOrder, Tables::Private), (513, 8));
}
