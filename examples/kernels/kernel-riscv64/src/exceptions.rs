//! Exceptions: a page fault of a probe is recorded and the probe goes on; one on a hart that works beside the first one ends its work; everything
//! else is the end. Interrupts, which only other harts send, come the same way.
//!
//! All of them come to one place (privileged manual, 4.1.2: stvec in direct mode), which saves all registers on the exceptions' stack and calls [`handle`]
//! with them. sscratch has that stack's end, and meanwhile the stack pointer of what was interrupted.

use crate::console::Console;
use crate::cpus::{self, RiscV, stacks_of};
use crate::exit::exit;
use crate::println;
use crate::probe::Instructions;
use core::arch::{asm, global_asm};
use core::fmt;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicBool, Ordering};
use experiment::{Accesses, Processor, Verdict, give_up, idle};

/// scause: an interrupt, by software.
const SOFTWARE_INTERRUPT: u64 = 1 << 63 | 1;

/// scause: page faults of loads and stores.
const PAGE_FAULTS: [u64; 2] = [13, 15];

global_asm!(
    r#"
    .pushsection .text.exceptions, "ax", @progbits
    .balign 4
    .globl exception_entry
exception_entry:
    csrrw sp, sscratch, sp
    addi sp, sp, -{frame_bytes}
    sd x1, 8(sp)
    sd x5, 40(sp)
    csrr x5, sscratch
    sd x5, 16(sp)
    .irp register, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    sd x\register, 8 * \register(sp)
    .endr
    csrr t0, sepc
    csrr t1, sstatus
    csrr t2, scause
    csrr t3, stval
    sd t0, 256(sp)
    sd t1, 264(sp)
    sd t2, 272(sp)
    sd t3, 280(sp)
    mv a0, sp
    call {handle}
    ld t0, 256(sp)
    ld t1, 264(sp)
    csrw sepc, t0
    csrw sstatus, t1
    addi t0, sp, {frame_bytes}
    csrw sscratch, t0
    .irp register, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ld x\register, 8 * \register(sp)
    .endr
    ld sp, 16(sp)
    sret
    .popsection
    "#,
    handle = sym handle,
    frame_bytes = const size_of::<Registers>(),
);

unsafe extern "C" {
    #[link_name = "exception_entry"]
    static ENTRY: u8;
}

/// The registers at an exception, as they are saved. The stack keeps its alignment of 16 bytes.
#[derive(Debug)]
#[repr(C, align(16))]
struct Registers {
    /// By number; the first one is zero, and is not saved.
    general: [u64; 32],
    pc: u64,
    status: u64,
    cause: u64,
    value: u64,
}

/// The number of the stack pointer.
const SP: usize = 2;

const _: () = assert!(
    size_of::<Registers>() == 288 && core::mem::offset_of!(Registers, pc) == 256,
    "the code above knows this layout"
);

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pc  {:016x}  sstatus {:x}", self.pc, self.status)?;
        for (index, value) in self.general.iter().enumerate().skip(1) {
            let before = if index % 4 == 1 { "\n" } else { "  " };
            write!(f, "{before}x{index:<2} {value:016x}")?;
        }
        Ok(())
    }
}

/// Installs the entry.
///
/// # Safety
///
/// 1. sscratch is the end of a stack that is nobody else's, for good.
pub unsafe fn initialise() {
    // SAFETY: the entry leads to `handle`, and has a stack (duty 1).
    unsafe { asm!("csrw stvec, {}", in(reg) addr_of!(ENTRY), options(nostack, preserves_flags)) };
}

/// Records a probe's page fault and sends it to its landing pad. Gives up work of another hart than the first; any other exception ends the
/// machine.
extern "C" fn handle(registers: &mut Registers) {
    let Registers {
        pc, cause, value, ..
    } = *registers;
    if cause == SOFTWARE_INTERRUPT {
        return cpus::interrupted();
    }
    if PAGE_FAULTS.contains(&cause) {
        if let Some(landing) = Instructions::answer_fault(pc, value, cause) {
            registers.pc = landing;
            return;
        }
        if give_up::<RiscV>((pc, value, cause), &mut Console) {
            let [(_, stack), _] = stacks_of(RiscV::this_cpu());
            registers.pc = idle::<RiscV> as *const () as u64;
            registers.general[SP] = stack;
            return;
        }
    }
    static PRINTING: AtomicBool = AtomicBool::new(false);
    if !PRINTING.swap(true, Ordering::Relaxed) {
        println!("PANIC: exception at {pc:#x}: scause {cause:#x}, stval {value:#x}");
        println!("{registers}");
    }
    exit(Verdict::Panicked)
}
