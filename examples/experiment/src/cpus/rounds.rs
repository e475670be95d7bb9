//! Rounds of interrupts, for a grace period: every other CPU takes one and says so.

use super::{Processor, Signal, others_than, own, sleep_until};
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::readers::Interrupts;

/// The number of the newest round.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// Whether all CPUs but `number` have acknowledged `round`.
fn is_complete(number: usize, round: u64) -> bool {
    let mut others = others_than(number).filter_map(own);
    others.all(|own| own.acknowledged.load(Ordering::SeqCst) >= round)
}

/// Called at the interrupt of a round. The last CPU wakes the one that waits.
pub(super) fn acknowledge<P: Processor>() {
    let this = P::this_cpu();
    if let Some(own) = own(this) {
        let newest = NEWEST.load(Ordering::SeqCst);
        own.acknowledged.fetch_max(newest, Ordering::SeqCst);
    }
    for number in others_than(this) {
        // Of those that acknowledge at the same time, one at least sees what all have stored.
        let awaited = own(number).map_or(0, |own| own.awaited.load(Ordering::SeqCst));
        if awaited != 0 && is_complete(number, awaited) {
            P::interrupt(number, Signal::Wake);
        }
    }
}

/// Interrupts to all CPUs that are started.
pub struct Rounds<P>(PhantomData<fn() -> P>);

impl<P> Rounds<P> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P> fmt::Debug for Rounds<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rounds")
    }
}

// SAFETY: 1: guards are counted for each CPU, which work does not leave; interrupts are masked as long as there is one, and
// others than these are not used. 2: an acknowledgement of the round is stored by the handler of its interrupt, which is sent
// after the round's number is stored; each CPU that has started is asked. The acknowledgement is released and acquired, and so
// is the number. 3: it panics.
unsafe impl<P: Processor> Interrupts for Rounds<P> {
    fn disable(&self) {
        let were_enabled = P::mask();
        if let Some(own) = own(P::this_cpu())
            && own.guards.fetch_add(1, Ordering::Relaxed) == 0
        {
            own.were_enabled.store(were_enabled, Ordering::Relaxed);
        }
    }

    unsafe fn enable(&self) {
        if let Some(own) = own(P::this_cpu())
            && own.guards.fetch_sub(1, Ordering::Relaxed) == 1
            && own.were_enabled.load(Ordering::Relaxed)
        {
            P::unmask();
        }
    }

    fn interrupt_all(&self) {
        let this = P::this_cpu();
        let Some(own) = own(this) else {
            return;
        };
        let guards = own.guards.load(Ordering::Relaxed);
        assert_eq!(guards, 0, "a reader waits for itself");
        let round = NEWEST.fetch_add(1, Ordering::SeqCst) + 1;
        own.awaited.store(round, Ordering::SeqCst);
        others_than(this).for_each(|number| P::interrupt(number, Signal::Round));
        sleep_until::<P>(|| is_complete(this, round));
        own.awaited.store(0, Ordering::SeqCst);
    }
}
