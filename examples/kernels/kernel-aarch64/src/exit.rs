//! Ending the virtual machine with a verdict, by semihosting (Arm, *Semihosting for AArch32 and AArch64*, SYS_EXIT).

use core::arch::asm;

/// The operation.
pub const SYS_EXIT: u32 = 0x18;

/// Why: the program asked for it. What it says besides is the emulator's process status.
pub const ADP_STOPPED_APPLICATION_EXIT: u64 = 0x20026;

/// How it went. The numbers are the emulator's process status, and also xtask's. A status of 0 or 1 the emulator has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Verdict {
    /// Everything passed.
    Passed = 0x10,
    /// Something failed.
    Failed = 0x11,
    /// The kernel panicked.
    Panicked = 0x12,
    /// The CPU lacks what was asked for.
    Skipped = 0x13,
}

/// Ends the machine.
pub fn exit(verdict: Verdict) -> ! {
    let block = [ADP_STOPPED_APPLICATION_EXIT, verdict as u64];
    loop {
        // SAFETY: the operation reads the two words of the block and does not return.
        unsafe {
            asm!(
                "hlt #0xf000",
                in("w0") SYS_EXIT,
                in("x1") block.as_ptr(),
                options(nostack, readonly)
            )
        };
    }
}
