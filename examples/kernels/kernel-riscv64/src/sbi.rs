//! Firmware: what this kernel asks of it (*RISC-V Supervisor Binary Interface Specification*). Fences of other harts are `arch-riscv64`'s to ask for.

use core::arch::asm;
use core::fmt;

/// The legacy extension "Console Putchar".
const CONSOLE_PUTCHAR: u64 = 0x01;

/// The legacy extension "Console Getchar".
const CONSOLE_GETCHAR: u64 = 0x02;

/// "IPI Extension" ("sPI"), and its function.
const IPI: u64 = 0x0073_5049;
const SEND_IPI: u64 = 0;

/// "Hart State Management Extension" ("HSM"), and its function that starts a hart.
const HSM: u64 = 0x0048_534d;
const HART_START: u64 = 0;

/// An error that firmware answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(i64);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}

/// Prints a byte.
pub fn put(byte: u8) {
    // SAFETY: 1: it prints, and does nothing else.
    let _ = unsafe { call(CONSOLE_PUTCHAR, 0, [u64::from(byte), 0, 0]) };
}

/// Waits for a byte of input.
pub fn wait_for_input() {
    // It answers with the byte where others have an error, and with -1 where there is none.
    // SAFETY: 1: it takes a byte that came in, and does nothing else.
    while unsafe { call(CONSOLE_GETCHAR, 0, [0; 3]) } == Err(Refused(-1)) {
        core::hint::spin_loop();
    }
}

/// Makes a supervisor software interrupt pending on `hart`. What was stored before is visible to it then.
pub fn interrupt(hart: u64) {
    // SAFETY: a fence has no effect but order.
    unsafe { asm!("fence rw, rw", options(nostack, preserves_flags)) };
    // A mask of one hart, which starts with that one.
    // SAFETY: 1: harts that have started take interrupts.
    let _ = unsafe { call(IPI, SEND_IPI, [1, hart, 0]) };
}

/// Starts `hart` at the physical address `entry`, with `argument` in A1.
///
/// # Errors
///
/// [`Refused`].
///
/// # Safety
///
/// 1. The code there sets the hart up, with satp = 0 and interrupts off.
pub unsafe fn start(hart: u64, entry: u64, argument: u64) -> Result<(), Refused> {
    // SAFETY: 1: duty 1.
    unsafe { call(HSM, HART_START, [hart, entry, argument]) }
}

/// # Safety
///
/// 1. The caller bears what the function does.
unsafe fn call(extension: u64, function: u64, arguments: [u64; 3]) -> Result<(), Refused> {
    let [a0, a1, a2] = arguments;
    let error: i64;
    // SAFETY: this is supervisor mode, below firmware. All registers but A0 and A1 keep their values ("Binary Encoding"). 1: duty 1.
    unsafe {
        asm!(
            "ecall",
            inlateout("a0") a0 => error,
            inlateout("a1") a1 => _,
            in("a2") a2,
            in("a6") function,
            in("a7") extension,
            options(nostack, preserves_flags)
        )
    };
    match error {
        0 => Ok(()),
        error => Err(Refused(error)),
    }
}
