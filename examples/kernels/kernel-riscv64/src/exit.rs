//! Ending the virtual machine with a verdict, by semihosting (*RISC-V Semihosting*, and Arm, *Semihosting for AArch32 and AArch64*, SYS_EXIT).

use core::arch::asm;
use experiment::Verdict;

/// The operation.
const SYS_EXIT: u64 = 0x18;

/// Why: the program asked for it. What it says besides is the emulator's process status.
const ADP_STOPPED_APPLICATION_EXIT: u64 = 0x20026;

/// Ends the machine.
pub fn exit(verdict: Verdict) -> ! {
    let block = [ADP_STOPPED_APPLICATION_EXIT, u64::from(verdict as u32)];
    loop {
        // SAFETY: the operation reads the two words of the block and does not return. By the three instructions, none of them compressed and all in
        // one page, the emulator knows it.
        unsafe {
            asm!(
                ".option push",
                ".option norvc",
                ".balign 16",
                "slli x0, x0, 0x1f",
                "ebreak",
                "srai x0, x0, 7",
                ".option pop",
                in("a0") SYS_EXIT,
                in("a1") block.as_ptr(),
                options(nostack, readonly)
            )
        };
    }
}
