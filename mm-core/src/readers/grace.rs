//! Grace periods: waiting until every reader that might have seen something is done.

use core::hint::spin_loop;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a kernel waits for its readers.
///
/// A reader holds a guard while it asks. The writer withdraws what it is about to take away, and
/// [waits](Self::wait): then every guard is gone under which it may have been seen.
///
/// Most kernels have something of the kind:
///
/// | the kernel has | `enter` | `wait` |
/// |---|---|---|
/// | readers with interrupts off | disables interrupts | an interrupt to every CPU: [`InterruptsOff`] |
/// | RCU | its read-side critical section | `synchronize_rcu` |
/// | quiescent states (QSBR) | nothing; no guard is held where a CPU announces a quiescent state | waits until every CPU has announced one |
/// | none of these | counts itself: [`CountedReaders`] | waits until the count was zero |
///
/// # For callers
///
/// - Whoever holds a guard does not wait, takes no lock that the writer holds while it waits, and
///   does not sleep, unless the kernel's way allows that.
/// - `wait` may take long and may sleep. It is called with interrupts on.
///
/// # Safety
///
/// 1. When `wait` returns, each guard that was there when it was called is gone, and what was done
///    under it is visible to the caller.
/// 2. What the caller of `wait` did before is visible under each guard that is there when `wait`
///    returns.
/// 3. Guards nest, and those of different CPUs do not wait for each other.
pub unsafe trait GracePeriod {
    /// What a reader holds.
    type Guard<'g>
    where
        Self: 'g;

    /// Begins to read.
    fn enter(&self) -> Self::Guard<'_>;

    /// Waits until all who were reading when it was called are done.
    fn wait(&self);
}

// SAFETY: 1 to 3 hold for what is behind the reference.
unsafe impl<G: GracePeriod + ?Sized> GracePeriod for &G {
    type Guard<'g>
        = G::Guard<'g>
    where
        Self: 'g;

    fn enter(&self) -> Self::Guard<'_> {
        (**self).enter()
    }

    fn wait(&self) {
        (**self).wait();
    }
}

/// What [`InterruptsOff`] needs of a kernel.
///
/// # Safety
///
/// 1. Between `disable` and `restore` no interrupt is taken on this CPU.
/// 2. `interrupt_all` returns after every other CPU that is started has taken an interrupt that was
///    sent after the call began. What it did before the interrupt is visible to the caller then, and
///    what the caller did before is visible to it afterwards.
pub unsafe trait Interrupts {
    /// Whether interrupts were enabled.
    type Saved;

    /// Disables interrupts on this CPU.
    fn disable(&self) -> Self::Saved;

    /// Puts interrupts back to what `disable` found.
    fn restore(&self, saved: &Self::Saved);

    /// Interrupts every other CPU, and waits until all have acknowledged that.
    fn interrupt_all(&self);
}

/// A grace period for kernels whose readers run with interrupts off: a CPU that takes an interrupt
/// is not reading.
///
/// Reading costs what disabling interrupts costs, and no store that other CPUs see. The wait is a
/// round of interrupts. The thread that waits is no reader itself: it must not hold a guard.
#[derive(Clone, Copy, Debug)]
pub struct InterruptsOff<I> {
    interrupts: I,
}

impl<I: Interrupts> InterruptsOff<I> {
    /// By `interrupts`.
    pub const fn new(interrupts: I) -> Self {
        Self { interrupts }
    }
}

/// Interrupts are off as long as it is there.
#[derive(Debug)]
pub struct InterruptsOffGuard<'g, I: Interrupts> {
    interrupts: &'g I,
    saved: I::Saved,
    /// It is about one CPU.
    not_send: PhantomData<*const ()>,
}

impl<I: Interrupts> Drop for InterruptsOffGuard<'_, I> {
    fn drop(&mut self) {
        self.interrupts.restore(&self.saved);
    }
}

// SAFETY: 1 and 2: by duty 1 of `Interrupts` a CPU that takes an interrupt holds no guard, so by its
// duty 2 none is left of those that were there. The caller's CPU holds none. 3: a guard within
// another one leaves interrupts off.
unsafe impl<I: Interrupts> GracePeriod for InterruptsOff<I> {
    type Guard<'g>
        = InterruptsOffGuard<'g, I>
    where
        Self: 'g;

    fn enter(&self) -> InterruptsOffGuard<'_, I> {
        InterruptsOffGuard {
            saved: self.interrupts.disable(),
            interrupts: &self.interrupts,
            not_send: PhantomData,
        }
    }

    fn wait(&self) {
        self.interrupts.interrupt_all();
    }
}

/// A grace period that counts its readers, for tests and for kernels that have nothing better.
///
/// Every reader stores to a counter that all share, so readers on many CPUs slow each other down.
/// Readers never wait.
#[derive(Debug)]
pub struct CountedReaders {
    /// Of those who entered in an even phase, and of those who did in an odd one.
    counts: [AtomicUsize; 2],
    phase: AtomicUsize,
    is_waiting: AtomicBool,
    pause: fn(),
}

impl CountedReaders {
    /// Nobody reads. `pause` is called again and again while somebody waits.
    pub const fn new(pause: fn()) -> Self {
        Self {
            counts: [const { AtomicUsize::new(0) }; 2],
            phase: AtomicUsize::new(0),
            is_waiting: AtomicBool::new(false),
            pause,
        }
    }

    fn count(&self, phase: usize) -> &AtomicUsize {
        let [even, odd] = &self.counts;
        if phase & 1 == 0 { even } else { odd }
    }

    fn wait_until(&self, done: impl Fn() -> bool) {
        while !done() {
            spin_loop();
            (self.pause)();
        }
    }
}

impl Default for CountedReaders {
    fn default() -> Self {
        Self::new(|| ())
    }
}

/// Somebody reads as long as it is there.
#[derive(Debug)]
pub struct CountedGuard<'g> {
    count: &'g AtomicUsize,
}

impl Drop for CountedGuard<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

// SAFETY: 1: a guard is counted before it is given out, in one of two counts, and each of them was zero
// at some time after the wait began. 2: all that changes or looks at a count exchanges it, so of a guard
// that is counted later the reader sees what was before the look. 3: counts add up, and nobody waits
// but `wait`.
unsafe impl GracePeriod for CountedReaders {
    type Guard<'g> = CountedGuard<'g>;

    fn enter(&self) -> CountedGuard<'_> {
        let count = self.count(self.phase.load(Ordering::Relaxed));
        count.fetch_add(1, Ordering::AcqRel);
        CountedGuard { count }
    }

    fn wait(&self) {
        self.wait_until(|| !self.is_waiting.swap(true, Ordering::Acquire));
        for _ in 0..2 {
            // Who enters from now on counts itself elsewhere, so this one becomes zero in the end.
            let phase = self.phase.fetch_add(1, Ordering::Relaxed);
            let count = self.count(phase);
            self.wait_until(|| count.fetch_add(0, Ordering::AcqRel) == 0);
        }
        self.is_waiting.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn whoever_began_to_read_before_is_waited_for() {
        let grace = CountedReaders::default();
        let outer = grace.enter();
        let inner = grace.enter();
        drop(outer);
        assert_eq!(grace.count(0).load(Ordering::Relaxed), 1);
        drop(inner);
        grace.wait();
        grace.wait();
    }

    /// A CPU that counts interrupts.
    #[derive(Default)]
    struct Cpu {
        is_off: Cell<bool>,
        rounds: Cell<u32>,
    }

    // SAFETY: 1 and 2: there is one CPU, which is only a value.
    unsafe impl Interrupts for &Cpu {
        type Saved = bool;

        fn disable(&self) -> bool {
            self.is_off.replace(true)
        }

        fn restore(&self, saved: &bool) {
            self.is_off.set(*saved);
        }

        fn interrupt_all(&self) {
            self.rounds.set(self.rounds.get() + 1);
        }
    }

    #[test]
    fn interrupts_are_off_as_long_as_a_guard_is_there() {
        let cpu = Cpu::default();
        let grace = InterruptsOff::new(&cpu);
        let outer = grace.enter();
        let inner = grace.enter();
        drop(inner);
        assert!(cpu.is_off.get());
        drop(outer);
        assert!(!cpu.is_off.get());
        grace.wait();
        assert_eq!(cpu.rounds.get(), 1);
    }
}
