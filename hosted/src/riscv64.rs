//! RISC-V tables of each mode, and two simulated harts that walk them.

use crate::ahead::ReadAhead;
use crate::{Radix, SimCpus};
use arch_riscv64::{
    Fence, MODEL_SV39, MODEL_SV48, MODEL_SV57, RemoteFences, Sv39, Sv48, Sv57, SvFormat, Tlb,
    TlbInstructions,
};
use arch_sim::walker::RiscV64Walker;
use arch_sim::{SimMemory, SimTlb};
use mm_core::addr::{Granule, Pfn, VirtAddr, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{FlushScope, Mmu, OneRoot, Replacement};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many harts the machine has: one that works, and one that has to be told.
const HARTS: usize = 2;

/// The harts of a RISC-V machine. Instructions go to the current one.
///
/// They cache entries that are not valid, and a fence with an address reaches leaves only: both as far as the architecture
/// allows.
#[derive(Debug)]
pub struct RiscVHarts {
    harts: [SimTlb<RiscV64Walker>; HARTS],
    current: AtomicUsize,
    /// Fences for entries that were added are not among them.
    flushes: AtomicU64,
    ahead: ReadAhead,
}

impl RiscVHarts {
    fn new(walker: RiscV64Walker, memory: &SimMemory, root: Pfn) -> Self {
        let hart = |_| {
            let hart = SimTlb::new(walker, memory, root);
            hart.cache_holes();
            hart
        };
        Self {
            harts: std::array::from_fn(hart),
            current: AtomicUsize::new(0),
            flushes: AtomicU64::new(0),
            ahead: ReadAhead::default(),
        }
    }

    /// Has the current hart forget, and read `page`, or all that it reads ahead, before and after.
    fn forget(&self, page: Option<VirtRange>, forget: impl FnOnce(&SimTlb<RiscV64Walker>)) {
        let current = self.current.load(Ordering::Relaxed);
        let hart = self.harts.get(current).unwrap_or(&self.harts[0]);
        let ahead = self.ahead.before_forgetting(page);
        ahead.iter().for_each(|range| hart.fill(*range));
        forget(hart);
        ahead.iter().for_each(|range| hart.fill(*range));
    }
}

// SAFETY: 1: the simulated hart drops the page's leaves, and what was not valid where they are. 2: it drops everything. 3: it sees
// stores in the order of the host.
unsafe impl TlbInstructions for RiscVHarts {
    fn sfence_vma(&self, at: VirtAddr) {
        let page = VirtRange::new(
            at.align_down(Granule::Size4K.shift()),
            Granule::Size4K.bytes(),
        );
        let page = page.ok();
        self.forget(page, |hart| {
            hart.forget_leaves(FlushScope::Leaves(page.as_slice()));
        });
    }

    fn sfence_vma_all(&self) {
        self.forget(None, SimTlb::flush_all);
    }

    fn fence(&self) {}
}

// SAFETY: 1: each hart but the current one is made the current one for the time of the fence.
unsafe impl RemoteFences for RiscVHarts {
    fn on_other_harts(&self, fence: Fence<'_>) {
        let current = self.current.load(Ordering::Relaxed);
        for other in (0..HARTS).filter(|other| *other != current) {
            self.current.store(other, Ordering::Relaxed);
            fence.execute(self);
        }
        self.current.store(current, Ordering::Relaxed);
    }
}

/// The MMU that the harts are, which counts flushes: a fence says not what it is for.
#[derive(Clone, Copy, Debug)]
pub struct HartsMmu<'m> {
    tlb: Tlb<&'m RiscVHarts, &'m RiscVHarts>,
    harts: &'m RiscVHarts,
}

impl<'m> HartsMmu<'m> {
    fn new(harts: &'m RiscVHarts) -> Self {
        let tlb = Tlb::new(harts, harts);
        Self { tlb, harts }
    }

    fn tlb<F: SvFormat>(&self) -> &dyn Mmu<F> {
        &self.tlb
    }
}

// SAFETY: 1 to 3: as for the one inside, which is told the same.
unsafe impl<F: SvFormat> Mmu<F> for HartsMmu<'_> {
    fn flush(&self, scope: FlushScope<'_>) {
        let something = u64::from(scope != FlushScope::Nothing);
        self.harts.flushes.fetch_add(something, Ordering::Relaxed);
        self.tlb::<F>().flush(scope);
    }

    fn publish(&self) {
        self.tlb::<F>().publish();
    }

    fn entries_added(&self, range: VirtRange) {
        self.tlb::<F>().entries_added(range);
    }

    fn replacement(&self) -> Replacement {
        self.tlb::<F>().replacement()
    }
}

impl SimCpus for RiscVHarts {
    type Walker = RiscV64Walker;

    fn all(&self) -> &[SimTlb<RiscV64Walker>] {
        &self.harts
    }

    fn ahead(&self) -> Option<&ReadAhead> {
        Some(&self.ahead)
    }

    fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    fn root_changes(&self) -> Option<(u64, u64)> {
        None
    }
}

/// RISC-V with 39-bit addresses.
#[derive(Debug)]
pub enum RiscV64Sv39 {}

/// RISC-V with 48-bit addresses.
#[derive(Debug)]
pub enum RiscV64Sv48 {}

/// RISC-V with 57-bit addresses.
#[derive(Debug)]
pub enum RiscV64Sv57 {}

macro_rules! mode {
    ($name:ident, $cli:literal, $about:literal, $model:ident, $format:ident, $walker:expr) => {
        impl Radix for $name {
            const RADIX_NAME: &'static str = $cli;
            const RADIX_ABOUT: &'static str = $about;
            const RADIX_MODEL: MemoryModel = $model;
            type Format = $format;
            type Walker = RiscV64Walker;
            type Processors = RiscVHarts;
            type Mmu<'m> = HartsMmu<'m>;
            type Roots<'m> = OneRoot;

            fn walker() -> RiscV64Walker {
                $walker
            }

            // An entry is exchanged by one store: nobody has to be kept away.
            fn processors(memory: &SimMemory, root: Pfn, _quiesce: bool) -> RiscVHarts {
                RiscVHarts::new(Self::walker(), memory, root)
            }

            fn mmu(harts: &RiscVHarts) -> Self::Mmu<'_> {
                HartsMmu::new(harts)
            }

            fn roots(_harts: &RiscVHarts) -> OneRoot {
                // SAFETY: 1: the machine has one root.
                unsafe { OneRoot::new() }
            }

            // V, R, W, A, D; of any size.
            fn foreign_leaf(frame: Pfn, _huge: bool) -> u64 {
                frame.get() << 10 | 0xc7
            }

            // V.
            fn foreign_table(frame: Pfn) -> u64 {
                frame.get() << 10 | 0x1
            }
        }
    };
}

mode!(
    RiscV64Sv39,
    "riscv64-sv39",
    "3-level tables in hardware format",
    MODEL_SV39,
    Sv39,
    RiscV64Walker::sv39()
);

mode!(
    RiscV64Sv48,
    "riscv64-sv48",
    "4-level tables in hardware format",
    MODEL_SV48,
    Sv48,
    RiscV64Walker::sv48()
);

mode!(
    RiscV64Sv57,
    "riscv64-sv57",
    "5-level tables in hardware format",
    MODEL_SV57,
    Sv57,
    RiscV64Walker::sv57()
);
