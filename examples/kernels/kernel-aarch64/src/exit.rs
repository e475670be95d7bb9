//! Ending the virtual machine with a verdict, by semihosting (Arm, *Semihosting for AArch32 and AArch64*, SYS_EXIT).

use core::arch::asm;
use experiment::Verdict;

/// The operation.
pub const SYS_EXIT: u32 = 0x18;

/// Why: the program asked for it. What it says besides is the emulator's process status.
pub const ADP_STOPPED_APPLICATION_EXIT: u64 = 0x20026;

/// Ends the machine.
pub fn exit(verdict: Verdict) -> ! {
    let block = [ADP_STOPPED_APPLICATION_EXIT, u64::from(verdict as u32)];
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
