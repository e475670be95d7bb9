//! The other CPUs: started, and interrupted. What they do then is `experiment`'s: rounds of interrupts, and work.
//!
//! ```text
//!   start: PSCI CPU_ON ▶ MMU off ▶ the registers of CPU 0, the kernel's tables ▶ its part of the GIC ▶ idle
//! ```
//!
//! Each CPU has a number, from 0 for the first one on, in TPIDR_EL1, which nothing else uses. Interrupts are for grace periods, for work,
//! and for the quiesce hook. None is needed to flush: TLBI with IS is broadcast.

mod gic;
mod start;

pub use gic::GicRegisters;
pub use start::{stacks_of, start};

use crate::probe::Instructions;
use crate::quiesce;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use experiment::{Accesses, FaultKind, MOST_CPUS, Processor, Signal, signalled};

/// The CPUs of this architecture.
#[derive(Debug)]
pub enum Arm {}

/// Why a CPU interrupts another one; the number of the software-generated interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Interrupt {
    /// A grace period: that the interrupt is taken is all.
    Round = 0,
    /// There is work, or what was waited for.
    Wake = 1,
    /// Entries in use are exchanged: it does nothing until that is over.
    Stop = 2,
}

impl Interrupt {
    const ALL: [Self; 3] = [Self::Round, Self::Wake, Self::Stop];
}

/// The affinity of each CPU, as in MPIDR_EL1.
static AFFINITIES: [AtomicU64; MOST_CPUS] = [const { AtomicU64::new(0) }; MOST_CPUS];

/// PSTATE.I, as in DAIF.
const INTERRUPTS_MASKED: u64 = 1 << 7;

// SAFETY: 1: `start` gives each CPU a number of its own, and the boot code the first one. 2: PSTATE.I is set; FIQs are not used. 3: the
// numbers of both lead to `signalled`, and `gic::send` is behind a barrier.
unsafe impl Processor for Arm {
    fn this_cpu() -> usize {
        let number: u64;
        // SAFETY: reads a register, at EL1.
        unsafe {
            asm!("mrs {}, tpidr_el1", out(reg) number, options(nomem, nostack, preserves_flags))
        };
        number as usize
    }

    fn mask() -> bool {
        let before: u64;
        // SAFETY: at EL1, PSTATE.DAIF may be read and set.
        unsafe {
            asm!("mrs {}, daif", "msr daifset, #2", out(reg) before, options(nostack, preserves_flags))
        };
        before & INTERRUPTS_MASKED == 0
    }

    fn unmask() {
        // SAFETY: as for `mask`; the vectors are installed.
        unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
    }

    fn sleep() {
        wait_for_interrupt();
        Self::unmask();
        // SAFETY: a barrier: what is pending is taken before the next instruction.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }

    fn interrupt(number: usize, why: Signal) {
        interrupt(
            number,
            match why {
                Signal::Round => Interrupt::Round,
                Signal::Wake => Interrupt::Wake,
            },
        );
    }

    fn kind(code: u64) -> FaultKind {
        Instructions::kind(code)
    }
}

/// Waits until an interrupt is pending, masked or not.
pub fn wait_for_interrupt() {
    // SAFETY: has no effect but time.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// Interrupts CPU `number`, which was started.
pub fn interrupt(number: usize, why: Interrupt) {
    if let Some(affinity) = AFFINITIES.get(number) {
        gic::send(affinity.load(Ordering::Relaxed), why as u8);
    }
}

/// Called at an interrupt, with interrupts masked.
pub fn interrupted() {
    let Some(interrupt) = gic::acknowledge() else {
        return;
    };
    // Nothing comes in between, since interrupts are masked. Whoever waits in the handler waits for another one.
    gic::end(interrupt);
    let why = Interrupt::ALL.into_iter();
    match why.into_iter().find(|why| *why as u32 == interrupt) {
        Some(Interrupt::Round) => signalled::<Arm>(Signal::Round),
        Some(Interrupt::Wake) => signalled::<Arm>(Signal::Wake),
        Some(Interrupt::Stop) => quiesce::stop_here(),
        None => panic!("interrupt {interrupt}, which nobody sends"),
    }
}
