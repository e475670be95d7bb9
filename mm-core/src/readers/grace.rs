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
/// | quiescent states (QSBR) | nothing, or a count for this CPU that says that a guard is held | waits until every CPU has announced a quiescent state, which it does without a guard |
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
///    under it is visible to the caller. A guard of the caller's own is no exception: with one, `wait`
///    does not return.
/// 2. What the caller of `wait` did before is visible under each guard that is there when `wait`
///    returns.
/// 3. A CPU may have several guards, which are dropped in any order: it reads until the last of them is
///    gone. Those of different CPUs do not wait for each other.
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

/// What [`InterruptsOff`] needs of a kernel: a count for each CPU of how often interrupts were disabled.
///
/// # Safety
///
/// 1. As long as there were more calls of `disable` than of `enable` on a CPU, it takes no interrupt, and
///    the thread that made them stays on it. Guards are dropped in any order, so it is not enough to
///    save whether interrupts were enabled and to put that back.
/// 2. `interrupt_all` returns after every other CPU that is started has taken an interrupt that was
///    sent after the call began. What it did before the interrupt is visible to the caller then, and
///    what the caller did before is visible to it afterwards.
/// 3. `interrupt_all` does not return on a CPU with more calls of `disable` than of `enable`: its thread
///    would wait for itself. A kernel panics there.
pub unsafe trait Interrupts {
    /// Disables interrupts on this CPU, once more.
    fn disable(&self);

    /// Takes back one call of `disable`. After the last, interrupts are what they were before the first.
    ///
    /// # Safety
    ///
    /// 1. The call of `disable` was on this CPU and is the caller's, who reads no more because of it.
    unsafe fn enable(&self);

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
    /// It is about one CPU.
    not_send: PhantomData<*const ()>,
}

impl<I: Interrupts> Drop for InterruptsOffGuard<'_, I> {
    fn drop(&mut self) {
        // SAFETY: 1: `enter` has called `disable` for this guard, which stays on its CPU.
        unsafe { self.interrupts.enable() };
    }
}

// SAFETY: 1 and 2: by duty 1 of `Interrupts` a CPU that takes an interrupt holds no guard, so by its
// duty 2 none is left of those that were there. The caller's CPU holds none by its duty 3. 3: by its duty 1
// interrupts are off until the last guard is dropped.
unsafe impl<I: Interrupts> GracePeriod for InterruptsOff<I> {
    type Guard<'g>
        = InterruptsOffGuard<'g, I>
    where
        Self: 'g;

    fn enter(&self) -> InterruptsOffGuard<'_, I> {
        self.interrupts.disable();
        InterruptsOffGuard {
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
        disabled: Cell<u32>,
        rounds: Cell<u32>,
    }

    // SAFETY: 1 and 2: there is one CPU, which is only a value. 3: it panics.
    unsafe impl Interrupts for &Cpu {
        fn disable(&self) {
            self.disabled.set(self.disabled.get() + 1);
        }

        unsafe fn enable(&self) {
            self.disabled.set(self.disabled.get() - 1);
        }

        fn interrupt_all(&self) {
            assert_eq!(self.disabled.get(), 0, "a reader waits for itself");
            self.rounds.set(self.rounds.get() + 1);
        }
    }

    // A guard is about the CPU that it was made on.
    static_assertions::assert_not_impl_any!(InterruptsOffGuard<'static, &'static Cpu>: Send, Sync);

    #[test]
    fn interrupts_are_off_as_long_as_any_guard_is_there() {
        let cpu = Cpu::default();
        let grace = InterruptsOff::new(&cpu);
        let (first, second) = (grace.enter(), grace.enter());
        drop(first);
        assert_eq!(cpu.disabled.get(), 1);
        drop(second);
        assert_eq!(cpu.disabled.get(), 0);
        grace.wait();
        assert_eq!(cpu.rounds.get(), 1);
    }
}
