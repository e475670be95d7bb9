//! Exceptions: a page fault of a probe is recorded and the probe goes on; one on a CPU that works beside the
//! first one ends its work; everything else is the end. Interrupts, which only other CPUs send, come the same way.
//!
//! Each vector has a stub of 16 bytes that pushes an error code where the CPU has not, and the vector's number; then all
//! registers are saved and [`handle`] is called with them.

use crate::cpus::{Interrupt, X86, stack_of};
use crate::exit::exit;
use crate::probe::Instructions;
use crate::serial::Serial;
use crate::{cpus, println, segments};
use core::arch::{asm, global_asm};
use core::fmt;
use core::ptr::addr_of;
use experiment::{Accesses, Processor, Verdict, give_up, idle};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

const EXCEPTIONS: usize = 32;
const VECTORS: usize = 256;
const STUB_BYTES: u64 = 16;
const DOUBLE_FAULT: usize = 8;
const PAGE_FAULT: u64 = 14;

global_asm!(
    r#"
    .pushsection .text.exceptions, "ax", @progbits
    .balign 16
    .globl exception_stubs
exception_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .balign 16
    .if (\vector != 8) && ((\vector < 10) || (\vector > 14)) && (\vector != 17) && (\vector != 21) && (\vector != 29) && (\vector != 30)
    push 0
    .endif
    push \vector
    jmp exception_common
    .endr

    .balign 16
    .globl interrupt_stubs
interrupt_stubs:                        # in the order of `Interrupt::ALL`
    .irp vector, 0xf0, 0xf1, 0xf2, 0xff
    .balign 16
    push 0
    push \vector
    jmp exception_common
    .endr

    .balign 16
exception_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call {handle}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                         # vector and error code
    iretq
    .popsection
    "#,
    handle = sym handle,
);

unsafe extern "C" {
    #[link_name = "exception_stubs"]
    static STUBS: u8;
    #[link_name = "interrupt_stubs"]
    static INTERRUPT_STUBS: u8;
}

/// The registers at an exception, as the stubs and the CPU push them.
#[derive(Debug)]
#[repr(C)]
struct Registers {
    /// R15 down to R8, then RBP, RDI, RSI, RDX, RCX, RBX, RAX.
    general: [u64; 15],
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const GENERAL: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx",
    "rax",
];

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "rip {:016x}  rsp {:016x}  rflags {:08x}  cs {:x}  ss {:x}",
            self.rip, self.rsp, self.rflags, self.cs, self.ss
        )?;
        for (index, (name, value)) in GENERAL.iter().zip(self.general).rev().enumerate() {
            let end = if index % 4 == 3 { "\n" } else { "  " };
            write!(f, "{name:>3} {value:016x}{end}")?;
        }
        Ok(())
    }
}

/// A gate of 64-bit mode (SDM, volume 3A, "64-Bit Mode IDT").
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Gate>() == 16);

impl Gate {
    const ABSENT: Self = Self {
        offset_low: 0,
        selector: 0,
        stack: 0,
        kind: 0,
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    };

    /// A present interrupt gate for ring 0.
    const fn new(handler: u64, code: u16, stack: u8) -> Self {
        Self {
            offset_low: handler as u16,
            selector: code,
            stack,
            kind: 0x8e,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

#[repr(C, align(16))]
struct Gates([Gate; VECTORS]);

static mut GATES: Gates = Gates([Gate::ABSENT; VECTORS]);

/// Fills the gates.
///
/// # Safety
///
/// 1. Called once, before any CPU loads them. `code` is the segment of code, of every CPU.
pub unsafe fn initialise(code: SegmentSelector) {
    let stub = |stubs: *const u8, index: usize| stubs as u64 + index as u64 * STUB_BYTES;
    let gates = &raw mut GATES;
    // SAFETY: called once (duty 1), and nobody else has a reference.
    let gates = unsafe { &mut *gates };
    for (vector, gate) in gates.0.iter_mut().take(EXCEPTIONS).enumerate() {
        let stack = if vector == DOUBLE_FAULT {
            segments::DOUBLE_FAULT_STACK
        } else {
            0
        };
        *gate = Gate::new(stub(addr_of!(STUBS), vector), code.0, stack);
    }
    for (index, interrupt) in Interrupt::ALL.into_iter().enumerate() {
        if let Some(gate) = gates.0.get_mut(interrupt as usize) {
            *gate = Gate::new(stub(addr_of!(INTERRUPT_STUBS), index), code.0, 0);
        }
    }
}

/// Has the CPU that this runs on use the gates.
///
/// # Safety
///
/// 1. They were filled, and this CPU's segments are loaded.
pub unsafe fn load() {
    let pointer = DescriptorTablePointer {
        limit: (size_of::<Gates>() - 1) as u16,
        base: x86_64::VirtAddr::from_ptr(&raw const GATES),
    };
    // SAFETY: each gate leads to its stub, and they stay (duty 1).
    unsafe { lidt(&pointer) };
}

/// The address of the last page fault (57 bits with 5-level paging, which is why the `x86_64` crate is not asked).
fn fault_address() -> u64 {
    let address;
    // SAFETY: reads a register, in ring 0.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Records a probe's page fault and sends it to its landing pad. Gives up work of another CPU than the first; any
/// other exception ends the machine.
extern "C" fn handle(registers: &mut Registers) {
    if registers.vector >= EXCEPTIONS as u64 {
        return cpus::interrupted(registers.vector);
    }
    let address = fault_address();
    if registers.vector == PAGE_FAULT
        && let Some(landing) =
            Instructions::answer_fault(registers.rip, address, registers.error_code)
    {
        registers.rip = landing;
        return;
    }
    let fault = (registers.rip, address, registers.error_code);
    if registers.vector == PAGE_FAULT && give_up::<X86>(fault, &mut Serial::new()) {
        registers.rip = idle::<X86> as *const () as u64;
        // As behind a call.
        registers.rsp = stack_of(X86::this_cpu()).1 - 8;
        return;
    }
    println!(
        "PANIC: exception {} with error code {:#x} at {:#x}; last page fault's address {address:#x}",
        registers.vector, registers.error_code, registers.rip
    );
    println!("{registers}");
    exit(Verdict::Panicked)
}
