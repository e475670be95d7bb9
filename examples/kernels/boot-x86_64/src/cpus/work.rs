//! Work of the other CPUs.

use super::start::stack_of;
use super::{Cpus, Interrupt, interrupt, own, this_cpu};
use crate::probe::Instructions;
use core::hint::spin_loop;
use core::mem;
use core::sync::atomic::Ordering;
use experiment::{Accesses, Fault, OtherCpus};
use mm_core::addr::VirtAddr;
use spin::Mutex;
use x86_64::instructions::interrupts;

/// Something that each CPU does, with its number among the others.
type Work<'w> = &'w (dyn Fn(usize) + Sync);

/// What is to be done. CPUs take it while they have work.
static WORK: Mutex<Option<Work<'static>>> = Mutex::new(None);

/// Where a CPU goes on whose work was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) entry: u64,
    pub(crate) stack: u64,
}

/// Waits for work and does it, for good.
pub(super) extern "C" fn idle() -> ! {
    let number = this_cpu();
    loop {
        interrupts::disable();
        let has_work = own(number).is_some_and(|own| own.has_work.load(Ordering::Acquire));
        if !has_work {
            interrupts::enable_and_hlt();
            continue;
        }
        let work = *WORK.lock();
        interrupts::enable();
        if let Some(work) = work {
            work(number - 1);
        }
        done(number);
    }
}

fn done(number: usize) {
    if let Some(own) = own(number) {
        own.has_work.store(false, Ordering::Release);
    }
}

/// Called at a page fault at `rip`: notes it where it is one of a CPU that works beside the first one, and says where that goes on.
pub(crate) fn give_up(rip: u64, address: u64, code: u64) -> Option<Idle> {
    let number = this_cpu();
    let own = own(number).filter(|own| number != 0 && own.has_work.load(Ordering::Relaxed))?;
    crate::println!("  CPU {number}: page fault at {address:#x}, code {code:#x}, by {rip:#x}");
    own.fault_address.store(address, Ordering::Relaxed);
    own.fault_code.store(code, Ordering::Relaxed);
    own.has_faulted.store(true, Ordering::Release);
    // Its guards are never dropped.
    own.guards.store(0, Ordering::Relaxed);
    done(number);
    Some(Idle {
        entry: idle as *const () as u64,
        // As behind a call.
        stack: stack_of(number).1 - 8,
    })
}

// SAFETY: 1: the work of a CPU is over when it says so itself, or when it goes on elsewhere, on an empty stack; it is waited for.
unsafe impl OtherCpus for Cpus {
    fn count(&self) -> usize {
        self.others
    }

    fn run_beside(&self, work: Work<'_>, here: &mut dyn FnMut()) {
        // SAFETY: only the lifetime changes. Nobody has it any more when this function returns.
        let work = unsafe { mem::transmute::<Work<'_>, Work<'static>>(work) };
        *WORK.lock() = Some(work);
        let others = || (1..=self.others).filter_map(|number| Some((number, own(number)?)));
        for (number, own) in others() {
            own.has_faulted.store(false, Ordering::Relaxed);
            own.has_work.store(true, Ordering::Release);
            interrupt(number, Interrupt::Wake);
        }
        here();
        for (_, own) in others() {
            while own.has_work.load(Ordering::Acquire) {
                spin_loop();
            }
        }
        *WORK.lock() = None;
    }

    fn fault(&self, number: usize) -> Option<Fault> {
        let own = own(number + 1).filter(|own| own.has_faulted.load(Ordering::Acquire))?;
        Some(Fault {
            at: VirtAddr::new(own.fault_address.load(Ordering::Relaxed)),
            kind: Instructions::kind(own.fault_code.load(Ordering::Relaxed)),
        })
    }
}
