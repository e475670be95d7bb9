//! Exceptions: a data abort of a probe is recorded and the probe goes on; one on a CPU that works beside the first one ends its work; everything
//! else is the end. Interrupts, which only other CPUs send, come the same way.
//!
//! Each of the sixteen vectors (Arm ARM, "Exception vectors") saves all registers on the exceptions' stack and calls [`handle`] with them.

use crate::cpus::{self, Arm, stacks_of};
use crate::exit::exit;
use crate::println;
use crate::probe::Instructions;
use crate::serial::Serial;
use core::arch::{asm, global_asm};
use core::fmt;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicBool, Ordering};
use experiment::{Accesses, Processor, Verdict, give_up, idle};

/// The vector of synchronous exceptions of code that runs on SP_EL0, at its own exception level.
const SYNCHRONOUS: u64 = 0;

/// That of its interrupts.
const INTERRUPT: u64 = 1;

/// ESR_EL1.EC of a data abort that was taken without a change of the exception level.
const DATA_ABORT: u64 = 0x25;

global_asm!(
    r#"
    .pushsection .text.exceptions, "ax", @progbits
    .balign 2048
    .globl exception_vectors
exception_vectors:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 128
    sub sp, sp, #{frame_bytes}
    stp x0, x1, [sp]
    mov x0, #\vector
    b exception_common
    .endr

exception_common:
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x19, [sp, #144]
    stp x20, x21, [sp, #160]
    stp x22, x23, [sp, #176]
    stp x24, x25, [sp, #192]
    stp x26, x27, [sp, #208]
    stp x28, x29, [sp, #224]
    mrs x1, sp_el0
    stp x30, x1, [sp, #240]
    mrs x1, elr_el1
    mrs x2, spsr_el1
    stp x1, x2, [sp, #256]
    mrs x1, fpcr
    mrs x2, fpsr
    stp x0, x1, [sp, #272]
    str x2, [sp, #288]
    stp q0, q1, [sp, #304]
    stp q2, q3, [sp, #336]
    stp q4, q5, [sp, #368]
    stp q6, q7, [sp, #400]
    stp q8, q9, [sp, #432]
    stp q10, q11, [sp, #464]
    stp q12, q13, [sp, #496]
    stp q14, q15, [sp, #528]
    stp q16, q17, [sp, #560]
    stp q18, q19, [sp, #592]
    stp q20, q21, [sp, #624]
    stp q22, q23, [sp, #656]
    stp q24, q25, [sp, #688]
    stp q26, q27, [sp, #720]
    stp q28, q29, [sp, #752]
    stp q30, q31, [sp, #784]
    mov x0, sp
    bl {handle}
    ldp q0, q1, [sp, #304]
    ldp q2, q3, [sp, #336]
    ldp q4, q5, [sp, #368]
    ldp q6, q7, [sp, #400]
    ldp q8, q9, [sp, #432]
    ldp q10, q11, [sp, #464]
    ldp q12, q13, [sp, #496]
    ldp q14, q15, [sp, #528]
    ldp q16, q17, [sp, #560]
    ldp q18, q19, [sp, #592]
    ldp q20, q21, [sp, #624]
    ldp q22, q23, [sp, #656]
    ldp q24, q25, [sp, #688]
    ldp q26, q27, [sp, #720]
    ldp q28, q29, [sp, #752]
    ldp q30, q31, [sp, #784]
    ldp x1, x2, [sp, #280]
    msr fpcr, x1
    msr fpsr, x2
    ldr x1, [sp, #248]
    msr sp_el0, x1
    ldr x1, [sp, #256]
    msr elr_el1, x1
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x19, [sp, #144]
    ldp x20, x21, [sp, #160]
    ldp x22, x23, [sp, #176]
    ldp x24, x25, [sp, #192]
    ldp x26, x27, [sp, #208]
    ldp x28, x29, [sp, #224]
    ldr x30, [sp, #240]
    ldp x0, x1, [sp]
    add sp, sp, #{frame_bytes}
    eret
    .popsection
    "#,
    handle = sym handle,
    frame_bytes = const size_of::<Registers>(),
);

unsafe extern "C" {
    #[link_name = "exception_vectors"]
    static VECTORS: u8;
}

/// The registers at an exception, as the vectors save them. The stack keeps its alignment of 16 bytes.
#[derive(Debug)]
#[repr(C, align(16))]
struct Registers {
    general: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    vector: u64,
    fpcr: u64,
    fpsr: u64,
    unused: u64,
    vectors: [u128; 32],
}

const _: () = assert!(
    size_of::<Registers>() == 816
        && core::mem::offset_of!(Registers, vector) == 272
        && core::mem::offset_of!(Registers, vectors) == 304,
    "the vectors know this layout"
);

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pc {:016x}  sp {:016x}  spsr {:08x}",
            self.elr, self.sp, self.spsr
        )?;
        for (index, value) in self.general.iter().enumerate() {
            let before = if index % 4 == 0 { "\n" } else { "  " };
            write!(f, "{before}x{index:<2} {value:016x}")?;
        }
        Ok(())
    }
}

/// Installs the vectors.
///
/// # Safety
///
/// 1. Code runs on SP_EL0, and SP_EL1 is the end of a stack that is nobody else's, for good.
pub unsafe fn initialise() {
    let vectors = addr_of!(VECTORS) as u64;
    // SAFETY: each vector leads to `handle`, and has a stack (duty 1).
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) vectors, options(nostack, preserves_flags)) };
}

/// ESR_EL1 and FAR_EL1.
fn syndrome() -> (u64, u64) {
    let (syndrome, address);
    // SAFETY: reads registers, at EL1.
    unsafe {
        asm!(
            "mrs {}, esr_el1",
            "mrs {}, far_el1",
            out(reg) syndrome,
            out(reg) address,
            options(nomem, nostack, preserves_flags)
        )
    };
    (syndrome, address)
}

/// Records a probe's data abort and sends it to its landing pad. Gives up work of another CPU than the first; any other exception ends the
/// machine.
extern "C" fn handle(registers: &mut Registers) {
    if registers.vector == INTERRUPT {
        return cpus::interrupted();
    }
    let (syndrome, address) = syndrome();
    let class = syndrome >> 26 & 0x3f;
    if registers.vector == SYNCHRONOUS
        && class == DATA_ABORT
        && let Some(landing) = Instructions::answer_fault(registers.elr, address, syndrome)
    {
        registers.elr = landing;
        return;
    }
    if registers.vector == SYNCHRONOUS
        && class == DATA_ABORT
        && give_up::<Arm>((registers.elr, address, syndrome), &mut Serial::new())
    {
        let [(_, stack), _] = stacks_of(Arm::this_cpu());
        registers.elr = idle::<Arm> as *const () as u64;
        registers.sp = stack;
        return;
    }
    static PRINTING: AtomicBool = AtomicBool::new(false);
    if !PRINTING.swap(true, Ordering::Relaxed) {
        println!(
            "PANIC: exception by vector {} at {:#x}: ESR_EL1 {syndrome:#x} (class {class:#x}), FAR_EL1 {address:#x}",
            registers.vector, registers.elr
        );
        println!("{registers}");
    }
    exit(Verdict::Panicked)
}
