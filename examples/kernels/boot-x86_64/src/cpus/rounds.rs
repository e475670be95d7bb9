//! Rounds of interrupts, for a grace period: every other CPU takes one and says so.

use super::{Interrupt, OWN, interrupt, own, this_cpu};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use mm_core::readers::Interrupts;
use x86_64::instructions::interrupts;

/// The number of the newest round.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// Called at the interrupt of a round.
pub(super) fn acknowledge() {
    if let Some(own) = own(this_cpu()) {
        let newest = NEWEST.load(Ordering::SeqCst);
        own.acknowledged.fetch_max(newest, Ordering::Release);
    }
}

/// Interrupts to all CPUs that are started.
#[derive(Clone, Copy, Debug)]
pub struct Rounds(pub(super) ());

// SAFETY: 1: guards are counted for each CPU, which work does not leave; IF is clear as long as there is one, and no NMI is
// used. 2: an acknowledgement of the round is stored by the handler of its interrupt, which is sent after the round's number
// is stored; each CPU that has started is asked. The acknowledgement is released and acquired, and so is the number. 3: it
// panics.
unsafe impl Interrupts for Rounds {
    fn disable(&self) {
        let were_enabled = interrupts::are_enabled();
        interrupts::disable();
        if let Some(own) = own(this_cpu())
            && own.guards.fetch_add(1, Ordering::Relaxed) == 0
        {
            own.were_enabled.store(were_enabled, Ordering::Relaxed);
        }
    }

    unsafe fn enable(&self) {
        if let Some(own) = own(this_cpu())
            && own.guards.fetch_sub(1, Ordering::Relaxed) == 1
            && own.were_enabled.load(Ordering::Relaxed)
        {
            interrupts::enable();
        }
    }

    fn interrupt_all(&self) {
        let round = NEWEST.fetch_add(1, Ordering::SeqCst) + 1;
        // The APIC's registers are uncached memory, which is written behind all stores before.
        fence(Ordering::SeqCst);
        let this = this_cpu();
        let guards = own(this).map_or(0, |own| own.guards.load(Ordering::Relaxed));
        assert_eq!(guards, 0, "a reader waits for itself");
        let others = || {
            let all = OWN.iter().enumerate();
            all.filter(|(number, own)| *number != this && own.is_started.load(Ordering::Acquire))
        };
        others().for_each(|(number, _)| interrupt(number, Interrupt::Round));
        for (_, own) in others() {
            while own.acknowledged.load(Ordering::Acquire) < round {
                spin_loop();
            }
        }
    }
}
