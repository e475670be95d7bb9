//! Work of the other CPUs.

use super::{Processor, Rounds, Signal, has_started, own, sleep_until};
use crate::Fault;
use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use mm_core::addr::VirtAddr;

/// A kernel's CPUs besides the one that this runs on.
///
/// # Safety
///
/// 1. `run_beside` calls `work` once on each of them, with the numbers from 0 to `count` less one, and
///    does not return before each call has: by itself, or given up at a fault, and then nothing of it
///    is done any more.
pub unsafe trait OtherCpus: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Whether the caller is one of them.
    fn is_other(&self) -> bool;

    /// Has all of them do `work`, and does `here` on this CPU meanwhile. What they do ends when `here`
    /// has told them, so it waits for them after that. There is one call at a time.
    fn run_beside(&self, work: &(dyn Fn(usize) + Sync), here: &mut dyn FnMut());

    /// The fault at which the work of CPU `number` was given up, if it was.
    fn fault(&self, number: usize) -> Option<Fault>;

    /// Called by `work`: the CPU does nothing until it is woken, or asked whether it reads by a round of
    /// interrupts, or `is_over`.
    fn rest(&self, is_over: &dyn Fn() -> bool);

    /// Called by `here`: wakes all that rest. Who asks `is_over` afterwards sees what was stored before.
    fn wake(&self);
}

/// Something that each CPU does, with its number among the others.
type Work<'w> = &'w (dyn Fn(usize) + Sync);

/// What is to be done, on the stack of `run_beside`. CPUs look there while they have work.
static WORK: AtomicPtr<Work<'static>> = AtomicPtr::new(ptr::null_mut());

/// Waits for work and does it, for good. Called on another CPU than the first one when that has set it up,
/// and where it goes on whose work was given up, on an empty stack.
pub extern "C" fn idle<P: Processor>() -> ! {
    let number = P::this_cpu();
    has_started(number);
    let Some(own) = own(number) else {
        // It has no number: nothing can be asked of it.
        loop {
            P::mask();
            P::sleep();
        }
    };
    loop {
        sleep_until::<P>(|| own.has_work.load(Ordering::Acquire));
        P::unmask();
        // SAFETY: it lies there as long as a CPU has work, which `run_beside` waits for.
        if let Some(work) = unsafe { WORK.load(Ordering::Acquire).as_ref() } {
            work(number - 1);
        }
        done::<P>(number);
    }
}

/// CPU `number` has no work any more. The first one may wait for that.
fn done<P: Processor>(number: usize) {
    if let Some(own) = own(number) {
        own.has_work.store(false, Ordering::Release);
        P::interrupt(0, Signal::Wake);
    }
}

/// Called at a fault by the instruction at `pc`, at `address` and with the hardware's `code`: notes and prints
/// it where it is one of a CPU that works beside the first one, and says whether it was. Then that CPU goes
/// on in [`idle`].
pub fn give_up<P: Processor>(
    (pc, address, code): (u64, u64, u64),
    console: &mut dyn fmt::Write,
) -> bool {
    let number = P::this_cpu();
    let own = own(number).filter(|own| number != 0 && own.has_work.load(Ordering::Relaxed));
    let Some(own) = own else {
        return false;
    };
    let _ = writeln!(
        console,
        "  CPU {number}: fault at {address:#x}, code {code:#x}, by {pc:#x}"
    );
    own.fault_address.store(address, Ordering::Relaxed);
    own.fault_code.store(code, Ordering::Relaxed);
    own.has_faulted.store(true, Ordering::Release);
    // Its guards are never dropped.
    own.guards.store(0, Ordering::Relaxed);
    done::<P>(number);
    true
}

/// The CPUs that were started, beside the first one.
pub struct Cpus<P> {
    others: usize,
    processor: PhantomData<fn() -> P>,
}

impl<P> fmt::Debug for Cpus<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpus({})", self.others)
    }
}

impl<P: Processor> Cpus<P> {
    /// The CPUs with the numbers from 1 to `others`.
    ///
    /// # Safety
    ///
    /// 1. Made once, on CPU 0, which has started, and used there. Each of the others is in [`idle`].
    pub const unsafe fn new(others: usize) -> Self {
        Self {
            others,
            processor: PhantomData,
        }
    }

    /// Rounds of interrupts to all of them.
    pub const fn rounds(&self) -> Rounds<P> {
        Rounds::new()
    }
}

// SAFETY: 1: the work of a CPU is over when it says so itself, or when it goes on elsewhere, on an empty stack; it is waited
// for, and a second call meanwhile panics.
unsafe impl<P: Processor> OtherCpus for Cpus<P> {
    fn count(&self) -> usize {
        self.others
    }

    fn is_other(&self) -> bool {
        P::this_cpu() != 0
    }

    fn run_beside(&self, work: Work<'_>, here: &mut dyn FnMut()) {
        // SAFETY: only the lifetime changes. Nobody has it any more when this function returns.
        let work = unsafe { mem::transmute::<Work<'_>, Work<'static>>(work) };
        let before = WORK.swap((&raw const work).cast_mut(), Ordering::AcqRel);
        assert!(before.is_null(), "the other CPUs have work");
        let others = || (1..=self.others).filter_map(|number| Some((number, own(number)?)));
        for (number, own) in others() {
            own.has_faulted.store(false, Ordering::Relaxed);
            own.has_work.store(true, Ordering::Release);
            P::interrupt(number, Signal::Wake);
        }
        here();
        let is_over = || others().all(|(_, own)| !own.has_work.load(Ordering::Acquire));
        sleep_until::<P>(is_over);
        WORK.store(ptr::null_mut(), Ordering::Release);
    }

    fn fault(&self, number: usize) -> Option<Fault> {
        let own = own(number + 1).filter(|own| own.has_faulted.load(Ordering::Acquire))?;
        Some(Fault {
            at: VirtAddr::new(own.fault_address.load(Ordering::Relaxed)),
            kind: P::kind(own.fault_code.load(Ordering::Relaxed)),
        })
    }

    fn rest(&self, is_over: &dyn Fn() -> bool) {
        let signals = || own(P::this_cpu()).map(|own| own.signals.load(Ordering::Relaxed));
        let before = signals();
        // Other interrupts do not count.
        sleep_until::<P>(|| is_over() || signals() != before);
    }

    fn wake(&self) {
        (1..=self.others).for_each(|number| P::interrupt(number, Signal::Wake));
    }
}
