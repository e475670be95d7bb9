//! What makes one CPU forget translations.
//!
//! # What has to go
//!
//! Leaves of this library are global, unless the kernel chooses otherwise, and the tables on the way to them are freed when they become
//! empty. So both the TLBs and the paging-structure caches (of PML4, PDPT and PD entries) of every
//! CPU have to forget what a flush is about. What the processor offers (SDM, "Operations that
//! Invalidate TLBs and Paging-Structure Caches"):
//!
//! | operation | TLB entries | paging-structure caches |
//! |---|---|---|
//! | INVLPG | of the page: of the current PCID, and global ones | all of the current PCID; with EFER.TCE (AMD) those that lead to the page |
//! | INVPCID, type 2 | all, global ones included | all, of every PCID |
//! | MOV to CR4 that changes PGE | all, global ones included | all, of every PCID |
//! | MOV to CR3 | **not the global ones** | of one PCID |
//!
//! A load of CR3 alone is therefore never enough here: the vmemmap's translations are global and
//! stay. INVLPG leaves the paging-structure caches of other PCIDs, which may lead to a table that
//! is about to be freed; so where PCIDs are in use, it is not used.
//!
//! # What is used
//!
//! INVLPG for each page, up to [`INVLPG_LIMIT`] pages, without PCIDs; else INVPCID type 2; and PGE
//! off and on where a processor has no INVPCID. Each CPU does this for itself.

use mm_core::addr::{Granule, VirtAddr, VirtRange};
use mm_core::paging::FlushScope;

/// Up to how many pages are invalidated one by one.
///
/// An INVLPG takes some hundred cycles and each one empties the paging-structure caches besides; a
/// flush of everything is one instruction, and then the kernel's other translations are walked for
/// again. Linux, for which this was measured, changes over behind 33 pages (its documentation: "The
/// TLB"). A subsection's 8 vmemmap pages lie below, a section's 512 above.
pub const INVLPG_LIMIT: u64 = 32;

/// The instructions that invalidate translations, on the CPU that executes them.
///
/// [`Cpu`](crate::Cpu) is the real one; hosted, a model of a TLB stands in.
///
/// # Safety
///
/// On the CPU that it is called on, before it returns:
///
/// 1. `invlpg` drops what is cached for the page that includes the address, whatever the page's
///    size, global or of the current PCID, and of the current PCID's paging-structure caches all that
///    lead to that address. (Without EFER.TCE, it drops the others too.)
/// 2. `invpcid_all_including_global`, where `has_invpcid` says that there is one, and
///    `toggle_global` drop all that is cached, for every PCID.
/// 3. `uses_pcids` is true if translations can be cached for any other PCID than the current one.
/// 4. What was stored before `fence` is visible to all CPUs, and to their walks, before anything
///    behind it on this CPU takes effect, an interrupt to another CPU included.
pub unsafe trait TlbInstructions {
    /// INVLPG.
    fn invlpg(&self, at: VirtAddr);

    /// Whether the processor has INVPCID.
    fn has_invpcid(&self) -> bool;

    /// INVPCID with type 2: all contexts, global translations included. Without
    /// [`has_invpcid`](Self::has_invpcid) it has nothing to do.
    fn invpcid_all_including_global(&self);

    /// Changes CR4.PGE and changes it back.
    fn toggle_global(&self);

    /// Whether PCIDs are in use (CR4.PCIDE).
    fn uses_pcids(&self) -> bool;

    /// MFENCE and LFENCE.
    fn fence(&self);
}

// SAFETY: 1 to 4 hold because they hold for the instructions behind the reference.
unsafe impl<T: TlbInstructions + ?Sized> TlbInstructions for &T {
    fn invlpg(&self, at: VirtAddr) {
        (**self).invlpg(at)
    }

    fn has_invpcid(&self) -> bool {
        (**self).has_invpcid()
    }

    fn invpcid_all_including_global(&self) {
        (**self).invpcid_all_including_global()
    }

    fn toggle_global(&self) {
        (**self).toggle_global()
    }

    fn uses_pcids(&self) -> bool {
        (**self).uses_pcids()
    }

    fn fence(&self) {
        (**self).fence()
    }
}

/// Flushes `scope` on the CPU that this runs on.
pub(crate) fn flush_here(instructions: &impl TlbInstructions, scope: FlushScope<'_>) {
    match scope {
        FlushScope::Nothing => {}
        FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges)
            if !instructions.uses_pcids() && pages_of(ranges) <= INVLPG_LIMIT =>
        {
            for range in ranges.iter() {
                invalidate_pages(instructions, *range);
            }
        }
        _ if instructions.has_invpcid() => instructions.invpcid_all_including_global(),
        _ => instructions.toggle_global(),
    }
}

/// How many base pages the ranges touch.
fn pages_of(ranges: &[VirtRange]) -> u64 {
    let pages = |range: &VirtRange| range.pages(Granule::Size4K);
    ranges.iter().map(pages).fold(0, u64::saturating_add)
}

/// One INVLPG for each base page of `range`.
fn invalidate_pages(instructions: &impl TlbInstructions, range: VirtRange) {
    let mut page = Some(range.start().align_down(Granule::Size4K.shift()));
    while let Some(at) = page.filter(|at| *at <= range.last()) {
        instructions.invlpg(at);
        page = at.checked_add(Granule::Size4K.bytes());
    }
}
