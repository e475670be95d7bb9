//! x86-64 tables, and two simulated CPUs that walk them.

use crate::ahead::ReadAhead;
use crate::{Radix, SimCpus};
use arch_sim::walker::X86_64Walker;
use arch_sim::{SimMemory, SimTlb};
use arch_x86_64::{
    FiveLevel, FlushRequest, FourLevel, MODEL_4_LEVEL, MODEL_5_LEVEL, Shootdown, Tlb,
    TlbInstructions,
};
use mm_core::addr::{Granule, Pfn, VirtAddr, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::Roots;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many CPUs the machine has: one that works, and one that has to be told.
const CPUS: usize = 2;

/// The CPUs of an x86-64 machine. Instructions go to the current one.
#[derive(Debug)]
pub struct X86Cpus {
    cpus: [SimTlb<X86_64Walker>; CPUS],
    current: AtomicUsize,
    shootdowns: AtomicU64,
    ahead: ReadAhead,
    roots_installed: AtomicU64,
    roots_removed: AtomicU64,
}

impl X86Cpus {
    fn new(walker: X86_64Walker, memory: &SimMemory, root: Pfn) -> Self {
        Self {
            cpus: std::array::from_fn(|_| SimTlb::new(walker, memory, root)),
            current: AtomicUsize::new(0),
            shootdowns: AtomicU64::new(0),
            ahead: ReadAhead::default(),
            roots_installed: AtomicU64::new(0),
            roots_removed: AtomicU64::new(0),
        }
    }

    fn current(&self) -> &SimTlb<X86_64Walker> {
        let index = self.current.load(Ordering::Relaxed);
        self.cpus.get(index).unwrap_or(&self.cpus[0])
    }

    /// Has the current CPU forget, and read `page`, or all that it reads ahead, before and after.
    fn forget(&self, page: Option<VirtAddr>, forget: impl FnOnce(&SimTlb<X86_64Walker>)) {
        let cpu = self.current();
        let page = page.and_then(|at| VirtRange::new(at, Granule::Size4K.bytes()).ok());
        let ahead = self.ahead.before_forgetting(page);
        ahead.iter().for_each(|range| cpu.fill(*range));
        forget(cpu);
        ahead.iter().for_each(|range| cpu.fill(*range));
    }
}

// SAFETY: 1: the simulated CPU drops the page's leaves and all upper entries. 2: it drops
// everything. 3: the simulation has no PCIDs. 4: it sees stores in the order of the host.
unsafe impl TlbInstructions for X86Cpus {
    fn invlpg(&self, at: VirtAddr) {
        self.forget(Some(at), |cpu| cpu.invalidate_page(at));
    }

    fn has_invpcid(&self) -> bool {
        false
    }

    fn invpcid_all_including_global(&self) {
        self.forget(None, SimTlb::flush_all);
    }

    fn toggle_global(&self) {
        self.forget(None, SimTlb::flush_all);
    }

    fn uses_pcids(&self) -> bool {
        false
    }

    fn fence(&self) {}
}

// SAFETY: 1: each CPU but the current one is made the current one for the time of the request.
unsafe impl Shootdown for X86Cpus {
    fn on_other_cpus(&self, request: &FlushRequest) {
        self.shootdowns.fetch_add(1, Ordering::Relaxed);
        let current = self.current.load(Ordering::Relaxed);
        for other in (0..CPUS).filter(|other| *other != current) {
            self.current.store(other, Ordering::Relaxed);
            request.execute(self);
        }
        self.current.store(current, Ordering::Relaxed);
    }
}

// SAFETY: 1 to 3: there is one root; what others would be told is only counted.
unsafe impl Roots for X86Cpus {
    unsafe fn entry_installed(&self, _at: VirtAddr) {
        self.roots_installed.fetch_add(1, Ordering::Relaxed);
    }

    unsafe fn entry_removed(&self, _at: VirtAddr) {
        self.roots_removed.fetch_add(1, Ordering::Relaxed);
    }
}

impl SimCpus for X86Cpus {
    type Walker = X86_64Walker;

    fn all(&self) -> &[SimTlb<X86_64Walker>] {
        &self.cpus
    }

    fn ahead(&self) -> Option<&ReadAhead> {
        Some(&self.ahead)
    }

    // Each flush interrupts the other CPUs once.
    fn flushes(&self) -> u64 {
        self.shootdowns.load(Ordering::Relaxed)
    }

    fn root_changes(&self) -> Option<(u64, u64)> {
        Some((
            self.roots_installed.load(Ordering::Relaxed),
            self.roots_removed.load(Ordering::Relaxed),
        ))
    }
}

/// x86-64 with 4 levels.
#[derive(Debug)]
pub enum X86_64 {}

/// x86-64 with 5 levels.
#[derive(Debug)]
pub enum X86_64La57 {}

macro_rules! levels {
    ($name:ident, $cli:literal, $about:literal, $model:ident, $format:ident, $walker:expr) => {
        impl Radix for $name {
            const RADIX_NAME: &'static str = $cli;
            const RADIX_ABOUT: &'static str = $about;
            const RADIX_MODEL: MemoryModel = $model;
            type Format = $format;
            type Walker = X86_64Walker;
            type Processors = X86Cpus;
            type Mmu<'m> = Tlb<&'m X86Cpus, &'m X86Cpus>;
            type Roots<'m> = &'m X86Cpus;

            fn walker() -> X86_64Walker {
                $walker
            }

            // An entry is exchanged by one store: nobody has to be kept away.
            fn processors(memory: &SimMemory, root: Pfn, _quiesce: bool) -> X86Cpus {
                X86Cpus::new(Self::walker(), memory, root)
            }

            fn mmu(cpus: &X86Cpus) -> Self::Mmu<'_> {
                Tlb::new(cpus, cpus)
            }

            fn roots(cpus: &X86Cpus) -> &X86Cpus {
                cpus
            }

            // P, R/W; PS where it is no base page; XD.
            fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
                frame.get() << 12 | 0x3 | u64::from(huge) << 7 | 1 << 63
            }

            // P, R/W.
            fn foreign_table(frame: Pfn) -> u64 {
                frame.get() << 12 | 0x3
            }
        }
    };
}

levels!(
    X86_64,
    "x86_64",
    "4-level tables in hardware format",
    MODEL_4_LEVEL,
    FourLevel,
    X86_64Walker::four_level()
);

levels!(
    X86_64La57,
    "x86_64-la57",
    "5-level tables in hardware format",
    MODEL_5_LEVEL,
    FiveLevel,
    X86_64Walker::five_level()
);
