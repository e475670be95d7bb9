//! The MMU, with a count of what it is told.

use core::cell::Cell;
use core::fmt;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu, OneRoot, Replacement, Roots};

/// What an MMU was told so far.
#[derive(Debug, Default)]
pub struct MmuRecord {
    flushes: Cell<u64>,
    quiesces: Cell<u64>,
    roots_installed: Cell<u64>,
    roots_removed: Cell<u64>,
}

impl MmuRecord {
    /// How often CPUs had to forget something.
    pub fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    /// How often they had to be kept from addresses.
    pub fn quiesces(&self) -> u64 {
        self.quiesces.get()
    }

    /// How many entries of the root became present.
    pub fn roots_installed(&self) -> u64 {
        self.roots_installed.get()
    }

    /// How many entries of the root went.
    pub fn roots_removed(&self) -> u64 {
        self.roots_removed.get()
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// An MMU, whichever, of which is written down what it is told. So page tables in one format are of one
/// type.
pub struct Recorded<'r, F> {
    mmu: &'r dyn Mmu<F>,
    record: &'r MmuRecord,
}

impl<F> fmt::Debug for Recorded<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        f.debug_struct("Recorded")
            .field("record", record)
            .finish_non_exhaustive()
    }
}

impl<'r, F> Recorded<'r, F> {
    /// `mmu`, with what it is told added to `record`.
    pub const fn new(mmu: &'r dyn Mmu<F>, record: &'r MmuRecord) -> Self {
        Self { mmu, record }
    }
}

// SAFETY: 1 to 3 hold because they hold for the MMU behind it.
unsafe impl<F> Mmu<F> for Recorded<'_, F> {
    fn flush(&self, scope: FlushScope<'_>) {
        if scope != FlushScope::Nothing {
            count(&self.record.flushes);
        }
        self.mmu.flush(scope);
    }

    fn publish(&self) {
        self.mmu.publish();
    }

    fn entries_added(&self, range: VirtRange) {
        self.mmu.entries_added(range);
    }

    fn replacement(&self) -> Replacement {
        self.mmu.replacement()
    }

    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        count(&self.record.quiesces);
        self.mmu.quiesce(range, work);
    }
}

/// The other roots, of which there are none: what they would be told is counted.
#[derive(Debug)]
pub struct RecordedRoots<'r> {
    roots: OneRoot,
    record: &'r MmuRecord,
}

impl<'r> RecordedRoots<'r> {
    /// `roots`, with what it is told added to `record`.
    pub const fn new(roots: OneRoot, record: &'r MmuRecord) -> Self {
        Self { roots, record }
    }
}

// SAFETY: 1 to 3 hold because they hold for the one root.
unsafe impl Roots for RecordedRoots<'_> {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        count(&self.record.roots_installed);
        // SAFETY: the caller's duty is the same.
        unsafe { self.roots.entry_installed(at) };
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        count(&self.record.roots_removed);
        // SAFETY: the caller's duty is the same.
        unsafe { self.roots.entry_removed(at) };
    }
}

/// An MMU of which is not known how entries in use may be exchanged: none are.
#[derive(Debug)]
pub struct Refusing<U>(pub U);

// SAFETY: 1 and 2 hold because they hold for the MMU behind it. 3: nothing is exchanged.
unsafe impl<F, U: Mmu<F>> Mmu<F> for Refusing<U> {
    fn flush(&self, scope: FlushScope<'_>) {
        self.0.flush(scope);
    }

    fn publish(&self) {
        self.0.publish();
    }

    fn entries_added(&self, range: VirtRange) {
        self.0.entries_added(range);
    }
}
