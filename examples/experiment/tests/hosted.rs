//! The kernels' experiment on simulated memory, laid out as it is in the kernels, with a CPU that
//! keeps every translation until it is told to forget. What a kernel prints has to be what is
//! printed here.
#![allow(
    clippy::unwrap_used,
    reason = "a test has to stop where it cannot be set up"
)]

use arch_aarch64::{Format4K, Format16K, Format64K, MODEL_4K, MODEL_16K, MODEL_64K};
use arch_riscv64::{
    MODEL_SV39, MODEL_SV48, MODEL_SV57, SingleHart, Sv39, Sv48, Sv57, SvFormat, Tlb,
    TlbInstructions,
};
use arch_sim::walker::{AArch64Walker, RiscV64Walker, Walker, X86_64Walker};
use arch_sim::{Fault as SimFault, SimMemory, SimMmu, SimTlb};
use arch_x86_64::{FiveLevel, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL};
use experiment::{
    ArmDescriptors, Bitmap, Case, Cost, EntryBits, Experiment, FOREIGN_TABLES, Fault, FaultKind,
    ForeignTables, Frames, Limited, Machine, MemoryMap, MmuRecord, Probe, Recorded, RecordedRoots,
    Refusing, Report, RiscVEntries, Subject, TableShape, Tables, Verdict, X86Entries, cases,
};
use hosted::any_table;
use mm_core::addr::{Granule, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::frame::{Counted, WordCounts};
use mm_core::model::MemoryModel;
use mm_core::pagemap::Tails;
use mm_core::paging::{EntryFormat, FlushScope, Mmu, OneRoot, RadixTable, Replacement};
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::AuditSlot;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::thread;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

const FOUR_LEVEL: TableShape = shape(Granule::Size4K, 48);

const fn shape(granule: Granule, address_bits: u32) -> TableShape {
    TableShape {
        granule,
        address_bits,
    }
}

/// A CPU whose fault handler counts.
struct SimCpu<W> {
    tlb: SimTlb<W>,
    memory: SimMemory,
    faults: Cell<u64>,
}

impl<W> SimCpu<W> {
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
unsafe impl<W: Walker> Probe for SimCpu<W> {
    fn load(&self, at: VirtAddr) -> Result<u64, Fault> {
        let address = self.tlb.access(at).map_err(|fault| self.fault(at, fault))?;
        // Beyond memory a bus answers with zero, as of an address that somebody else maps.
        Ok(self.memory.read_u64(address).unwrap_or(0))
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

/// What walks tables as the CPU would, of whatever architecture.
type AnyWalker<'w> = &'w (dyn Walker + Sync);

/// The CPU.
type Cpu<'w> = SimTlb<AnyWalker<'w>>;

/// The MMU that a CPU is, where entries in use are exchanged by a rule.
type MmuOf<'w, F> = for<'c> fn(&'c Cpu<'w>, Replacement) -> Box<dyn Mmu<F> + 'c>;

/// What differs from kernel to kernel.
struct Setting<'w, F> {
    model: MemoryModel,
    shape: TableShape,
    walker: AnyWalker<'w>,
    mmu: MmuOf<'w, F>,
    /// How entries in use are exchanged.
    rule: Replacement,
    /// Compound pages, in bytes.
    compound: [u64; 2],
    /// RAM, in bytes.
    ram: u64,
    /// Whether the conformance battery is run as well. It is run hosted on every backend by itself:
    /// what is tested here is the kernels' harness.
    with_battery: bool,
}

/// One that does what it is told, at once.
fn plain<'c, F>(cpu: &'c Cpu<'_>, rule: Replacement) -> Box<dyn Mmu<F> + 'c> {
    Box::new(SimMmu::new(vec![cpu.clone()]).with_replacement(rule))
}

/// A hart, which forgets by SFENCE.VMA.
struct Hart<'c, 'w>(&'c Cpu<'w>);

// SAFETY: 1: the simulated hart drops the leaves of the page, and what was not valid where they are. 2: it drops everything. 3: it sees
// stores in the order of the host.
unsafe impl TlbInstructions for Hart<'_, '_> {
    fn sfence_vma(&self, at: VirtAddr) {
        let page = VirtRange::single(at);
        self.0.forget_leaves(FlushScope::Leaves(&[page]));
    }

    fn sfence_vma_all(&self) {
        self.0.flush_all();
    }

    fn fence(&self) {}
}

/// The one of [`Hart`], which caches entries that are not valid, too.
fn fences<'c, F: SvFormat>(hart: &'c Cpu<'_>, rule: Replacement) -> Box<dyn Mmu<F> + 'c> {
    hart.cache_holes();
    // SAFETY: 1: the machine has one.
    let tlb = Tlb::new(Hart(hart), unsafe { SingleHart::new() });
    match rule {
        Replacement::Refused => Box::new(Refusing(tlb)),
        _ => Box::new(tlb),
    }
}

/// 4 KiB pages, as on x86-64.
fn x86<F>(model: MemoryModel, walker: AnyWalker<'_>, address_bits: u32) -> Setting<'_, F> {
    Setting {
        model,
        shape: shape(Granule::Size4K, address_bits),
        walker,
        mmu: plain,
        rule: Replacement::Direct,
        compound: [2 * MIB, GIB],
        ram: GIB,
        with_battery: false,
    }
}

/// As on x86-64, and what a hart does instead.
fn risc_v<F: SvFormat>(
    model: MemoryModel,
    walker: AnyWalker<'_>,
    address_bits: u32,
) -> Setting<'_, F> {
    Setting {
        mmu: fences,
        with_battery: address_bits == 39,
        ..x86(model, walker, address_bits)
    }
}

fn arm<F>(
    model: MemoryModel,
    walker: AnyWalker<'_>,
    compound: [u64; 2],
    ram: u64,
) -> Setting<'_, F> {
    Setting {
        model,
        shape: shape(model.granule(), 48),
        walker,
        mmu: plain,
        rule: Replacement::BreakBeforeMake,
        compound,
        ram,
        with_battery: model.granule() == Granule::Size16K,
    }
}

/// Runs everything and answers with what was printed; asserts that all went well.
fn run<F: EntryFormat, B: EntryBits + fmt::Debug>(setting: &Setting<'_, F>) -> String {
    let Setting { model, shape, .. } = *setting;
    let granule = model.granule();
    let bytes = |start, size| PfnRange::from_bytes(PhysAddr::new(start), size, granule).unwrap();
    let ram = bytes(0, setting.ram);
    let usable = bytes(64 * MIB, setting.ram - 64 * MIB);
    let device = bytes(4 * GIB, 4 * GIB);
    let memory = SimMemory::new(granule, &[ram, device]).unwrap();
    let root = Pfn::new(1).unwrap();
    let cpu = SimCpu {
        tlb: SimTlb::new(setting.walker, &memory, root),
        memory: memory.clone(),
        faults: Cell::new(0),
    };
    let words = vec![Cell::new(0); Bitmap::words_for(ram) as usize];
    let bitmap = Bitmap::new(ram, &words).unwrap();
    // SAFETY: 1: nobody else uses simulated RAM above 64 MiB. 2: the memory has all of it.
    unsafe { bitmap.add(usable) };
    let mut counts: Vec<AtomicU32> = (0..ram.frames()).map(|_| AtomicU32::new(0)).collect();
    let counts = WordCounts::new(ram, &mut counts).unwrap();
    let frames: Frames<'_> = Counted::new(Limited::new(bitmap), counts);

    // SAFETY: 1: the engine's tables lie there. 2: the memory has all RAM.
    let tables = unsafe { Tables::<B, _>::new(root, shape, &memory) };
    let spare = PfnRange::new(Pfn::new(2).unwrap(), FOREIGN_TABLES).unwrap();
    // SAFETY: 1: RAM that nobody else uses. 2: there is one thread.
    let raw_tables = unsafe { ForeignTables::new(tables, spare) };
    let mut map = MemoryMap::default();
    assert!(map.ram.add(bytes(0, 640 * 1024)) && map.ram.add(bytes(MIB, setting.ram - 2 * MIB)));
    assert!(map.device.add(device));
    let order = |bytes| Order::from_bytes(bytes, granule).unwrap();
    let entries = 0..model.online_entries();
    let online_root: Vec<_> = entries.map(|_| OnlineEntry::new()).collect();
    let subject = Subject {
        map: &map,
        device,
        compound: &setting.compound.map(order),
        online_root: &online_root,
    };

    let mut scratch = vec![AuditSlot::default(); 1 << 16];
    let mut printed = String::new();
    let mut report = Report::new(&mut printed);
    for rule in [Replacement::Refused, setting.rule] {
        let record = MmuRecord::default();
        let mmu = (setting.mmu)(&cpu.tlb, rule);
        let mmu = Recorded::new(&*mmu, &record);
        // SAFETY: 1: the CPU translates by one root.
        let roots = RecordedRoots::new(unsafe { OneRoot::new() }, &record);
        // SAFETY: 1: simulated memory is zero at first, and so is the root table, and all is taken
        // offline again. 2: the memory has it and all frames. 3: there is one table at a time and
        // one thread. 4: there is one CPU. 5: there is one root.
        let table = unsafe { RadixTable::<F, _, _, _, _>::new(root, roots, &frames, &memory, mmu) };
        let machine = Machine {
            probe: &cpu,
            model,
            shape,
            frames: &frames,
            direct_map: &memory,
            raw_tables: &raw_tables,
            record: &record,
        };
        // SAFETY: 1: the CPU walks from the table's root. 2: there is nothing else in it. 3: one
        // memory and one allocator.
        let mut experiment = unsafe { Experiment::new(machine, any_table(table), &mut scratch) };
        if setting.with_battery {
            experiment.run_battery(&subject, &mut report);
        }
        match rule {
            Replacement::Refused => experiment.run_refused_folds(&subject, &mut report),
            _ => experiment.run(&subject, &mut report),
        }
    }
    let verdict = report.finish();
    assert_eq!(verdict, Verdict::Passed, "{printed}");
    assert!(memory.violations().is_empty(), "{}", memory.violations());
    println!("{printed}");
    printed
}

/// The rows of device memory beside RAM.
fn devices(printed: &str) -> Vec<&str> {
    let beside_ram = printed
        .lines()
        .take_while(|line| !line.starts_with("side by side"));
    beside_ram
        .filter(|line| line.contains(" device "))
        .collect()
}

#[test]
fn all_checks_pass_with_4k_pages_of_any_architecture_and_cost_the_same() {
    fn x86_64<F: EntryFormat>(model: MemoryModel, walker: X86_64Walker, bits: u32) -> String {
        run::<F, X86Entries>(&x86(model, &walker, bits))
    }
    fn risc_v_64<F: SvFormat>(model: MemoryModel, walker: RiscV64Walker, bits: u32) -> String {
        run::<F, RiscVEntries>(&risc_v(model, &walker, bits))
    }
    let four = || x86_64::<FourLevel>(MODEL_4_LEVEL, X86_64Walker::four_level(), 48);
    let five = || x86_64::<FiveLevel>(MODEL_5_LEVEL, X86_64Walker::five_level(), 57);
    let arm = || {
        run::<Format4K, ArmDescriptors>(&arm(
            MODEL_4K,
            &AArch64Walker::new(MODEL_4K.granule()),
            [2 * MIB, GIB],
            GIB,
        ))
    };
    let sv39 = || risc_v_64::<Sv39>(MODEL_SV39, RiscV64Walker::sv39(), 39);
    let sv48 = || risc_v_64::<Sv48>(MODEL_SV48, RiscV64Walker::sv48(), 48);
    let sv57 = || risc_v_64::<Sv57>(MODEL_SV57, RiscV64Walker::sv57(), 57);
    let others: [&(dyn Fn() -> String + Sync); 5] = [&five, &arm, &sv39, &sv48, &sv57];
    thread::scope(|scope| {
        let others = others.map(|other| scope.spawn(other));
        let four = four();
        assert!(!devices(&four).is_empty());
        // The upper tables of RAM, which depend on how many levels there are, are the only difference.
        for other in others {
            assert_eq!(devices(&four), devices(&other.join().unwrap()));
        }
    });
}

#[test]
fn all_checks_pass_with_16k_pages() {
    run::<Format16K, ArmDescriptors>(&arm(
        MODEL_16K,
        &AArch64Walker::new(MODEL_16K.granule()),
        [32 * MIB, GIB],
        GIB,
    ));
}

#[test]
fn all_checks_pass_with_64k_pages() {
    run::<Format64K, ArmDescriptors>(&arm(
        MODEL_64K,
        &AArch64Walker::new(MODEL_64K.granule()),
        [512 * MIB, 2 * GIB],
        3 * GIB,
    ));
}

/// Descriptor frames and leaf tables, by the formula.
fn cost(start: u64, size: u64, page: u64, wanted: impl Fn(&Case) -> bool) -> (u64, u64) {
    let order = |bytes| Order::from_bytes(bytes, Granule::Size4K).unwrap();
    let start = PhysAddr::new(start * MIB);
    let range = PfnRange::from_bytes(start, size * MIB, Granule::Size4K).unwrap();
    let compound = [2 * MIB, GIB].map(order);
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
    use mm_core::pagemap::Tables::{Private, Shared};
    let cost = |page, tails, tables| {
        cost(24576, 1024, page, |case| {
            (case.tails, case.tables) == (tails, tables)
        })
    };
    assert_eq!(cost(GIB, Tails::PerCompound, Private), (2, 8));
    assert_eq!(cost(GIB, Tails::PerCompound, Shared), (2, 2));
    assert_eq!(cost(GIB, Tails::PerOrder, Private), (2, 8));
    assert_eq!(cost(GIB, Tails::PerOrder, Shared), (2, 2));
    assert_eq!(cost(2 * MIB, Tails::PerCompound, Private), (1024, 8));
    assert_eq!(cost(2 * MIB, Tails::PerOrder, Private), (513, 8));
}
