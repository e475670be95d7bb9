//! What the engine asks of the hardware.

use super::FlushScope;
use crate::addr::VirtAddr;

/// The translating hardware of all CPUs that use a table tree.
///
/// # For implementers
///
/// On a machine this is a handful of instructions and an interrupt to the other CPUs; hosted, it is a
/// model of them. Methods may be called with the kernel's page-table lock held.
///
/// The two root hooks are for kernels in which every address space has a root table of its own that copies the kernel's
/// entries: they are told once when an entry of the root that the engine works on becomes present, and once
/// when it goes, after the entry is cleared and before the flush.
///
/// # Safety
///
/// 1. When `forget` returns, no CPU translates any address in scope by what it has cached: neither leaves, global ones
///    included, nor the upper-level entries on the way to them.
/// 2. What was stored before `publish` is visible to every CPU's table walk before what is stored after it.
pub unsafe trait Mmu {
    /// Makes every CPU forget the addresses in `scope`.
    fn forget(&self, scope: FlushScope<'_>);

    /// Orders stores to a table before the store that links it.
    fn publish(&self);

    /// Makes entries that were not present before, and now are, visible to table walks.
    fn entries_added(&self) {}

    /// The root's entry for `at` has become present: roots that copy it have to.
    fn root_entry_installed(&self, at: VirtAddr) {
        let _ = at;
    }

    /// The root's entry for `at` is gone: roots that copied it have to clear it.
    fn root_entry_removed(&self, at: VirtAddr) {
        let _ = at;
    }
}

// SAFETY: 1 and 2 hold because they hold for the hardware behind the reference.
unsafe impl<T: Mmu + ?Sized> Mmu for &T {
    fn forget(&self, scope: FlushScope<'_>) {
        (**self).forget(scope)
    }

    fn publish(&self) {
        (**self).publish()
    }

    fn entries_added(&self) {
        (**self).entries_added()
    }

    fn root_entry_installed(&self, at: VirtAddr) {
        (**self).root_entry_installed(at)
    }

    fn root_entry_removed(&self, at: VirtAddr) {
        (**self).root_entry_removed(at)
    }
}
