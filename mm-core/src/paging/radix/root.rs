//! Filling entries of the root ahead.

use super::{Engine, RadixTable, Tree, load, store};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{EntryFormat, FrameOutOfReach, Mmu, Roots};
use core::fmt;

/// Why [`fill_root`](RadixTable::fill_root) stopped. Entries that were filled stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FillRootError {
    /// There was no frame for the table at an address.
    NoFrame {
        /// The first address that the entry translates.
        at: VirtAddr,
    },
    /// An entry cannot hold the frame for a table. It is not used.
    FrameOutOfReach(FrameOutOfReach),
}

impl fmt::Display for FillRootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame { at } => write!(
                f,
                "no frame for the table that the root links for {at}; call again with more frames"
            ),
            Self::FrameOutOfReach(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FillRootError {}

impl<F, A, M, U, R> RadixTable<F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// Links an empty table at each free entry of the root that translates addresses of `range`, as the
    /// kernel's own: the engine uses these tables, and never frees them or clears the entries. Says how
    /// many it has linked.
    ///
    /// A kernel that does this for the whole vmemmap when it starts, before it copies the root, need not
    /// tell other roots of anything later, and takes [`OneRoot`](crate::paging::OneRoot). It is two tables
    /// for 1 TiB of descriptors on 4 levels of x86-64, and one on AArch64 with 4K pages. `frame` gives
    /// their frames, which are the kernel's and not counted as the vmemmap's.
    ///
    /// # Errors
    ///
    /// [`FillRootError`]. A second call goes on.
    ///
    /// # Safety
    ///
    /// 1. Nobody else uses the frames that `frame` gives, for good, and the direct map reaches them.
    pub unsafe fn fill_root(
        &mut self,
        range: VirtRange,
        mut frame: impl FnMut() -> Option<Pfn>,
    ) -> Result<u64, FillRootError> {
        let engine = self.reader();
        let mut linked = 0;
        for part in Tree::<F>::translated(range) {
            let mut rest = Some(part);
            while let Some(left) = rest {
                let at = Tree::<F>::base(0, left.start());
                if engine.is_free_in_root(at) {
                    let table = frame().ok_or(FillRootError::NoFrame { at })?;
                    // SAFETY: 1: the caller's. 2: seen above.
                    unsafe { engine.link_kernels_table(at, table) }?;
                    linked += 1;
                }
                rest = left.after(Tree::<F>::last(0, at));
            }
        }
        self.mmu.entries_added(range);
        Ok(linked)
    }
}

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    fn is_free_in_root(&self, at: VirtAddr) -> bool {
        let slots = self.live_table(self.root, 0);
        let slot = slots.get(Tree::<F>::index(0, at));
        slot.is_some_and(|slot| load(slot) == 0)
    }

    /// Links `table`, emptied, at the root's entry for `at`.
    ///
    /// # Safety
    ///
    /// 1. Nobody else uses the table, and the direct map reaches it.
    /// 2. The entry is free.
    unsafe fn link_kernels_table(&self, at: VirtAddr, table: Pfn) -> Result<(), FillRootError> {
        let last = self.tables.last;
        if table > last {
            let error = FrameOutOfReach { frame: table, last };
            return Err(FillRootError::FrameOutOfReach(error));
        }
        // SAFETY: 1 and 2: the caller's duty 1; it is not linked yet.
        unsafe { self.private_table(table, 1) }.fill(0);
        self.mmu.publish();
        if let Some(slot) = self.live_table(self.root, 0).get(Tree::<F>::index(0, at)) {
            // Without the mark of this library it is the kernel's.
            store(slot, self.attributes.table(table, false) & !F::OWNED);
            // SAFETY: 1: the roots are this engine's, and the entry is stored.
            unsafe { self.roots.entry_installed(at) };
        }
        Ok(())
    }
}
