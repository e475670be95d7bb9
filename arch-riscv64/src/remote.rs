//! How a kernel has its other harts forget, too.
//!
//! ```text
//!   Tlb::flush ▶ Fence ─┬─▶ here
//!                       └─▶ RemoteFences::on_other_harts ▶ Fence::execute there
//! ```
//!
//! Where firmware has the RFENCE extension, [`Sbi`](crate::Sbi) does it, and no hart needs a handler. A kernel with an interrupt of its own for this
//! implements [`RemoteFences`].

use crate::instructions::{TlbInstructions, fence_pages};
use mm_core::addr::VirtRange;

/// What a hart has to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence<'f> {
    /// The leaves in these ranges: a few pages ([`SFENCE_LIMIT`](crate::SFENCE_LIMIT)).
    Leaves(&'f [VirtRange]),
    /// All entries of all levels, valid or not.
    Everything,
}

impl Fence<'_> {
    /// Makes the hart that this runs on forget. To do it once too often, or to do more, costs time and nothing else.
    pub fn execute(self, instructions: &impl TlbInstructions) {
        match self {
            Self::Leaves(ranges) => {
                for range in ranges.iter() {
                    fence_pages(instructions, *range);
                }
            }
            Self::Everything => instructions.sfence_vma_all(),
        }
    }
}

/// How the kernel reaches its other harts.
///
/// # For implementers
///
/// By firmware, or by an interrupt and a count of answers. It is called with the kernel's page-table lock held, after this
/// hart has forgotten: whoever waits for that lock with interrupts disabled must still answer, and this hart must not be exchanged for another
/// from before the flush until its end (preemption is off).
///
/// What the engine has stored is ordered before the call (duty 3 of [`TlbInstructions`]). What this stores itself, to say what is to be done, it
/// orders before its interrupt itself.
///
/// # Safety
///
/// 1. When `on_other_harts` returns, the fence has been [executed](Fence::execute), or one that reaches more, on every hart but this one
///    that uses the page tables, by instructions of that hart. (Not later: a hart walks tables of its own accord, also those
///    that were freed.)
pub unsafe trait RemoteFences {
    /// Has `fence` executed on every other hart, and waits for all of them.
    fn on_other_harts(&self, fence: Fence<'_>);
}

// SAFETY: 1 holds because it holds for the value behind the reference.
unsafe impl<T: RemoteFences + ?Sized> RemoteFences for &T {
    fn on_other_harts(&self, fence: Fence<'_>) {
        (**self).on_other_harts(fence)
    }
}

/// There is one hart.
#[derive(Clone, Copy, Debug)]
pub struct SingleHart(());

impl SingleHart {
    /// Says that there is no other hart to reach.
    ///
    /// # Safety
    ///
    /// 1. As long as the value is used, no other hart uses the page tables.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1: there are no other harts (duty 1 of `new`).
unsafe impl RemoteFences for SingleHart {
    fn on_other_harts(&self, _fence: Fence<'_>) {}
}
