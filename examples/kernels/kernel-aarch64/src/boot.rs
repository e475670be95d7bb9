//! From the emulator's entry, at EL1 with the MMU off, to Rust code with it on.
//!
//! Without translation all data accesses are to device memory, which allows neither unaligned nor exclusive ones (Arm ARM, "The effects of
//! disabling a stage of address translation"). So the first tables are constants, and in use before any Rust code runs: 4 KiB pages, 48 bits, the
//! first GiB (devices) and the second (RAM) where they are. Everything in them is for ASID 0; the kernel's own tables are for another ASID, so that
//! these and those are never taken for each other.
//!
//! Rust code runs on SP_EL0, exceptions on SP_EL1: one that is caused by the stack has a stack.

use crate::exit::{ADP_STOPPED_APPLICATION_EXIT, SYS_EXIT};
use crate::registers::{MAIR, Sctlr, Tcr};
use core::arch::global_asm;
use experiment::Verdict;

/// Where physical memory is mapped where it is, until the kernel has tables of its own: from here.
pub const IDENTITY_START: u64 = 1 << 30;

/// Up to here.
pub const IDENTITY_END: u64 = 2 << 30;

/// Valid, a block, AF, nG; of device memory, never executable.
const DEVICE_BLOCK: u64 = 0b01 | 1 << 2 | 1 << 10 | 1 << 11 | 1 << 53 | 1 << 54;

/// Valid, a block, AF, nG, inner shareable; of normal memory, not executable at EL0.
const RAM_BLOCK: u64 = 0b01 | 0b11 << 8 | 1 << 10 | 1 << 11 | 1 << 54;

global_asm!(
    r#"
    .pushsection .text.boot, "ax", @progbits
    .globl _start
_start:
    msr daifset, #0xf
    mov x20, x0
    mrs x1, CurrentEL
    cmp x1, #1 << 2
    b.ne 9f
    mrs x1, id_aa64mmfr0_el1
    ubfx x2, x1, #28, #4                // TGran4
    cmp x2, #0xf                        // not there
    b.eq 9f

    and x1, x1, #0xf                    // PARange
    mov x2, #{most_pa_range}
    cmp x1, x2
    csel x1, x1, x2, lo
    ldr x2, ={tcr}
    orr x2, x2, x1, lsl #{ips_shift}
    msr tcr_el1, x2
    ldr x2, ={mair}
    msr mair_el1, x2
    adrp x2, boot_root
    msr ttbr0_el1, x2
    tlbi vmalle1
    dsb nsh
    isb
    ldr x2, ={sctlr}
    msr sctlr_el1, x2
    isb
    mov x2, #3 << 20                    // CPACR_EL1.FPEN: nothing is trapped
    msr cpacr_el1, x2
    isb

    msr tpidr_el1, xzr                  // CPU 0
    msr spsel, #1
    adrp x2, __exception_stack_end
    add x2, x2, :lo12:__exception_stack_end
    mov sp, x2
    msr spsel, #0
    adrp x2, __stack_end
    add x2, x2, :lo12:__stack_end
    mov sp, x2

    adrp x2, __bss_start
    add x2, x2, :lo12:__bss_start
    adrp x3, __bss_end
    add x3, x3, :lo12:__bss_end
2:  cmp x2, x3
    b.hs 3f
    stp xzr, xzr, [x2], #16
    b 2b
3:
    mov x0, x20
    mov x29, xzr
    mov x30, xzr
    bl {main}

    // Not the exception level or not the CPU that this is for.
9:  adr x1, boot_exit
    mov w0, #{sys_exit}
    hlt #0xf000
    b 9b

    .balign 8
boot_exit:
    .quad {stopped}
    .quad {panicked}
    .popsection

    .pushsection .rodata.boot, "a", @progbits
    .balign 4096
boot_root:
    .quad boot_upper + 3                // a table
    .fill 511, 8, 0
boot_upper:
    .quad {device_block}
    .quad {ram_block} + (1 << 30)
    .fill 510, 8, 0
    .popsection
    "#,
    main = sym crate::kernel_main,
    most_pa_range = const Tcr::MOST_PA_RANGE,
    ips_shift = const Tcr::IPS_SHIFT,
    tcr = const Tcr::BOOT,
    mair = const MAIR,
    sctlr = const Sctlr::MMU_ON,
    device_block = const DEVICE_BLOCK,
    ram_block = const RAM_BLOCK,
    sys_exit = const SYS_EXIT,
    stopped = const ADP_STOPPED_APPLICATION_EXIT,
    panicked = const Verdict::Panicked as u64,
);
