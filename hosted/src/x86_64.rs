//! x86-64 tables, and two simulated CPUs that walk them.

use crate::radix::Radix;
use arch_sim::walker::X86_64Walker;
use arch_sim::{SimMemory, SimTlb};
use arch_x86_64::{
    FiveLevel, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL, OneRoot, Shootdown, Tlb, TlbInstructions,
};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many CPUs the machine has: one that works, and one that has to be told.
const CPUS: usize = 2;

/// The CPUs of an x86-64 machine. Instructions go to the current one.
#[derive(Debug)]
pub struct X86Cpus {
    cpus: [SimTlb<X86_64Walker>; CPUS],
    current: AtomicUsize,
}

impl X86Cpus {
    fn new(walker: X86_64Walker, memory: &SimMemory, root: Pfn) -> Self {
        Self {
            cpus: std::array::from_fn(|_| SimTlb::new(walker, memory, root)),
            current: AtomicUsize::new(0),
        }
    }

    /// The translation caches of each CPU.
    pub fn all(&self) -> &[SimTlb<X86_64Walker>] {
        &self.cpus
    }

    fn current(&self) -> &SimTlb<X86_64Walker> {
        let index = self.current.load(Ordering::Relaxed);
        self.cpus.get(index).unwrap_or(&self.cpus[0])
    }
}

// SAFETY: 1: the simulated CPU drops the page's leaves and all upper entries. 2: it drops everything.
// 3: the simulation has no PCIDs.
unsafe impl TlbInstructions for X86Cpus {
    fn invlpg(&self, at: VirtAddr) {
        self.current().invalidate_page(at);
    }

    fn has_invpcid(&self) -> bool {
        false
    }

    fn invpcid_all_including_global(&self) {
        self.current().flush_all();
    }

    fn toggle_global(&self) {
        self.current().flush_all();
    }

    fn uses_pcids(&self) -> bool {
        false
    }
}

// SAFETY: 1: each CPU but the current one is made the current one for the time of the work.
unsafe impl Shootdown for X86Cpus {
    fn on_other_cpus(&self, work: &(dyn Fn() + Sync)) {
        let current = self.current.load(Ordering::Relaxed);
        for other in (0..CPUS).filter(|other| *other != current) {
            self.current.store(other, Ordering::Relaxed);
            work();
        }
        self.current.store(current, Ordering::Relaxed);
    }
}

/// Physical addresses have up to 52 bits.
const ADDRESS_BITS: u32 = 52;

/// x86-64 with 4 levels.
#[derive(Debug)]
pub enum X86_64 {}

impl Radix for X86_64 {
    const NAME: &'static str = "x86_64";
    const MODEL: MemoryModel = MODEL_4_LEVEL;
    const ADDRESS_BITS: u32 = ADDRESS_BITS;
    type Format = FourLevel;
    type Walker = X86_64Walker;
    type Cpus = X86Cpus;
    type Mmu<'m> = Tlb<&'m X86Cpus, &'m X86Cpus, OneRoot>;

    fn walker() -> X86_64Walker {
        X86_64Walker::four_level()
    }

    fn cpus(memory: &SimMemory, root: Pfn) -> X86Cpus {
        X86Cpus::new(Self::walker(), memory, root)
    }

    fn mmu(cpus: &X86Cpus) -> Self::Mmu<'_> {
        Tlb::new(cpus, cpus, OneRoot)
    }
}

/// x86-64 with 5 levels.
#[derive(Debug)]
pub enum X86_64La57 {}

impl Radix for X86_64La57 {
    const NAME: &'static str = "x86_64-la57";
    const MODEL: MemoryModel = MODEL_5_LEVEL;
    const ADDRESS_BITS: u32 = ADDRESS_BITS;
    type Format = FiveLevel;
    type Walker = X86_64Walker;
    type Cpus = X86Cpus;
    type Mmu<'m> = Tlb<&'m X86Cpus, &'m X86Cpus, OneRoot>;

    fn walker() -> X86_64Walker {
        X86_64Walker::five_level()
    }

    fn cpus(memory: &SimMemory, root: Pfn) -> X86Cpus {
        X86Cpus::new(Self::walker(), memory, root)
    }

    fn mmu(cpus: &X86Cpus) -> Self::Mmu<'_> {
        Tlb::new(cpus, cpus, OneRoot)
    }
}
