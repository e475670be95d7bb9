//! Starting the other CPUs, one after the other (Arm, *Power State Coordination Interface*, CPU_ON).
//!
//! A CPU starts with the MMU off, and so without caches. What it reads then is cleaned to memory before.

use super::gic::{Gic, NoRedistributor, affinity_of};
use super::{AFFINITIES, Arm};
use crate::processors::{Conduit, Processors};
use arch_aarch64::Cpu;
use core::arch::{asm, global_asm};
use core::fmt;
use core::hint::spin_loop;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};
use experiment::{Cpus, MOST_CPUS, Processor, has_started, idle, is_started};
use mm_core::addr::Granule;
use smccc::{Hvc, Smc, psci};
use spin::Once;

global_asm!(
    r#"
    .pushsection .text.boot, "ax", @progbits
    .globl cpu_start
cpu_start:                              // X0 = its `Handed`
    msr daifset, #0xf
    mov x20, x0
    ldp x1, x2, [x20]
    ldp x3, x4, [x20, #16]
    ldp x5, x6, [x20, #32]
    msr tcr_el1, x1
    msr mair_el1, x2
    msr ttbr0_el1, x3
    msr ttbr1_el1, x4
    msr vbar_el1, x5
    tlbi vmalle1
    dsb nsh
    isb
    msr sctlr_el1, x6
    isb
    ldp x1, x2, [x20, #48]
    ldp x3, x4, [x20, #64]
    msr cpacr_el1, x1
    isb
    msr tpidr_el1, x2
    msr spsel, #1
    mov sp, x4
    msr spsel, #0
    mov sp, x3
    mov x29, xzr
    mov x30, xzr
    bl {enter}
    .popsection
    "#,
    enter = sym enter,
);

unsafe extern "C" {
    static cpu_start: u8;
    static __stack_start: u8;
    static __stack_end: u8;
    static __exception_stack_start: u8;
    static __exception_stack_end: u8;
    static __stacks_stride: u8;
}

const _: () = assert!(MOST_CPUS == 16, "kernel.ld has as many stacks");

/// Where the two stacks of CPU `number` start and end: its own, and that of its exceptions. Nothing is mapped in front of either.
pub fn stacks_of(number: usize) -> [(u64, u64); 2] {
    let offset = number as u64 * addr_of!(__stacks_stride) as u64;
    let of_first = [
        (addr_of!(__stack_start), addr_of!(__stack_end)),
        (
            addr_of!(__exception_stack_start),
            addr_of!(__exception_stack_end),
        ),
    ];
    of_first.map(|(start, end)| (start as u64 + offset, end as u64 + offset))
}

/// What a CPU that starts is handed: TCR, MAIR, TTBR0, TTBR1, VBAR, SCTLR and CPACR of EL1 of the first one; its number, and its stacks.
const HANDED: usize = 10;

/// A line of the smallest data cache there may be (CTR_EL0.DminLine).
const LEAST_LINE: usize = 16;

#[repr(align(128))]
struct Handed([AtomicU64; HANDED]);

static NEXT: Handed = Handed([const { AtomicU64::new(0) }; HANDED]);

/// What all of them find: the controller, and the granule of the upper half.
static COMMON: Once<(Gic, Granule)> = Once::new();

/// For how many seconds a CPU is waited for.
const PATIENCE: u64 = 5;

/// Why not all CPUs could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// Firmware refuses.
    Refused { affinity: u64, why: psci::Error },
    /// A CPU has not started within a time in which it should have.
    Late { affinity: u64 },
    /// It cannot be interrupted.
    Controller(NoRedistributor),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { affinity, why } => {
                write!(
                    f,
                    "firmware does not start the CPU with affinity {affinity:#x}: {why}"
                )
            }
            Self::Late { affinity } => {
                write!(f, "the CPU with affinity {affinity:#x} does not start")
            }
            Self::Controller(error) => error.fmt(f),
        }
    }
}

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reads a register, at EL1.
        unsafe {
            asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}

/// Starts all CPUs but this one, which takes interrupts from now on too.
///
/// # Errors
///
/// [`NotStarted`]: the first that has not.
///
/// # Safety
///
/// 1. Called once, on the first CPU, on the kernel's tables, with pages of `granule` in the upper half.
/// 2. They map the image and the stacks of all CPUs where they are, and so the controller's registers, as device memory.
/// 3. The processors are the machine's.
/// 4. From now on what other CPUs may see is guarded against them.
pub unsafe fn start(processors: &Processors, granule: Granule) -> Result<Cpus<Arm>, NotStarted> {
    let this = affinity_of(read!("mpidr_el1"));
    // SAFETY: 1: duties 2 and 3.
    let gic = unsafe { Gic::new(processors.gic) };
    COMMON.call_once(|| (gic, granule));
    gic.initialise();
    gic.join(this).map_err(NotStarted::Controller)?;
    let all = processors.affinities().iter().copied();
    let others = all.filter(|affinity| *affinity != this).take(MOST_CPUS - 1);
    for (place, affinity) in AFFINITIES
        .iter()
        .zip([this].into_iter().chain(others.clone()))
    {
        place.store(affinity, Ordering::Relaxed);
    }
    has_started(0);
    let mut count = 0;
    for affinity in others {
        start_one(count + 1, affinity, processors.conduit)?;
        count += 1;
    }
    Arm::unmask();
    // SAFETY: 1: called once, on CPU 0 (duty 1). So many have said that they have started, in `idle`.
    Ok(unsafe { Cpus::new(count) })
}

fn start_one(number: usize, affinity: u64, conduit: Conduit) -> Result<(), NotStarted> {
    let [(_, stack), (_, exception_stack)] = stacks_of(number);
    let handed: [u64; HANDED] = [
        read!("tcr_el1"),
        read!("mair_el1"),
        read!("ttbr0_el1"),
        read!("ttbr1_el1"),
        read!("vbar_el1"),
        read!("sctlr_el1"),
        read!("cpacr_el1"),
        number as u64,
        stack,
        exception_stack,
    ];
    for (place, word) in NEXT.0.iter().zip(handed) {
        place.store(word, Ordering::Relaxed);
    }
    let (start, bytes) = (addr_of!(NEXT) as u64, size_of::<Handed>() as u64);
    for line in (start..start + bytes).step_by(LEAST_LINE) {
        // SAFETY: an address that is mapped; memory says what the cache said.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    // The image is where it is mapped.
    let entry = addr_of!(cpu_start) as u64;
    let called = match conduit {
        Conduit::Hvc => psci::cpu_on::<Hvc>(affinity, entry, start),
        Conduit::Smc => psci::cpu_on::<Smc>(affinity, entry, start),
    };
    called.map_err(|why| NotStarted::Refused { affinity, why })?;
    let patience = PATIENCE * read!("cntfrq_el0");
    let begin = read!("cntvct_el0");
    while !is_started(number) {
        if read!("cntvct_el0").wrapping_sub(begin) > patience {
            return Err(NotStarted::Late { affinity });
        }
        spin_loop();
    }
    Ok(())
}

/// Called on a CPU that starts, on its stack and on the kernel's tables, with interrupts masked.
extern "C" fn enter() -> ! {
    let number = Arm::this_cpu();
    let Some(&(gic, granule)) = COMMON.get() else {
        panic!("CPU {number} was started by nobody");
    };
    // SAFETY: 1: this is EL1. 2: the CPUs of the virtual machine are in one domain.
    if let Err(error) = unsafe { Cpu::new() }.check(granule) {
        panic!("CPU {number}: {error}");
    }
    if let Err(error) = gic.join(affinity_of(read!("mpidr_el1"))) {
        panic!("CPU {number}: {error}");
    }
    idle::<Arm>()
}
