//! All CPUs of a machine, as the page-table engine's MMU, on no architecture in particular.

use super::SimTlb;
use crate::walker::Walker;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the MMU was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MmuRecord {
    /// How often something was to be forgotten.
    pub forgets: u64,
    /// How often that was everything.
    pub full_forgets: u64,
    /// How often stores were ordered before a link.
    pub publishes: u64,
    /// How often new entries were announced.
    pub additions: u64,
    /// For which addresses a root entry became present, in order.
    pub roots_installed: Vec<VirtAddr>,
    /// For which addresses a root entry went, in order.
    pub roots_removed: Vec<VirtAddr>,
}

/// The translating hardware of a machine: all its CPUs.
///
/// Forgets exactly what it is told to.
#[derive(Debug)]
pub struct SimMmu<W> {
    cpus: Vec<SimTlb<W>>,
    speculation: Mutex<Option<VirtRange>>,
    record: Mutex<MmuRecord>,
}

impl<W: Walker> SimMmu<W> {
    /// The hardware of `cpus`.
    pub fn new(cpus: Vec<SimTlb<W>>) -> Self {
        Self {
            cpus,
            speculation: Mutex::new(None),
            record: Mutex::default(),
        }
    }

    /// The CPUs.
    pub fn cpus(&self) -> &[SimTlb<W>] {
        &self.cpus
    }

    /// Makes all CPUs cache all that is present in `range` at each call from the engine, after it was served; `None` ends that.
    /// An engine that clears an entry only after the flush is caught by it.
    pub fn speculate(&self, range: Option<VirtRange>) {
        *self
            .speculation
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = range;
    }

    /// What the MMU was told so far.
    pub fn record(&self) -> MmuRecord {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, MmuRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) {
        let speculation = *self
            .speculation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = speculation {
            self.cpus.iter().for_each(|cpu| cpu.fill(range));
        }
    }
}

// SAFETY: 1: each CPU drops the leaves and the upper entries that overlap the scope, and what it caches after that it reads
// from the tables as they are. 2: CPUs read memory when a test makes them, in the order of the host's threads.
unsafe impl<W: Walker> Mmu for SimMmu<W> {
    fn forget(&self, scope: FlushScope<'_>) {
        self.cpus.iter().for_each(|cpu| cpu.forget(scope));
        {
            let mut record = self.lock();
            record.forgets += u64::from(scope != FlushScope::Nothing);
            record.full_forgets += u64::from(scope == FlushScope::Everything);
        }
        self.served();
    }

    fn publish(&self) {
        self.lock().publishes += 1;
        self.served();
    }

    fn entries_added(&self) {
        self.lock().additions += 1;
        self.served();
    }

    fn root_entry_installed(&self, at: VirtAddr) {
        self.lock().roots_installed.push(at);
        self.served();
    }

    fn root_entry_removed(&self, at: VirtAddr) {
        self.lock().roots_removed.push(at);
        self.served();
    }
}
