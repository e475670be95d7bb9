//! AArch64 tables of each granule, and two simulated CPUs that walk them.

use crate::ahead::ReadAhead;
use crate::{Radix, SimCpus};
use arch_aarch64::{
    Format4K, Format16K, Format64K, MODEL_4K, MODEL_16K, MODEL_64K, PageOperand, Quiesce, Tlb,
    TlbInstructions,
};
use arch_sim::walker::AArch64Walker;
use arch_sim::{SimMemory, SimTlb};
use mm_core::addr::{Granule, Pfn, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, FlushScope, OneRoot};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many CPUs the machine has: one that works, and one that hears of it by broadcasts only.
const CPUS: usize = 2;

/// The CPUs of an AArch64 machine, all in one inner shareable domain.
///
/// A TLBI has no effect before the DSB behind it: that is as late as the architecture allows. They
/// demand break-before-make.
#[derive(Debug)]
pub struct ArmCpus {
    granule: Granule,
    cpus: [SimTlb<AArch64Walker>; CPUS],
    pending: Mutex<Vec<Broadcast>>,
    flushes: AtomicU64,
    ahead: ReadAhead,
    /// Whether the kernel can keep them away from addresses.
    quiesce: bool,
}

/// A TLBI on its way.
#[derive(Clone, Copy, Debug)]
enum Broadcast {
    Page(PageOperand),
    All,
}

impl ArmCpus {
    fn new(walker: AArch64Walker, memory: &SimMemory, root: Pfn, quiesce: bool) -> Self {
        Self {
            granule: walker.granule(),
            cpus: std::array::from_fn(|_| {
                let cpu = SimTlb::new(walker, memory, root);
                cpu.demand_break_before_make();
                cpu
            }),
            pending: Mutex::default(),
            flushes: AtomicU64::new(0),
            ahead: ReadAhead::default(),
            quiesce,
        }
    }

    /// Makes all CPUs forget what `broadcast` names, on all levels.
    fn complete(&self, broadcast: Broadcast) {
        let page = match broadcast {
            Broadcast::Page(page) => VirtRange::new(page.address(), self.granule.bytes()).ok(),
            Broadcast::All => None,
        };
        let scope = match page.as_slice() {
            [] => FlushScope::Everything,
            page => FlushScope::Ranges(page),
        };
        let ahead = self.ahead.before_forgetting(page);
        for cpu in &self.cpus {
            ahead.iter().for_each(|range| cpu.fill(*range));
            cpu.forget(scope);
            ahead.iter().for_each(|range| cpu.fill(*range));
        }
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Broadcast>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: 1: simulated CPUs see memory as it is. 2: all CPUs forget at the barrier. 3: they read
// nothing ahead.
unsafe impl TlbInstructions for ArmCpus {
    fn dsb_ishst(&self) {}

    fn dsb_ish(&self) {
        let pending = std::mem::take(&mut *self.pending());
        let flushed = u64::from(!pending.is_empty());
        self.flushes.fetch_add(flushed, Ordering::Relaxed);
        pending
            .into_iter()
            .for_each(|broadcast| self.complete(broadcast));
    }

    fn isb(&self) {}

    fn tlbi_vaae1is(&self, page: PageOperand) {
        self.pending().push(Broadcast::Page(page));
    }

    fn tlbi_vmalle1is(&self) {
        self.pending().push(Broadcast::All);
    }
}

// SAFETY: 1: simulated CPUs access addresses when a test makes them, which is not within the
// engine's work; what they read ahead is checked. 2: it is called once, here.
unsafe impl Quiesce for ArmCpus {
    fn is_available(&self) -> bool {
        self.quiesce
    }

    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        work();
    }
}

impl SimCpus for ArmCpus {
    type Walker = AArch64Walker;

    fn all(&self) -> &[SimTlb<AArch64Walker>] {
        &self.cpus
    }

    fn ahead(&self) -> Option<&ReadAhead> {
        Some(&self.ahead)
    }

    // A barrier with broadcasts before it.
    fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    fn root_changes(&self) -> Option<(u64, u64)> {
        None
    }
}

/// AArch64 with 4 KiB pages.
#[derive(Debug)]
pub enum AArch64_4K {}

/// AArch64 with 16 KiB pages.
#[derive(Debug)]
pub enum AArch64_16K {}

/// AArch64 with 64 KiB pages.
#[derive(Debug)]
pub enum AArch64_64K {}

macro_rules! granule {
    ($name:ident, $cli:literal, $about:literal, $model:ident, $format:ident) => {
        impl Radix for $name {
            const RADIX_NAME: &'static str = $cli;
            const RADIX_ABOUT: &'static str = $about;
            const RADIX_MODEL: MemoryModel = $model;
            type Format = $format;
            type Walker = AArch64Walker;
            type Processors = ArmCpus;
            type Mmu<'m> = Tlb<$format, &'m ArmCpus, &'m ArmCpus>;
            type Roots<'m> = OneRoot;

            fn walker() -> AArch64Walker {
                AArch64Walker::new($format::GRANULE)
            }

            fn processors(memory: &SimMemory, root: Pfn, quiesce: bool) -> ArmCpus {
                ArmCpus::new(Self::walker(), memory, root, quiesce)
            }

            fn mmu(cpus: &ArmCpus) -> Self::Mmu<'_> {
                Tlb::with_quiesce(cpus, cpus)
            }

            fn roots(_cpus: &ArmCpus) -> OneRoot {
                // SAFETY: 1: the machine has one root.
                unsafe { OneRoot::new() }
            }

            // V; bit 1 where it is a base page; inner shareable, AF, nG; PXN, UXN.
            fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
                let address = frame.base($format::GRANULE).get();
                address | 0xf01 | u64::from(!huge) << 1 | 0b11 << 53
            }

            // V, bit 1.
            fn foreign_table(frame: Pfn) -> u64 {
                frame.base($format::GRANULE).get() | 0x3
            }
        }
    };
}

granule!(
    AArch64_4K,
    "aarch64-4k",
    "4-level tables in hardware format, 4K pages",
    MODEL_4K,
    Format4K
);

granule!(
    AArch64_16K,
    "aarch64-16k",
    "4-level tables in hardware format, 16K pages",
    MODEL_16K,
    Format16K
);

granule!(
    AArch64_64K,
    "aarch64-64k",
    "3-level tables in hardware format, 64K pages",
    MODEL_64K,
    Format64K
);
