//! The instructions themselves.

use crate::Choices;
use crate::format::LongModeFormat;
use crate::instructions::TlbInstructions;
use crate::registers::{self, Misconfigured, Registers};
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};
use mm_core::addr::VirtAddr;
#[cfg(target_arch = "x86_64")]
use {
    core::arch::x86_64::{__cpuid, __cpuid_count},
    x86_64::instructions::interrupts::without_interrupts,
    x86_64::registers::control::{Cr0, Cr4, Cr4Flags, Efer},
    x86_64::registers::model_specific::Msr,
};

/// CPUID leaf 7, subleaf 0: structured extended features (SDM, volume 2A, "CPUID").
const EXTENDED_FEATURES: u32 = 7;

/// The bit of EBX there that stands for INVPCID.
const INVPCID: u32 = 1 << 10;

/// The type of INVPCID for all contexts, global translations included (SDM, volume 2A, "INVPCID").
const ALL_INCLUDING_GLOBAL: u64 = 2;

/// IA32_PAT.
const PAT: u32 = 0x277;

/// Whether the processor has INVPCID: [`UNKNOWN`] until somebody asked, then [`ABSENT`] or
/// [`PRESENT`].
// Asked once: CPUID makes a virtual machine exit.
static INVPCID_SUPPORT: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

/// The processor, executing. It is asked for its features when they are first needed.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(());

impl Cpu {
    /// The processor that this runs on.
    ///
    /// # Safety
    ///
    /// 1. The value is used in ring 0 only.
    /// 2. All CPUs that use it have the same features.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// [`check`](registers::check) of the CPU that this runs on.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`]: the first that is not so.
    pub fn check<F: LongModeFormat>(&self, choices: Choices) -> Result<(), Misconfigured> {
        registers::check::<F>(self, choices)
    }
}

impl Registers for Cpu {
    fn cr0(&self) -> u64 {
        Cr0::read_raw()
    }

    fn cr4(&self) -> u64 {
        Cr4::read_raw()
    }

    fn efer(&self) -> u64 {
        Efer::read_raw()
    }

    fn pat(&self) -> u64 {
        // SAFETY: ring 0 (duty 1 of `new`); every processor with long mode has the register, and
        // reading it has no effect.
        unsafe { Msr::new(PAT).read() }
    }
}

// SAFETY: 1 to 3 are what the SDM says of INVLPG, INVPCID type 2, a change of CR4.PGE, and
// CR4.PCIDE. INVLPG and MOV to CR4 are serializing; INVPCID has fences around it. 4: MFENCE makes
// stores visible before any later access to memory, and LFENCE lets nothing behind it begin before
// (SDM, "Memory Ordering Instructions").
unsafe impl TlbInstructions for Cpu {
    fn invlpg(&self, at: VirtAddr) {
        // SAFETY: ring 0 (duty 1 of `new`). The instruction accesses no memory; written here since
        // the `x86_64` crate's address type knows 48 bits only.
        unsafe { asm!("invlpg [{}]", in(reg) at.get(), options(nostack, preserves_flags)) };
    }

    fn has_invpcid(&self) -> bool {
        match INVPCID_SUPPORT.load(Ordering::Relaxed) {
            UNKNOWN => {
                #[allow(unused_unsafe, reason = "older compilers call both functions unsafe")]
                // SAFETY: every processor with long mode has CPUID.
                let has_invpcid = unsafe {
                    __cpuid(0).eax >= EXTENDED_FEATURES
                        && __cpuid_count(EXTENDED_FEATURES, 0).ebx & INVPCID != 0
                };
                let support = if has_invpcid { PRESENT } else { ABSENT };
                // All CPUs find the same (duty 2 of `new`).
                INVPCID_SUPPORT.store(support, Ordering::Relaxed);
                has_invpcid
            }
            support => support == PRESENT,
        }
    }

    fn invpcid_all_including_global(&self) {
        if self.has_invpcid() {
            // No PCID and no address: type 2 looks at neither.
            let descriptor = [0_u64; 2];
            // SAFETY: CPUID says that the instruction exists, on this CPU as on all (duty 2 of
            // `new`); ring 0 (duty 1). It reads the descriptor. Written here since the `x86_64`
            // crate has another name for it before 0.15.2.
            unsafe {
                asm!(
                    "invpcid {}, [{}]",
                    in(reg) ALL_INCLUDING_GLOBAL,
                    in(reg) &descriptor,
                    options(nostack, preserves_flags)
                );
            }
            self.fence();
        }
    }

    fn toggle_global(&self) {
        // An interrupt in between might change CR4 or continue on another CPU.
        without_interrupts(|| {
            let control = Cr4::read();
            // SAFETY: ring 0 (duty 1 of `new`). PGE decides only how long translations are cached,
            // and the second write restores what was.
            unsafe {
                Cr4::write(control ^ Cr4Flags::PAGE_GLOBAL);
                Cr4::write(control);
            }
        });
    }

    fn fence(&self) {
        // SAFETY: fences have no effect but order. The compiler keeps accesses on their sides, since
        // the block does not say `nomem`.
        unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
    }

    fn uses_pcids(&self) -> bool {
        Cr4::read().contains(Cr4Flags::PCID)
    }
}
