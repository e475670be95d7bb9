//! The other harts: started, and interrupted. What they do then is `experiment`'s: rounds of interrupts, and work.
//!
//! ```text
//!   start: SBI hart_start ▶ satp = 0 ▶ the kernel's tables, its stacks ▶ interrupts by software ▶ idle
//! ```
//!
//! Interrupts are for grace periods and for work. Why there is one is in memory, since a software interrupt says nothing. None is needed to fence:
//! firmware has other harts do that.

use crate::boot::FLOATING_POINT;
use crate::firmware::Harts;
use crate::probe::Instructions;
use crate::sbi::{self, Refused};
use arch_riscv64::{Hart, Registers};
use core::arch::{asm, global_asm};
use core::fmt;
use core::hint::spin_loop;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use experiment::{
    Accesses, Cpus, FaultKind, MOST_CPUS, Processor, Signal, has_started, idle, is_started,
    signalled,
};

/// The harts of this architecture.
#[derive(Debug)]
pub enum RiscV {}

/// By which number firmware knows each hart.
static IDS: [AtomicU64; MOST_CPUS] = [const { AtomicU64::new(0) }; MOST_CPUS];

/// Why each was interrupted: a bit for each reason.
static REASONS: [AtomicU8; MOST_CPUS] = [const { AtomicU8::new(0) }; MOST_CPUS];

const fn reason(why: Signal) -> u8 {
    match why {
        Signal::Round => 1,
        Signal::Wake => 2,
    }
}

/// sstatus.SIE.
const INTERRUPTS_ON: u64 = 1 << 1;

// SAFETY: 1: `start` gives each hart a number of its own, and the boot code the first one. 2: sstatus.SIE is clear. 3: the reason is stored before
// the interrupt, which is behind a fence, and taken after that is no longer pending; each leads to `signalled`.
unsafe impl Processor for RiscV {
    fn this_cpu() -> usize {
        let number: usize;
        // SAFETY: reads a register.
        unsafe { asm!("mv {}, tp", out(reg) number, options(nomem, nostack, preserves_flags)) };
        number
    }

    fn mask() -> bool {
        let before: u64;
        // SAFETY: supervisor mode may clear the bit.
        unsafe {
            asm!("csrrci {}, sstatus, 2", out(reg) before, options(nostack, preserves_flags))
        };
        before & INTERRUPTS_ON != 0
    }

    fn unmask() {
        // SAFETY: as for `mask`; the entry is installed.
        unsafe { asm!("csrsi sstatus, 2", options(nostack, preserves_flags)) };
    }

    fn sleep() {
        // SAFETY: has no effect but time. An interrupt that is pending ends it, masked or not (privileged manual, 3.3.3).
        unsafe { asm!("wfi", options(nostack, preserves_flags)) };
        Self::unmask();
    }

    fn interrupt(number: usize, why: Signal) {
        if let (Some(reasons), Some(id)) = (REASONS.get(number), IDS.get(number)) {
            reasons.fetch_or(reason(why), Ordering::SeqCst);
            sbi::interrupt(id.load(Ordering::Relaxed));
        }
    }

    fn kind(code: u64) -> FaultKind {
        Instructions::kind(code)
    }
}

/// Called at an interrupt, with interrupts masked.
pub fn interrupted() {
    // SAFETY: supervisor mode may clear sip.SSIP. Who interrupts again makes it pending again.
    unsafe { asm!("csrci sip, 2", options(nostack, preserves_flags)) };
    let Some(reasons) = REASONS.get(RiscV::this_cpu()) else {
        return;
    };
    let reasons = reasons.swap(0, Ordering::SeqCst);
    for why in [Signal::Round, Signal::Wake] {
        if reasons & reason(why) != 0 {
            signalled::<RiscV>(why);
        }
    }
}

/// This hart takes software interrupts: sie.SSIE.
fn take_software_interrupts() {
    // SAFETY: supervisor mode may set the bit; the entry is installed.
    unsafe { asm!("csrsi sie, 2", options(nostack, preserves_flags)) };
}

global_asm!(
    r#"
    .pushsection .text.boot, "ax", @progbits
    .globl hart_parked
hart_parked:                        // A0 = its hart, A1 = `HANDED`
    csrci sstatus, 2
    li t0, 2
    csrw sie, t0                    // Ends WFI. It is not taken, for sstatus.SIE is clear.
    addi t1, a0, 1
1:  wfi
    csrci sip, 2
    ld t0, 40(a1)
    bne t0, t1, 1b
    fence r, rw
    csrw sie, zero
    li t0, {floating_point}
    csrc sstatus, t0
    ld t0, 0(a1)
    ld t1, 8(a1)
    ld tp, 16(a1)
    ld sp, 24(a1)
    ld t2, 32(a1)
    csrw stvec, t1
    csrw sscratch, t2
    sfence.vma
    csrw satp, t0
    sfence.vma
    li ra, 0
    li s0, 0
    call {enter}
    .popsection
    "#,
    enter = sym enter,
    floating_point = const FLOATING_POINT,
);

unsafe extern "C" {
    static hart_parked: u8;
    static __stack_start: u8;
    static __stack_end: u8;
    static __exception_stack_start: u8;
    static __exception_stack_end: u8;
    static __next_stack_start: u8;
}

const _: () = assert!(MOST_CPUS == 16, "kernel.ld has as many stacks");

/// Where the two stacks of hart `number` start and end: its own, and that of its exceptions. Nothing is mapped in front of either.
pub fn stacks_of(number: usize) -> [(u64, u64); 2] {
    let stride = addr_of!(__next_stack_start) as u64 - addr_of!(__stack_start) as u64;
    let offset = number as u64 * stride;
    let of_first = [
        (addr_of!(__stack_start), addr_of!(__stack_end)),
        (
            addr_of!(__exception_stack_start),
            addr_of!(__exception_stack_end),
        ),
    ];
    of_first.map(|(start, end)| (start as u64 + offset, end as u64 + offset))
}

/// What a hart that starts is handed: satp and stvec of the first one; its number, and its stacks. Last which one it is for: one more than
/// its number to firmware.
pub static HANDED: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// For how many seconds a hart is waited for.
const PATIENCE: u64 = 5;

/// Why not all harts could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// Firmware refuses.
    Refused { hart: u64, why: Refused },
    /// A hart has not started within a time in which it should have.
    Late { hart: u64 },
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { hart, why } => write!(f, "firmware does not start hart {hart}: {why}"),
            Self::Late { hart } => write!(f, "hart {hart} does not start"),
        }
    }
}

/// Has all harts but this one, which is `this` to firmware, wait to be started. Those that were never started spin under some firmware, and take an
/// emulator's time.
///
/// # Errors
///
/// [`NotStarted`]: the first that firmware refuses.
///
/// # Safety
///
/// 1. Called once, on the first hart. The image is and stays where it is, readable without translation.
/// 2. The harts are the machine's.
pub unsafe fn park(harts: &Harts, this: u64) -> Result<(), NotStarted> {
    let (parked, argument) = (addr_of!(hart_parked) as u64, addr_of!(HANDED) as u64);
    let others = harts.ids().iter().filter(|hart| **hart != this);
    for &hart in others.take(MOST_CPUS - 1) {
        // SAFETY: 1: `hart_parked` is code for that: it has no translation, and touches nothing but `HANDED`.
        let started = unsafe { sbi::start(hart, parked, argument) };
        started.map_err(|why| NotStarted::Refused { hart, why })?;
    }
    Ok(())
}

/// Starts all harts but this one, which is `this` to firmware, and takes interrupts from now on too.
///
/// # Errors
///
/// [`NotStarted`]: the first that has not.
///
/// # Safety
///
/// 1. Called once, on the first hart, on the kernel's tables, which map the image and the stacks of all harts where they are.
/// 2. The harts are the machine's.
/// 3. From now on what other harts may see is guarded against them.
/// 4. They were [parked](park).
pub unsafe fn start(harts: &Harts, this: u64) -> Result<Cpus<RiscV>, NotStarted> {
    let all = harts.ids().iter().copied();
    let others = all.filter(|hart| *hart != this).take(MOST_CPUS - 1);
    for (place, hart) in IDS.iter().zip([this].into_iter().chain(others.clone())) {
        place.store(hart, Ordering::Relaxed);
    }
    take_software_interrupts();
    has_started(0);
    let mut count = 0;
    for hart in others {
        start_one(count + 1, hart, harts.ticks_per_second)?;
        count += 1;
    }
    RiscV::unmask();
    // SAFETY: 1: called once, on CPU 0 (duty 1). So many have said that they have started, in `idle`.
    Ok(unsafe { Cpus::new(count) })
}

/// Starts `hart`, which is parked.
fn start_one(number: usize, hart: u64, ticks_per_second: u64) -> Result<(), NotStarted> {
    let [(_, stack), (_, exception_stack)] = stacks_of(number);
    let entry: u64;
    // SAFETY: reads a register.
    unsafe { asm!("csrr {}, stvec", out(reg) entry, options(nomem, nostack, preserves_flags)) };
    // SAFETY: 1: this is supervisor mode.
    let satp = unsafe { Hart::new() }.satp();
    let handed = [satp, entry, number as u64, stack, exception_stack];
    for (place, word) in HANDED.iter().zip(handed) {
        place.store(word, Ordering::Relaxed);
    }
    if let Some(place) = HANDED.last() {
        place.store(hart + 1, Ordering::Release);
    }
    sbi::interrupt(hart);
    let patience = PATIENCE * ticks_per_second;
    let begin = Instructions::ticks();
    while !is_started(number) {
        if Instructions::ticks().wrapping_sub(begin) > patience {
            return Err(NotStarted::Late { hart });
        }
        spin_loop();
    }
    Ok(())
}

/// Called on a hart that starts, on its stack and on the kernel's tables, with interrupts masked.
extern "C" fn enter() -> ! {
    take_software_interrupts();
    idle::<RiscV>()
}
