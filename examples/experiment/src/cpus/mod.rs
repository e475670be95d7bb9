//! A kernel's CPUs: rounds of interrupts to all of them, and work for the others.
//!
//! ```text
//!   this CPU                                  each other CPU
//!   Rounds::interrupt_all ▶ Signal::Round ──▶ acknowledged, when its interrupts are on ▶ the last one: Signal::Wake
//!   Cpus::run_beside: work ▶ Signal::Wake ──▶ idle ▶ work ▶ done, or given up at a fault ▶ idle
//!   OtherCpus::wake ▶ Signal::Wake ─────────▶ rest is over
//! ```
//!
//! What differs between architectures is a [`Processor`]; a kernel starts its CPUs itself. Whoever waits
//! sleeps, and is interrupted: a virtual machine's CPUs share those of their host, so one that spins takes
//! the time of those that it waits for.

mod rounds;
mod work;

pub use rounds::Rounds;
pub use work::{Cpus, OtherCpus, give_up, idle};

use crate::FaultKind;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How many CPUs there is room for.
pub const MOST_CPUS: usize = 16;

/// Why a CPU interrupts another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A grace period: it says that it has taken the interrupt.
    Round,
    /// To look again at what it waits for.
    Wake,
}

/// What an architecture has for that.
///
/// # Safety
///
/// 1. `this_cpu` is the number of the CPU that it runs on: 0 for the first one, and for each other its own
///    below [`MOST_CPUS`].
/// 2. After `mask` this CPU takes no interrupt until `unmask` or `sleep`.
/// 3. After `interrupt`, the CPU calls [`signalled`] once its interrupts are on, with interrupts masked.
///    What was stored before `interrupt` is visible to it then.
pub unsafe trait Processor: 'static {
    /// The number of this CPU.
    fn this_cpu() -> usize;

    /// Masks interrupts. Says whether they were on.
    fn mask() -> bool;

    /// Takes interrupts again.
    fn unmask();

    /// Waits for an interrupt, takes it, and goes on with interrupts on. Called with interrupts masked: one
    /// that has come since is not waited for.
    fn sleep();

    /// Interrupts another CPU that has started.
    fn interrupt(number: usize, why: Signal);

    /// What the hardware's code of a fault means.
    fn kind(code: u64) -> FaultKind;
}

/// What is known of a CPU. Each has cache lines of its own.
#[repr(align(128))]
struct Own {
    is_started: AtomicBool,
    /// Whether it has work that it has not done.
    has_work: AtomicBool,
    /// The newest round of interrupts that it has acknowledged, and the one that it waits for, or 0.
    acknowledged: AtomicU64,
    awaited: AtomicU64,
    /// How many signals it has taken.
    signals: AtomicU64,
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
        is_started: AtomicBool::new(false),
        has_work: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        awaited: AtomicU64::new(0),
        signals: AtomicU64::new(0),
        guards: AtomicU32::new(0),
        were_enabled: AtomicBool::new(false),
        has_faulted: AtomicBool::new(false),
        fault_address: AtomicU64::new(0),
        fault_code: AtomicU64::new(0),
    }
}; MOST_CPUS];

fn own(number: usize) -> Option<&'static Own> {
    OWN.get(number)
}

/// CPU `number` takes interrupts from now on, as soon as they are on.
pub fn has_started(number: usize) {
    if let Some(own) = own(number) {
        own.is_started.store(true, Ordering::Release);
    }
}

/// Whether CPU `number` has started.
pub fn is_started(number: usize) -> bool {
    own(number).is_some_and(|own| own.is_started.load(Ordering::Acquire))
}

/// The CPUs that have started, but for `number`.
pub fn others_than(number: usize) -> impl Iterator<Item = usize> + Clone {
    (0..MOST_CPUS).filter(move |&other| other != number && is_started(other))
}

/// Called at an interrupt, with interrupts masked.
pub fn signalled<P: Processor>(why: Signal) {
    if let Some(own) = own(P::this_cpu()) {
        own.signals.fetch_add(1, Ordering::Relaxed);
    }
    match why {
        Signal::Round => rounds::acknowledge::<P>(),
        Signal::Wake => {}
    }
}

/// Waits until `is_over`, which is asked again after each interrupt.
fn sleep_until<P: Processor>(is_over: impl Fn() -> bool) {
    loop {
        let were_enabled = P::mask();
        // Who changes what this depends on interrupts afterwards, so the interrupt comes behind the question.
        if is_over() {
            if were_enabled {
                P::unmask();
            }
            return;
        }
        P::sleep();
    }
}
