//! What makes one hart forget translations.
//!
//! # What has to go
//!
//! A hart may cache entries of all levels, and forgets them by SFENCE.VMA alone (privileged manual, 4.2.1), which is about the hart that
//! executes it:
//!
//! | instruction | leaves | links to tables | entries that are not valid |
//! |---|---|---|---|
//! | SFENCE.VMA x0, x0 | all, of every address space, global ones too | all | all |
//! | SFENCE.VMA address, x0 | those for the address, of every address space, global ones too | **none** | where leaves for the address are now |
//! | SFENCE.VMA with an address space in rs2 | **not the global ones** | | |
//!
//! So with an address it is enough where leaves were changed, and too little where a table was detached: a hart that keeps
//! the link to one would walk through it after it was freed. A flush says which of the two it is (`FlushScope`). The third form is not
//! used.
//!
//! # Order
//!
//! Table walks are not ordered with stores by anything but SFENCE.VMA, which orders the stores of the hart that executes it
//! with its own walks. For other harts, the manual's recipe is: a fence here, a message, SFENCE.VMA there, an answer (4.2.1).

use mm_core::addr::{Granule, VirtAddr, VirtRange};

/// Up to how many pages are fenced one by one.
///
/// Linux changes over behind 64 pages (`arch/riscv/mm/tlbflush.c`). A subsection's 8 vmemmap pages lie below, a section's 512 above.
pub const SFENCE_LIMIT: u64 = 64;

/// The instructions for it, on the hart that executes them.
///
/// [`Hart`](crate::Hart) is the real one; hosted, a model of a hart stands in.
///
/// # Safety
///
/// On the hart that it is called on, before it returns:
///
/// 1. `sfence_vma` drops what is cached of leaves for the address, of any size, global or not and in every address
///    space, and of entries that were not valid where such leaves are now. Walks for the address find these entries as they were stored
///    before.
/// 2. `sfence_vma_all` drops all that is cached of entries of all levels, in every address space. Walks find what was stored
///    before.
/// 3. What was stored before `fence` is visible to all harts, and to their walks, before what is stored or sent to a device
///    after it.
pub unsafe trait TlbInstructions {
    /// SFENCE.VMA with an address.
    fn sfence_vma(&self, at: VirtAddr);

    /// SFENCE.VMA without one.
    fn sfence_vma_all(&self);

    /// FENCE W, OW.
    fn fence(&self);
}

// SAFETY: 1 to 3 hold because they hold for the instructions behind the reference.
unsafe impl<T: TlbInstructions + ?Sized> TlbInstructions for &T {
    fn sfence_vma(&self, at: VirtAddr) {
        (**self).sfence_vma(at)
    }

    fn sfence_vma_all(&self) {
        (**self).sfence_vma_all()
    }

    fn fence(&self) {
        (**self).fence()
    }
}

/// How many base pages the ranges touch.
pub(crate) fn pages_of(ranges: &[VirtRange]) -> u64 {
    let pages = |range: &VirtRange| range.pages(Granule::Size4K);
    ranges.iter().map(pages).fold(0, u64::saturating_add)
}

/// One SFENCE.VMA for each base page of `range`.
pub(crate) fn fence_pages(instructions: &impl TlbInstructions, range: VirtRange) {
    let mut page = Some(range.start().align_down(Granule::Size4K.shift()));
    while let Some(at) = page.filter(|at| *at <= range.last()) {
        instructions.sfence_vma(at);
        page = at.checked_add(Granule::Size4K.bytes());
    }
}
