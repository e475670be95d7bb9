//! The other CPUs: started, interrupted, and given work.
//!
//! ```text
//!   Trampoline ▶ Cpus::start: INIT, SIPI ▶ real mode ▶ boot's 32-bit code, the same CR4 ▶ the kernel's tables ▶ idle
//!   Cpus::run_beside: work ▶ interrupt ▶ done, or given up at a page fault ▶ idle
//! ```
//!
//! Each CPU has a number, from 0 for the first one on, in the base of its segment GS, which nothing else uses.

mod apic;
mod delay;
mod rounds;
mod start;
mod trampoline;
mod work;

pub use apic::LOCAL_APIC;
pub use rounds::Rounds;
pub use start::{Cpus, NotStarted, Processors, StartSetting, stack_of};
pub use trampoline::Trampoline;
pub(crate) use work::give_up;

use apic::{Command, LocalApic};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::GsBase;

/// How many CPUs there is room for: `kernel.ld` has as many stacks.
pub const MOST_CPUS: usize = 16;

/// Why a CPU interrupts another one; the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Interrupt {
    /// It has to forget translations.
    Flush = 0xf0,
    /// A grace period: that the interrupt is taken is all.
    Round = 0xf1,
    /// There is work.
    Wake = 0xf2,
    /// By the APIC, for an interrupt that is none.
    Spurious = 0xff,
}

impl Interrupt {
    /// All, in the order of the stubs.
    pub(crate) const ALL: [Self; 4] = [Self::Flush, Self::Round, Self::Wake, Self::Spurious];
}

/// What is known of a CPU. Each has cache lines of its own.
#[repr(align(128))]
struct Own {
    /// The number of its local APIC.
    apic: AtomicU8,
    /// Whether it has started.
    is_started: AtomicBool,
    /// Whether it has work that it has not done.
    has_work: AtomicBool,
    /// The newest round of interrupts that it has acknowledged.
    acknowledged: AtomicU64,
    /// How many guards of the grace period it holds, and whether it took interrupts before the first.
    guards: AtomicU32,
    were_enabled: AtomicBool,
    /// The fault at which its work was given up, if `has_faulted`.
    has_faulted: AtomicBool,
    fault_address: AtomicU64,
    fault_code: AtomicU64,
}

static OWN: [Own; MOST_CPUS] = [const {
    Own {
        apic: AtomicU8::new(0),
        is_started: AtomicBool::new(false),
        has_work: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        guards: AtomicU32::new(0),
        were_enabled: AtomicBool::new(false),
        has_faulted: AtomicBool::new(false),
        fault_address: AtomicU64::new(0),
        fault_code: AtomicU64::new(0),
    }
}; MOST_CPUS];

/// What a CPU does that has to forget translations.
static ON_FLUSH: Once<fn()> = Once::new();

/// The number of the CPU that this runs on.
pub fn this_cpu() -> usize {
    GsBase::read().as_u64() as usize
}

fn set_this_cpu(number: usize) {
    GsBase::write(VirtAddr::new(number as u64));
}

fn own(number: usize) -> Option<&'static Own> {
    OWN.get(number)
}

/// The local APIC. Used only where the kernel's tables are in use.
const fn local_apic() -> LocalApic {
    // SAFETY: 1: `Cpus::start` asks for that, and nothing here is done before.
    unsafe { LocalApic::new() }
}

/// Interrupts CPU `number`, which was started.
pub fn interrupt(number: usize, why: Interrupt) {
    if let Some(own) = own(number) {
        let apic = own.apic.load(core::sync::atomic::Ordering::Relaxed);
        without_interrupts(|| local_apic().send(apic, Command::Fixed(why as u8)));
    }
}

/// Called at an interrupt, with interrupts off.
pub(crate) fn interrupted(vector: u64) {
    if vector == Interrupt::Spurious as u64 {
        return;
    }
    if vector == Interrupt::Flush as u64
        && let Some(flush) = ON_FLUSH.get()
    {
        flush();
    }
    if vector == Interrupt::Round as u64 {
        rounds::acknowledge();
    }
    local_apic().end_of_interrupt();
}
