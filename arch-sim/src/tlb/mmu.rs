//! All CPUs of a machine, as the page-table engine's MMU, on no architecture in particular.

use super::SimTlb;
use crate::walker::Walker;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu, Replacement, Roots};
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
    /// How often CPUs were to be kept away.
    pub quiesces: u64,
    /// For which addresses a root entry became present, in order.
    pub roots_installed: Vec<VirtAddr>,
    /// For which addresses a root entry went, in order.
    pub roots_removed: Vec<VirtAddr>,
}

/// The translating hardware of a machine: all its CPUs.
///
/// Forgets exactly what it is told to, by the pages of its walker. Which format that reads is the
/// walker's affair, so it is paired with tables of any; a wrong pair translates nothing right.
#[derive(Debug)]
pub struct SimMmu<W> {
    cpus: Vec<SimTlb<W>>,
    speculation: Mutex<Option<VirtRange>>,
    replacement: Replacement,
    record: Mutex<MmuRecord>,
}

impl<W: Walker> SimMmu<W> {
    /// The hardware of `cpus`.
    pub fn new(cpus: Vec<SimTlb<W>>) -> Self {
        Self {
            cpus,
            speculation: Mutex::new(None),
            replacement: Replacement::Refused,
            record: Mutex::default(),
        }
    }

    /// The same hardware, with entries in use exchanged by this rule. Where that is
    /// break-before-make, the CPUs demand it.
    #[must_use]
    pub fn with_replacement(self, replacement: Replacement) -> Self {
        if replacement == Replacement::BreakBeforeMake {
            self.cpus.iter().for_each(SimTlb::demand_break_before_make);
        }
        Self {
            replacement,
            ..self
        }
    }

    /// The CPUs.
    pub fn cpus(&self) -> &[SimTlb<W>] {
        &self.cpus
    }

    /// Makes all CPUs cache all that is present in `range` at each call from the engine, before and
    /// after it is served; `None` ends that. An engine that clears an entry only after the
    /// flush is caught by it, and one that makes a new entry before it.
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

    /// Lets the CPUs speculate.
    fn speculate_now(&self) {
        let speculation = *self
            .speculation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = speculation {
            self.cpus.iter().for_each(|cpu| cpu.fill(range));
        }
    }
}

// SAFETY: 1: each CPU drops the leaves and the upper entries that overlap the scope, and what it
// caches after that it reads from the tables as they are. 2: CPUs read memory when a test makes
// them, in the order of the host's threads. 3: CPUs access addresses when a test makes them, which
// is not within a call of the engine; what they speculate is checked.
unsafe impl<W: Walker, F> Mmu<F> for SimMmu<W> {
    fn flush(&self, scope: FlushScope<'_>) {
        self.speculate_now();
        self.cpus.iter().for_each(|cpu| cpu.forget(scope));
        {
            let mut record = self.lock();
            record.forgets += u64::from(scope != FlushScope::Nothing);
            record.full_forgets += u64::from(scope == FlushScope::Everything);
        }
        self.speculate_now();
    }

    fn publish(&self) {
        self.lock().publishes += 1;
        self.speculate_now();
    }

    fn entries_added(&self, _range: VirtRange) {
        self.lock().additions += 1;
        self.speculate_now();
    }

    fn replacement(&self) -> Replacement {
        self.replacement
    }

    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        self.lock().quiesces += 1;
        work();
    }
}

// SAFETY: 1 to 3: the CPUs translate by one root; what others would be told is written down.
unsafe impl<W: Walker> Roots for SimMmu<W> {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        self.lock().roots_installed.push(at);
        self.speculate_now();
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        self.lock().roots_removed.push(at);
        self.speculate_now();
    }
}
