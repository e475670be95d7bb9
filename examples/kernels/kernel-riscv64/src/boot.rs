//! From firmware to Rust code: in supervisor mode, with satp = 0, so that memory is where it is (SBI specification, "HART State Management
//! Extension"). Of the harts, firmware starts one, at the
//! image's first instruction.
//!
//! The number of a hart, from 0 for the first one on, is in TP, which nothing else uses. Floating point is off, so that exceptions need not save its
//! registers: code that uses them ends the machine.

use core::arch::global_asm;

/// sstatus.FS: the state of the floating-point unit, off where it is zero.
pub const FLOATING_POINT: u64 = 0b11 << 13;

global_asm!(
    r#"
    .pushsection .text.start, "ax", @progbits
    .globl _start
_start:                             // A0 = its hart, A1 = the device tree
    csrci sstatus, 2
    csrw sie, zero
    li t0, {floating_point}
    csrc sstatus, t0
    la sp, __stack_end
    la t0, __exception_stack_end
    csrw sscratch, t0
    li tp, 0

    la t0, __bss_start
    la t1, __bss_end
1:  bgeu t0, t1, 2f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
2:
    li ra, 0
    li s0, 0
    call {main}
    .popsection
    "#,
    main = sym crate::kernel_main,
    floating_point = const FLOATING_POINT,
);
