//! Flushing translations on all CPUs: on this one first, then on all others by the kernel's
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
use crate::instructions::TlbInstructions;
use crate::shootdown::{FlushRequest, Shootdown};
use core::sync::atomic::{Ordering, compiler_fence};
use mm_core::paging::{FlushScope, Mmu, Replacement};

/// The [`Mmu`] of x86-64, for tables of 4 and of 5 levels: their pages are the same.
#[derive(Clone, Copy, Debug)]
pub struct Tlb<I, S> {
    instructions: I,
    other_cpus: S,
    replacement: Replacement,
}

impl<I, S> Tlb<I, S>
where
    I: TlbInstructions,
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
    I: TlbInstructions,
    S: Shootdown,
{
    fn flush(&self, scope: FlushScope<'_>) {
        if scope == FlushScope::Nothing {
            return;
        }
        self.instructions.fence();
        let request = FlushRequest::new(scope);
        request.execute(&self.instructions);
        self.other_cpus.on_other_cpus(&request);
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
