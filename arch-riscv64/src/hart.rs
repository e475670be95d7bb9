//! The instructions themselves.
//!
//! None of the `asm!` blocks of fences says `nomem`: the compiler keeps stores to tables on their side of each.

use crate::format::SvFormat;
use crate::instructions::TlbInstructions;
use crate::registers::{self, Misconfigured, Registers};
use core::arch::asm;
use mm_core::addr::VirtAddr;

/// The hart, executing.
#[derive(Clone, Copy, Debug)]
pub struct Hart(());

impl Hart {
    /// The hart that this runs on.
    ///
    /// # Safety
    ///
    /// 1. The value is used in supervisor mode, with mstatus.TVM = 0 (3.1.6.5), or in HS-mode.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// [`check`](registers::check) of the hart that this runs on.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`].
    pub fn check<F: SvFormat>(&self) -> Result<(), Misconfigured> {
        registers::check::<F>(self)
    }
}

impl Registers for Hart {
    fn satp(&self) -> u64 {
        let value: u64;
        // SAFETY: duty 1 of `new`: the register can be read there, and reading it has no effect.
        unsafe { asm!("csrr {}, satp", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }
}

// SAFETY: 1 to 3 are what the manuals say of SFENCE.VMA, with x0 as address space, and of FENCE, in the mode of duty 1 of `Hart::new`.
unsafe impl TlbInstructions for Hart {
    #[inline]
    fn sfence_vma(&self, at: VirtAddr) {
        // SAFETY: the mode is one that has the instruction (duty 1 of `new`); translations are cached again when they are
        // needed.
        unsafe { asm!("sfence.vma {}, x0", in(reg) at.get(), options(nostack, preserves_flags)) };
    }

    #[inline]
    fn sfence_vma_all(&self) {
        // SAFETY: as for `sfence_vma`.
        unsafe { asm!("sfence.vma", options(nostack, preserves_flags)) };
    }

    #[inline]
    fn fence(&self) {
        // SAFETY: a fence has no effect but order.
        unsafe { asm!("fence w, ow", options(nostack, preserves_flags)) };
    }
}
