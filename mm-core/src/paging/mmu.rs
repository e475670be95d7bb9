//! What the engine needs of the hardware.

use super::{FlushScope, Replacement};
use crate::addr::VirtRange;

/// The translation hardware of all CPUs that use a table tree in the format `F`.
///
/// A flush goes by pages, and what may be exchanged goes by the architecture, so an MMU serves the
/// formats that it was written for. One that does the same for every format, as a model of a machine
/// without caches does, is an `Mmu<F>` for all `F`. [`RadixTable`](super::RadixTable) takes one for
/// its own format only.
///
/// # For implementers
///
/// On a machine this is a handful of instructions and an interrupt to the other CPUs. Hosted, it is
/// a model of them. Methods may be called with the kernel's page-table lock held.
///
/// What is to be done about other root tables is not the hardware's affair: see
/// [`Roots`](super::Roots).
///
/// # Safety
///
/// 1. When `flush` returns, no CPU translates any address in scope by what it has cached: neither
///    by leaves, global ones included, nor, unless the scope is [`FlushScope::Leaves`], by
///    upper-level entries on the way to them. What was stored before is visible to table walks for these
///    addresses: neither a CPU that caches entries which are not present holds on to one.
/// 2. What was stored before `publish` is visible to every CPU's table walk before what is stored
///    after it.
/// 3. `replacement` is [`Replacement::Direct`] only where the architecture allows a valid entry to
///    become another valid one that leads elsewhere, and [`Replacement::BreakBeforeMake`] only
///    where `quiesce` does what it says.
pub unsafe trait Mmu<F> {
    /// Makes every CPU drop what it has cached for the addresses in `scope`.
    fn flush(&self, scope: FlushScope<'_>);

    /// Orders stores to a table before the store that links it.
    fn publish(&self);

    /// Makes entries for addresses of `range` visible to table walks that were not present, and have become so:
    /// leaves, and links on the way to them.
    ///
    /// Where CPUs may cache an entry that is not present (RISC-V without Svvptc), they forget it here, or the kernel
    /// takes their faults in `range` for spurious: it has the CPU forget, and tries again. The engine does not call this for entries
    /// that were stored before a [`flush`](Self::flush) of their addresses.
    fn entries_added(&self, range: VirtRange) {
        let _ = range;
    }

    /// How entries in use may be exchanged. By default not at all.
    fn replacement(&self) -> Replacement {
        Replacement::Refused
    }

    /// Calls `work` once. Until it returns, no CPU accesses `range`, apart from what `work` does.
    /// Accesses of other CPUs to the range wait, or these CPUs do.
    ///
    /// This is for [`Replacement::BreakBeforeMake`] only. Some of `range` has no translation for a
    /// time. So the kernel either stops all other CPUs, or lets their faults in `range` wait until
    /// `work` has returned. `work` stores to tables and calls [`flush`](Self::flush) and the other
    /// methods of this trait. It neither allocates nor frees.
    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        let _ = range;
        work();
    }
}

// SAFETY: 1 to 3 hold because they hold for the hardware behind the reference.
unsafe impl<F, T: Mmu<F> + ?Sized> Mmu<F> for &T {
    fn flush(&self, scope: FlushScope<'_>) {
        (**self).flush(scope)
    }

    fn publish(&self) {
        (**self).publish()
    }

    fn entries_added(&self, range: VirtRange) {
        (**self).entries_added(range)
    }

    fn replacement(&self) -> Replacement {
        (**self).replacement()
    }

    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        (**self).quiesce(range, work)
    }
}
