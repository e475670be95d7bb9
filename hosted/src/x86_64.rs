//! x86-64 tables, and two simulated CPUs that walk them.

use crate::{Backend, Machine};
use arch_sim::walker::{Translation, Walker, X86_64Walker};
use arch_sim::{SimFrames, SimMemory, SimTlb};
use arch_x86_64::{
    FiveLevel, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL, Roots, Shootdown, Tlb, TlbInstructions,
};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::paging::RadixTable;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many CPUs the machine has: one that works, and one that has to be told.
const CPUS: usize = 2;

/// The CPUs of an x86-64 machine. Instructions go to the current one.
#[derive(Debug)]
pub struct X86Cpus {
    cpus: [SimTlb<X86_64Walker>; CPUS],
    current: AtomicUsize,
    roots_installed: AtomicU64,
    roots_removed: AtomicU64,
}

impl X86Cpus {
    fn new(walker: X86_64Walker, memory: &SimMemory, root: Pfn) -> Self {
        Self {
            cpus: std::array::from_fn(|_| SimTlb::new(walker, memory, root)),
            current: AtomicUsize::new(0),
            roots_installed: AtomicU64::new(0),
            roots_removed: AtomicU64::new(0),
        }
    }

    /// The translation caches of each CPU.
    pub fn all(&self) -> &[SimTlb<X86_64Walker>] {
        &self.cpus
    }

    /// How many entries of the root became present so far, and how many went.
    pub fn root_changes(&self) -> (u64, u64) {
        (
            self.roots_installed.load(Ordering::Relaxed),
            self.roots_removed.load(Ordering::Relaxed),
        )
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

// There is one root; what it is told is only counted.
impl Roots for X86Cpus {
    fn entry_installed(&self, _at: VirtAddr) {
        self.roots_installed.fetch_add(1, Ordering::Relaxed);
    }

    fn entry_removed(&self, _at: VirtAddr) {
        self.roots_removed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A backend with tables in the format of x86-64.
pub trait X86Backend: Backend<Cpus = X86Cpus> {
    /// What reads the tables byte by byte.
    const WALKER: X86_64Walker;
}

/// The page table of an x86-64 machine in the format `F`.
type Table<'m, F> =
    RadixTable<F, &'m SimFrames, &'m SimMemory, Tlb<&'m X86Cpus, &'m X86Cpus, &'m X86Cpus>>;

macro_rules! backend {
    ($(#[$doc:meta])* $name:ident, $cli:literal, $model:ident, $format:ident, $walker:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl X86Backend for $name {
            const WALKER: X86_64Walker = $walker;
        }

        impl Backend for $name {
            const NAME: &'static str = $cli;
            const MODEL: MemoryModel = $model;
            const HAS_TABLES: bool = true;
            type Cpus = X86Cpus;
            type Table<'m> = Table<'m, $format>;

            fn cpus(memory: &SimMemory, root: Pfn) -> X86Cpus {
                X86Cpus::new($walker, memory, root)
            }

            unsafe fn table(machine: &Machine<Self>) -> Self::Table<'_> {
                let cpus = machine.cpus();
                // SAFETY: 1: the machine's root table is empty at first. 2: the machine's memory has all frames of its allocator, and the
                // root. 3: there is no other table for the machine (duty 1). 4: the machine has no other CPUs.
                unsafe {
                    RadixTable::new(
                        machine.root(),
                        machine.frames(),
                        machine.memory(),
                        Tlb::new(cpus, cpus, cpus),
                    )
                }
            }

            fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation> {
                $walker.translate(machine.memory(), machine.root(), at).ok()
            }
        }
    };
}

backend!(
    /// x86-64 with 4 levels.
    X86_64,
    "x86_64",
    MODEL_4_LEVEL,
    FourLevel,
    X86_64Walker::four_level()
);

backend!(
    /// x86-64 with 5 levels.
    X86_64La57,
    "x86_64-la57",
    MODEL_5_LEVEL,
    FiveLevel,
    X86_64Walker::five_level()
);
