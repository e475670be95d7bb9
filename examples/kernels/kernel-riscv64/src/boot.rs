//! From firmware to Rust code: in supervisor mode, with satp = 0, so that memory is where it is (SBI specification, "HART State Management
//! Extension"). Of the harts, firmware starts one, at the
//! image's first instruction.
//!
//! OpenSBI 1.1 says of a hart that it is to start before it says where. A hart that looks in between begins where the first one did. So
//! whoever comes second waits as those do that began [where they should](crate::cpus::park).
//!
//! The number of a hart, from 0 for the first one on, is in TP, which nothing else uses. Floating point is off, so that exceptions need not save its
//! registers: code that uses them ends the machine.

use crate::cpus::HANDED;
use core::arch::global_asm;

/// sstatus.FS: the state of the floating-point unit, off where it is zero.
pub const FLOATING_POINT: u64 = 0b11 << 13;

global_asm!(
    r#"
    .pushsection .text.start, "ax", @progbits
    .globl _start
_start:                             // A0 = its hart, A1 = the device tree
    la t0, begun
    li t1, 1
    .option push
    .option arch, +a
    amoswap.w t1, t1, (t0)
    .option pop
    beqz t1, 1f
    la a1, {handed}
    j hart_parked
1:
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

    .pushsection .data, "aw", @progbits
    .balign 4
begun:                              // Whether a hart has come here.
    .word 0
    .popsection
    "#,
    main = sym crate::kernel_main,
    handed = sym HANDED,
    floating_point = const FLOATING_POINT,
);
