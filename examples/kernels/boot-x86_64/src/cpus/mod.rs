//! The other CPUs: started, and interrupted. What they do then is `experiment`'s: rounds of interrupts, and work.
//!
//! ```text
//!   Trampoline ▶ start: INIT, SIPI ▶ real mode ▶ boot's 32-bit code, the same CR4 ▶ the kernel's tables ▶ idle
//! ```
//!
//! Each CPU has a number, from 0 for the first one on, in the base of its segment GS, which nothing else uses.

mod apic;
mod delay;
mod start;
mod trampoline;

pub use apic::LOCAL_APIC;
pub use start::{NotStarted, Processors, StartSetting, stack_of, start};
pub use trampoline::Trampoline;

use crate::probe::Instructions;
use apic::{Command, LocalApic};
use core::sync::atomic::{AtomicU8, Ordering, fence};
use experiment::{Accesses, FaultKind, MOST_CPUS, Processor, Signal, signalled};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::model_specific::GsBase;

/// The CPUs of this architecture.
#[derive(Debug)]
pub enum X86 {}

/// Why a CPU interrupts another one; the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Interrupt {
    /// It has to forget translations.
    Flush = 0xf0,
    /// A grace period: that the interrupt is taken is all.
    Round = 0xf1,
    /// There is work, or what was waited for.
    Wake = 0xf2,
    /// By the APIC, for an interrupt that is none.
    Spurious = 0xff,
}

impl Interrupt {
    /// All, in the order of the stubs.
    pub(crate) const ALL: [Self; 4] = [Self::Flush, Self::Round, Self::Wake, Self::Spurious];
}

/// The number of each CPU's local APIC.
static APICS: [AtomicU8; MOST_CPUS] = [const { AtomicU8::new(0) }; MOST_CPUS];

/// What a CPU does that has to forget translations.
static ON_FLUSH: Once<fn()> = Once::new();

// SAFETY: 1: `start` gives each CPU a number of its own. 2: IF is clear. 3: the vectors of both lead to `signalled`; the APIC's
// registers are uncached memory, which is written behind all stores before.
unsafe impl Processor for X86 {
    fn this_cpu() -> usize {
        GsBase::read().as_u64() as usize
    }

    fn mask() -> bool {
        let were_enabled = interrupts::are_enabled();
        interrupts::disable();
        were_enabled
    }

    fn unmask() {
        interrupts::enable();
    }

    fn sleep() {
        interrupts::enable_and_hlt();
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

fn set_this_cpu(number: usize) {
    GsBase::write(VirtAddr::new(number as u64));
}

/// The local APIC. Used only where the kernel's tables are in use.
const fn local_apic() -> LocalApic {
    // SAFETY: 1: `start` asks for that, and nothing here is done before.
    unsafe { LocalApic::new() }
}

/// Interrupts CPU `number`, which was started.
pub fn interrupt(number: usize, why: Interrupt) {
    if let Some(apic) = APICS.get(number) {
        fence(Ordering::SeqCst);
        let apic = apic.load(Ordering::Relaxed);
        interrupts::without_interrupts(|| local_apic().send(apic, Command::Fixed(why as u8)));
    }
}

/// Called at an interrupt, with interrupts off.
pub(crate) fn interrupted(vector: u64) {
    let is = |interrupt| vector == interrupt as u64;
    if is(Interrupt::Spurious) {
        return;
    }
    if is(Interrupt::Flush)
        && let Some(flush) = ON_FLUSH.get()
    {
        flush();
    }
    if is(Interrupt::Round) {
        signalled::<X86>(Signal::Round);
    }
    if is(Interrupt::Wake) {
        signalled::<X86>(Signal::Wake);
    }
    local_apic().end_of_interrupt();
}
