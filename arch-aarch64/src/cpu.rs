//! The instructions themselves.
//!
//! None of the `asm!` blocks says `nomem`: the compiler keeps stores to tables on their side of
//! each.

use crate::break_before_make::BreakBeforeMake;
use crate::registers::{self, Misconfigured, Registers};
use crate::tlb::{PageOperand, TlbInstructions};
use core::arch::asm;
use mm_core::addr::Granule;

/// Reads a register of EL1.
macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: duty 1 of `Cpu::new`: the register can be read there, and reading it has no effect.
        unsafe {
            asm!(
                concat!("mrs {}, ", $register),
                out(reg) value,
                options(nomem, nostack, preserves_flags)
            )
        };
        value
    }};
}

/// The processor, executing.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(());

impl Cpu {
    /// The processor that this runs on.
    ///
    /// # Safety
    ///
    /// 1. The value is used at EL1, or at EL2 with HCR_EL2.{E2H, TGE} = {1, 1}.
    /// 2. All CPUs that use the tables are in one inner shareable domain, and of one VMID.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// What this CPU allows to be changed in valid entries. The system allows what all of its CPUs
    /// do: the least.
    pub fn break_before_make(&self) -> BreakBeforeMake {
        BreakBeforeMake::from_id_aa64mmfr2(read!("id_aa64mmfr2_el1"))
    }

    /// [`check`](registers::check) of the CPU that this runs on.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`]: the first that is not so.
    pub fn check(&self, granule: Granule) -> Result<(), Misconfigured> {
        registers::check(self, granule)
    }
}

// With HCR_EL2.E2H, these names mean the registers of EL2.
impl Registers for Cpu {
    fn tcr_el1(&self) -> u64 {
        read!("tcr_el1")
    }

    fn mair_el1(&self) -> u64 {
        read!("mair_el1")
    }

    fn sctlr_el1(&self) -> u64 {
        read!("sctlr_el1")
    }

    fn tcr2_el1(&self) -> u64 {
        // By number, which every assembler knows: ID_AA64MMFR3_EL1, whose lowest field is TCRX, and
        // TCR2_EL1.
        match read!("s3_0_c0_c7_3") & 0xf {
            0 => 0,
            _ => read!("s3_0_c2_c0_3"),
        }
    }
}

// SAFETY: 1 to 3 are what the Arm ARM says of DSB with ISHST and ISH, TLBI VAAE1IS and VMALLE1IS,
// and ISB, at the exception levels of duty 1 of `Cpu::new` and for the CPUs of duty 2.
unsafe impl TlbInstructions for Cpu {
    #[inline]
    fn dsb_ishst(&self) {
        // SAFETY: a barrier has no effect but order.
        unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
    }

    #[inline]
    fn dsb_ish(&self) {
        // SAFETY: a barrier has no effect but order.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    }

    #[inline]
    fn isb(&self) {
        // SAFETY: a barrier has no effect but order.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }

    #[inline]
    fn tlbi_vaae1is(&self, page: PageOperand) {
        // SAFETY: the exception level is one that has the instruction (duty 1 of `new`);
        // translations are cached again when they are needed.
        unsafe { asm!("tlbi vaae1is, {}", in(reg) page.bits(), options(nostack, preserves_flags)) };
    }

    #[inline]
    fn tlbi_vmalle1is(&self) {
        // SAFETY: as for `tlbi_vaae1is`.
        unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) };
    }
}
