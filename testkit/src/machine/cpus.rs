//! The CPUs of any backend.

use arch_sim::{Fault, SimFrames};
use hosted::SimCpus;
use mm_core::addr::{PhysAddr, VirtAddr, VirtRange};

/// Says which addresses.
pub type Ranges = Box<dyn Fn() -> Vec<VirtRange> + Send + Sync>;

/// See [`SimCpus`], whatever walks their tables.
pub trait TestCpus {
    /// See [`SimCpus::flushes`].
    fn flushes(&self) -> u64;
    /// See [`SimCpus::root_changes`].
    fn root_changes(&self) -> Option<(u64, u64)>;
    /// See [`SimCpus::fill`].
    fn fill(&self, range: VirtRange);
    /// See [`SimCpus::cached`].
    fn cached(&self) -> usize;
    /// See [`SimCpus::access`].
    fn access(&self, cpu: usize, at: VirtAddr, store: bool) -> Option<Result<PhysAddr, Fault>>;
    /// See [`SimCpus::watch_frees`].
    fn watch_frees(&self, frames: &SimFrames);
    /// See [`SimCpus::watch`].
    fn watch(&self, frames: &SimFrames, range: VirtRange);
    /// See [`SimCpus::read_ahead`].
    fn read_ahead(&self, range: VirtRange);
    /// See [`SimCpus::read_only_ahead`].
    fn read_only_ahead(&self, ranges: &[VirtRange]);
    /// Lets one of the CPUs cache what `ranges` says whenever frames are allocated.
    fn fill_at_allocations(&self, cpu: usize, frames: &SimFrames, ranges: Ranges);
    /// See [`SimCpus::recheck`].
    fn recheck(&self, range: VirtRange);
}

impl<C: SimCpus> TestCpus for C {
    fn flushes(&self) -> u64 {
        SimCpus::flushes(self)
    }

    fn root_changes(&self) -> Option<(u64, u64)> {
        SimCpus::root_changes(self)
    }

    fn fill(&self, range: VirtRange) {
        SimCpus::fill(self, range);
    }

    fn cached(&self) -> usize {
        SimCpus::cached(self)
    }

    fn access(&self, cpu: usize, at: VirtAddr, store: bool) -> Option<Result<PhysAddr, Fault>> {
        SimCpus::access(self, cpu, at, store)
    }

    fn watch_frees(&self, frames: &SimFrames) {
        SimCpus::watch_frees(self, frames);
    }

    fn watch(&self, frames: &SimFrames, range: VirtRange) {
        SimCpus::watch(self, frames, range);
    }

    fn read_ahead(&self, range: VirtRange) {
        SimCpus::read_ahead(self, range);
    }

    fn read_only_ahead(&self, ranges: &[VirtRange]) {
        SimCpus::read_only_ahead(self, ranges);
    }

    fn fill_at_allocations(&self, cpu: usize, frames: &SimFrames, ranges: Ranges) {
        let all = self.all();
        if let Some(cpu) = all.get(cpu % all.len().max(1)).cloned() {
            frames.on_allocate(move |_| ranges().into_iter().for_each(|range| cpu.fill(range)));
        }
    }

    fn recheck(&self, range: VirtRange) {
        SimCpus::recheck(self, range);
    }
}
