//! Fencing translations on all harts: on this one first, then on all others by the kernel's [`RemoteFences`].
//!
//! # Entries that become valid
//!
//! A hart may have cached that an entry is not valid (privileged manual, 4.2.1), and goes on to fault until it executes SFENCE.VMA. So a kernel does
//! one of two things:
//!
//! | | when entries were added | when a hart faults in the vmemmap |
//! |---|---|---|
//! | [`new`](Tlb::new) | all harts fence | it is an error |
//! | [`with_retried_faults`](Tlb::with_retried_faults) | this hart fences | its handler executes SFENCE.VMA x0, x0 and returns to the access, if the address is now mapped |
//!
//! Links to tables may be among what was added, so a fence is for everything then. With Svvptc an entry that has become valid is seen in bounded time
//! without a fence; until then an access may fault, so the handler is needed all the same, and only the fence in it is not.
//!
//! Entries in use are exchanged by one store. Until the fence a hart uses the old entry or the new one, whatever their
//! sizes are (4.2.1), and after it the new one: that is one round to other harts, and none for entries that were added.

use crate::format::SvFormat;
use crate::instructions::{SFENCE_LIMIT, TlbInstructions, pages_of};
use crate::remote::{Fence, RemoteFences};
use mm_core::addr::VirtRange;
use mm_core::paging::{FlushScope, Mmu, Replacement};

/// What is done where an entry becomes valid that a hart may have cached as invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NewEntries {
    /// All harts fence.
    Fenced,
    /// This hart fences; faults of others are tried again.
    Retried,
}

/// The [`Mmu`] of RISC-V, for tables of Sv39, Sv48 and Sv57: their pages are the same.
#[derive(Clone, Copy, Debug)]
pub struct Tlb<I, H> {
    instructions: I,
    other_harts: H,
    new_entries: NewEntries,
}

impl<I, H> Tlb<I, H>
where
    I: TlbInstructions,
    H: RemoteFences,
{
    /// Fences by `instructions`, here and, by `other_harts`, everywhere else. All harts fence when entries were added.
    pub const fn new(instructions: I, other_harts: H) -> Self {
        Self {
            instructions,
            other_harts,
            new_entries: NewEntries::Fenced,
        }
    }

    /// The same, but when entries were added only this hart fences, which spares the others an interrupt: for kernels whose fault handler takes a
    /// fault at an address of the vmemmap for spurious, executes SFENCE.VMA x0, x0, and tries once more.
    #[must_use]
    pub fn with_retried_faults(self) -> Self {
        Self {
            new_entries: NewEntries::Retried,
            ..self
        }
    }

    fn on_all_harts(&self, fence: Fence<'_>) {
        self.instructions.fence();
        fence.execute(&self.instructions);
        self.other_harts.on_other_harts(fence);
    }
}

// SAFETY: 1: what was stored before is visible to all harts (duty 3 of `TlbInstructions`). After that, on this hart and on all others (duty 1 of
// `RemoteFences`), either the leaves of each page in scope are dropped, where no link to a table was changed (duty 1 of
// `TlbInstructions`), or everything is (duty 2); walks find what was stored. 2: duty 3 of `TlbInstructions`. 3: the manual says (4.2.1) that
// a hart uses the old entry or the new one until the fence, where a superpage becomes a table or a table a superpage too, and
// that its behavior is otherwise well defined.
unsafe impl<F, I, H> Mmu<F> for Tlb<I, H>
where
    F: SvFormat,
    I: TlbInstructions,
    H: RemoteFences,
{
    fn flush(&self, scope: FlushScope<'_>) {
        match scope {
            FlushScope::Nothing => {}
            FlushScope::Leaves(ranges) if pages_of(ranges) <= SFENCE_LIMIT => {
                self.on_all_harts(Fence::Leaves(ranges));
            }
            _ => self.on_all_harts(Fence::Everything),
        }
    }

    fn publish(&self) {
        self.instructions.fence();
    }

    fn entries_added(&self, _range: VirtRange) {
        match self.new_entries {
            NewEntries::Fenced => self.on_all_harts(Fence::Everything),
            NewEntries::Retried => {
                self.instructions.fence();
                self.instructions.sfence_vma_all();
            }
        }
    }

    /// A valid entry may become another valid one; until the fence, a hart uses either.
    fn replacement(&self) -> Replacement {
        Replacement::Direct
    }
}
