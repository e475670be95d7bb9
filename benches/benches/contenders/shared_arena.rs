//! The arena for crates that ask for memory without a value to ask.

use benches::Arena;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use mm_core::addr::Pfn;

static ARENA: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

/// While it lives, [`arena`] is that of [`new`](Self::new).
pub(crate) struct Shared<'a>(&'a Arena);

impl<'a> Shared<'a> {
    /// There is one at a time.
    pub(crate) fn new(arena: &'a Arena) -> Self {
        let before = ARENA.swap(ptr::from_ref(arena).cast_mut(), Ordering::Relaxed);
        assert!(before.is_null(), "there is one at a time");
        Self(arena)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let mine = ARENA.swap(ptr::null_mut(), Ordering::Relaxed);
        assert!(ptr::eq(mine, self.0));
    }
}

/// The arena. Benchmarks have one thread.
#[inline]
fn arena<'a>() -> &'a Arena {
    // SAFETY: who calls has a table, which borrows a `Shared`.
    unsafe { ARENA.load(Ordering::Relaxed).as_ref() }.expect("a table lives as long as its arena")
}

/// The physical address of a new table.
pub(crate) fn take() -> Option<usize> {
    arena().take().map(|frame| frame.get() as usize * 4096)
}

/// Takes the table at `address` back.
pub(crate) fn give(address: usize) {
    arena().give(Pfn::new(address as u64 / 4096).expect("an address of a frame"));
}

/// Where the byte at a physical address is.
#[inline]
pub(crate) fn pointer(address: usize) -> *mut u8 {
    arena().base().wrapping_add(address)
}
