//! Flushing translations on CPUs.
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
//! off and on where a processor has no INVPCID. This CPU first, then all others by the kernel's
//! [`Shootdown`].
//!
//! # Order
//!
//! Another CPU may forget too early: before it can see that an entry is gone. Then it walks to the
//! entry once more. An interrupt does not prevent that. A write of the x2APIC's interrupt command
//! register may complete before stores before it are globally visible, and the SDM leaves it to software
//! to fence them ("MSR Access in x2APIC Mode"). Nor does INVPCID on this CPU: it is not among the
//! serializing instructions, as INVLPG and MOV to CR4 are ("Serializing Instructions").
//!
//! So a flush begins with MFENCE and LFENCE, before this CPU forgets and before the kernel's
//! [`Shootdown`] is called. That is done here, once for each flush, and no kernel has to think of it.
//!
//! ```text
//!   stores of entries ▶ MFENCE, LFENCE ▶ INVLPG ... (INVPCID ▶ MFENCE, LFENCE) ▶ Shootdown: the same there
//! ```
//!
//! What the SDM does not say is whether INVPCID is ordered with what comes behind it; the fences there
//! are for that.

use crate::format::LongModeFormat;
use core::sync::atomic::{Ordering, compiler_fence};
use mm_core::addr::{Granule, VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu, Replacement};

/// Up to how many pages are invalidated one by one.
///
/// An INVLPG takes some hundred cycles and each one empties the paging-structure caches besides; a
/// flush of everything is one instruction, and then the kernel's other translations are walked for
/// again. Linux, for which this was measured, changes over behind 33 pages (its documentation: "The
/// TLB"). A subsection's 8 vmemmap pages lie below, a section's 512 above.
pub const INVLPG_LIMIT: u64 = 32;

/// The instructions that invalidate translations, on the CPU that executes them.
///
/// `Cpu` is the real one; hosted, a model of a TLB stands in.
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

/// How the kernel reaches its other CPUs.
///
/// # For implementers
///
/// Usually an inter-processor interrupt and a count of answers. It is called with the kernel's
/// page-table lock held, after this CPU has forgotten: whoever waits for that lock with interrupts
/// disabled must still answer, and this CPU must not be exchanged for another from before the flush
/// until its end (preemption is off).
///
/// What the engine has stored is ordered before the call: see the fence of [`Tlb`]. What this stores
/// itself, to say what is to be done, it orders before its interrupt itself: a write of the x2APIC's
/// interrupt command register is not ordered with it, so MFENCE and LFENCE come between (SDM, "MSR Access
/// in x2APIC Mode").
///
/// # Safety
///
/// 1. When `on_other_cpus` returns, `work` has run, and has ended, on every CPU but this one that
///    uses the page tables. (Not later: a processor walks tables of its own accord, also those that
///    were freed.)
pub unsafe trait Shootdown {
    /// Runs `work` on every other CPU and waits for all of them.
    fn on_other_cpus(&self, work: &(dyn Fn() + Sync));
}

// SAFETY: 1 holds because it holds for the value behind the reference.
unsafe impl<T: Shootdown + ?Sized> Shootdown for &T {
    fn on_other_cpus(&self, work: &(dyn Fn() + Sync)) {
        (**self).on_other_cpus(work)
    }
}

/// There is one CPU.
#[derive(Clone, Copy, Debug)]
pub struct SingleCpu(());

impl SingleCpu {
    /// Says that there is no other CPU to reach.
    ///
    /// # Safety
    ///
    /// 1. As long as the value is used, no other CPU uses the page tables.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1: there are no other CPUs (duty 1 of `new`).
unsafe impl Shootdown for SingleCpu {
    fn on_other_cpus(&self, _work: &(dyn Fn() + Sync)) {}
}

/// The [`Mmu`] of x86-64, for tables of 4 and of 5 levels: their pages are the same.
#[derive(Clone, Copy, Debug)]
pub struct Tlb<I, S> {
    instructions: I,
    other_cpus: S,
    replacement: Replacement,
}

impl<I, S> Tlb<I, S>
where
    I: TlbInstructions + Sync,
    S: Shootdown,
{
    /// Flushes by `instructions`, here and, by `other_cpus`, everywhere else. Entries in use are
    /// exchanged by one store each, which the CPUs of a page table bear by [what the kernel has set
    /// up](crate#what-the-kernel-has-set-up), number 8.
    pub const fn new(instructions: I, other_cpus: S) -> Self {
        Self {
            instructions,
            other_cpus,
            replacement: Replacement::Direct,
        }
    }

    /// The same, with entries in use not exchanged: for processors that do not bear that a page changes
    /// its size by one store ([`Replacement::Direct`] names one family).
    #[must_use]
    pub const fn without_replacement(mut self) -> Self {
        self.replacement = Replacement::Refused;
        self
    }
}

/// Flushes `scope` on the CPU that this runs on.
fn flush_local(instructions: &impl TlbInstructions, scope: FlushScope<'_>) {
    match scope {
        FlushScope::Nothing => {}
        FlushScope::Ranges(ranges)
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

// SAFETY: 1: all CPUs see what was stored before (duty 4 of `TlbInstructions`), and after that, on
// this CPU and on all others (duty 1 of `Shootdown`), either each page in scope is
// invalidated together with the only PCID's paging-structure caches for it (duties 1 and 3 of
// `TlbInstructions`), or everything is (duty 2). 2: x86-64 makes stores visible in program order
// (SDM, "Memory Ordering"; a string store that fills a table is followed by a discrete store that
// links it, which is ordered behind it), so that only the compiler has to be kept from moving them.
// 3: after a change of a present entry the processor may use the old translation or the new one
// until the invalidation that the SDM asks for ("Recommended Invalidation"). That section
// recommends to clear P in between where the size of the page changes with its frame or its rights,
// if the software cannot do with either. Here it can: old and new entries lead to descriptors that
// say the same (duty 3 of `InUse::replace`). Processors that do not bear it are excluded by what
// the kernel has set up, number 8, which is in duty 1 of `RadixTable::new`.
unsafe impl<F, I, S> Mmu<F> for Tlb<I, S>
where
    F: LongModeFormat,
    I: TlbInstructions + Sync,
    S: Shootdown,
{
    fn flush(&self, scope: FlushScope<'_>) {
        if scope == FlushScope::Nothing {
            return;
        }
        let instructions = &self.instructions;
        instructions.fence();
        flush_local(instructions, scope);
        self.other_cpus
            .on_other_cpus(&|| flush_local(instructions, scope));
    }

    fn publish(&self) {
        compiler_fence(Ordering::Release);
    }

    // `entries_added` has nothing to do: the processor caches no entry that is not present.

    /// A present entry may become another present one; until the invalidation, the processor uses
    /// either.
    fn replacement(&self) -> Replacement {
        self.replacement
    }
}
