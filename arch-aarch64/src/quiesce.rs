//! Keeping CPUs away from addresses whose entries are being exchanged.

use mm_core::addr::VirtRange;

/// The kernel's way to keep all other CPUs from addresses for a moment, which break-before-make
/// needs where they are in use.
///
/// # For implementers
///
/// Two ways are known: all other CPUs are stopped, in code that touches none of the addresses; or
/// the handler of translation faults in `range` waits until `work` has returned, and tries again. A
/// fault may reach the handler only after `work` has returned, so it tries again then, too. A walk
/// of the hardware itself needs nothing: it finds the old entries, none, or the new ones.
///
/// # Safety
///
/// 1. From the start of `work` to its end no other CPU's access to `range` is answered by a fault
///    that anybody but the kernel's handler sees.
/// 2. `work` is called once, before `quiesce` returns, on the CPU that it was called on.
pub unsafe trait Quiesce {
    /// Whether there is such a way now. A kernel may have one only until its other CPUs start, or
    /// only from then on.
    fn is_available(&self) -> bool {
        true
    }

    /// Calls `work` while no other CPU accesses `range`. The engine's `work` neither allocates nor
    /// frees, and waits for nothing but the barriers of a flush.
    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut());
}

/// No way: entries in use are not exchanged, and what needs that is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQuiesce;

// SAFETY: 1: nothing is exchanged (`is_available`). 2: it is called once.
unsafe impl Quiesce for NoQuiesce {
    fn is_available(&self) -> bool {
        false
    }

    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        work();
    }
}

// SAFETY: 1 and 2 hold because they hold for the value behind the reference.
unsafe impl<T: Quiesce> Quiesce for &T {
    fn is_available(&self) -> bool {
        (**self).is_available()
    }

    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        (**self).quiesce(range, work)
    }
}
