//! The CPUs of a machine.

use crate::ahead::ReadAhead;
use arch_sim::walker::{Walker, X86_64Walker};
use arch_sim::{Fault, SimFrames, SimTlb};
use mm_core::addr::{PhysAddr, VirtAddr, VirtRange};

/// CPUs that translate by a machine's tables.
pub trait SimCpus {
    /// What reads the tables.
    type Walker: Walker + Send + Sync + 'static;

    /// The translation caches of each CPU.
    fn all(&self) -> &[SimTlb<Self::Walker>];

    /// What they read ahead; `None` where there are none.
    fn ahead(&self) -> Option<&ReadAhead>;

    /// Makes them read ahead, from now on, whenever it can do harm: right before they are made to
    /// forget addresses, and right after. Where everything is to be forgotten they read `range`, or what they were made to
    /// read before.
    fn read_ahead(&self, range: VirtRange) {
        if let Some(ahead) = self.ahead() {
            ahead.start(range);
        }
    }

    /// The same, but that they read `ranges` where everything is to be forgotten, and nothing that was said before.
    fn read_only_ahead(&self, ranges: &[VirtRange]) {
        if let Some(ahead) = self.ahead() {
            ahead.read_only(ranges);
        }
    }

    /// How often they were made to forget something, all of them together, so far.
    fn flushes(&self) -> u64;

    /// How many entries of the root became present so far, and how many went, if they are told.
    fn root_changes(&self) -> Option<(u64, u64)>;

    /// Makes all of them cache what is mapped in `range`.
    fn fill(&self, range: VirtRange) {
        self.all().iter().for_each(|cpu| cpu.fill(range));
    }

    /// How many leaves and tables they have cached.
    fn cached(&self) -> usize {
        let all = self.all().iter();
        all.map(|cpu| cpu.cached_leaves() + cpu.cached_tables())
            .sum()
    }

    /// An access at `at` by one of them, a store or a load; `None` where there are none.
    fn access(&self, cpu: usize, at: VirtAddr, store: bool) -> Option<Result<PhysAddr, Fault>> {
        let cpus = self.all();
        let cpu = cpus.get(cpu % cpus.len().max(1))?;
        Some(if store { cpu.store(at) } else { cpu.access(at) })
    }

    /// Lets them know of frames that are freed while they have them cached.
    fn watch_frees(&self, frames: &SimFrames) {
        self.all().iter().for_each(|cpu| cpu.watch(frames));
    }

    /// Makes them adversarial: they cache `range` whenever memory is allocated, and whenever they
    /// are made to forget, and know what is freed too early.
    fn watch(&self, frames: &SimFrames, range: VirtRange) {
        self.watch_frees(frames);
        for cpu in self.all() {
            cpu.fill_at_allocations(frames, range);
        }
        self.read_ahead(range);
    }

    /// Compares what they have cached for `range` with the tables.
    fn recheck(&self, range: VirtRange) {
        self.all().iter().for_each(|cpu| cpu.recheck(range));
    }
}

/// No CPUs: nobody translates by a plain map.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCpus;

impl SimCpus for NoCpus {
    type Walker = X86_64Walker;

    fn all(&self) -> &[SimTlb<X86_64Walker>] {
        &[]
    }

    fn ahead(&self) -> Option<&ReadAhead> {
        None
    }

    fn flushes(&self) -> u64 {
        0
    }

    fn root_changes(&self) -> Option<(u64, u64)> {
        None
    }
}
