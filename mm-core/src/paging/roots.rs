//! Root tables with copies of entries of the root that the engine works on.

use crate::addr::VirtAddr;

/// The kernel's other roots: tables that have copies of entries of the root that a
/// [`RadixTable`](super::RadixTable) works on. This is the same for every architecture.
///
/// # For implementers
///
/// Where each address space has a root of its own, all of them copy the kernel's entries. The engine
/// says once when an entry of its root has become present, and once when it is gone: after it is
/// cleared, and before CPUs are flushed and the table that it linked is freed. Barriers and flushes
/// for what is stored meanwhile are the engine's. Methods may be called with the kernel's page-table
/// lock held.
///
/// Other roots have entries of all of the kernel. So only the page table may tell of one: the methods
/// are `unsafe`.
///
/// A kernel that has one root, or whose other roots share the tables below it, takes [`OneRoot`].
///
/// # Safety
///
/// 1. When `entry_installed` returns, the entry for `at` of every other root is a copy of what the
///    engine's root has there.
/// 2. When `entry_removed` returns, the entry for `at` of every other root is zero. (The engine's own
///    is not present, and not yet zero; it may not be copied.)
/// 3. While a method of the page table runs, nobody makes another root by copying the engine's root
///    or a copy of it, so that no root comes between 1 and 2.
pub unsafe trait Roots {
    /// The root's entry for `at` has become present.
    ///
    /// # Safety
    ///
    /// 1. The caller is the page table that the value was given to, and that is so.
    unsafe fn entry_installed(&self, at: VirtAddr);

    /// The root's entry for `at` is gone.
    ///
    /// # Safety
    ///
    /// 1. The caller is the page table that the value was given to, and that is so: it has made the
    ///    entry, which was its own, not present.
    unsafe fn entry_removed(&self, at: VirtAddr);
}

// SAFETY: 1 to 3 hold because they hold for the value behind the reference.
unsafe impl<T: Roots + ?Sized> Roots for &T {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        // SAFETY: the caller's duty is the same.
        unsafe { (**self).entry_installed(at) }
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        // SAFETY: the caller's duty is the same.
        unsafe { (**self).entry_removed(at) }
    }
}

/// No other root copies entries of the root that is worked on.
///
/// That is a promise, which safe code cannot give:
///
/// ```compile_fail,E0133
/// let one_root = mm_core::paging::OneRoot::new();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneRoot(());

impl OneRoot {
    /// Says that there are no copies that would have to follow.
    ///
    /// # Safety
    ///
    /// 1. As long as the value is used, no other root has a copy of an entry of the root that it is
    ///    used with, for addresses that the page table is used for. Links to tables of the kernel's
    ///    own that were there before are excepted: the engine keeps them (a kernel may fill all of
    ///    these entries at boot, before it copies them, and has nobody to tell after that).
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1 to 3: there is no other root whose entries would have to follow (duty 1 of `new`).
unsafe impl Roots for OneRoot {
    unsafe fn entry_installed(&self, _at: VirtAddr) {}

    unsafe fn entry_removed(&self, _at: VirtAddr) {}
}
