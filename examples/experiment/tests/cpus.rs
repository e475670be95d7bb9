//! A kernel's CPUs as threads, which take an interrupt where they turn interrupts on.

use experiment::{
    Cpus, FaultKind, MOST_CPUS, OtherCpus, Processor, Signal, has_started, idle, is_started,
    signalled,
};
use mm_core::readers::{GracePeriod, InterruptsOff};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;

const OTHERS: usize = 3;
const ROUNDS: u64 = 500;

enum Thread {}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    static ARE_ENABLED: Cell<bool> = const { Cell::new(false) };
}

/// Interrupts that were sent and not taken: a bit for each signal.
static PENDING: [AtomicU8; MOST_CPUS] = [const { AtomicU8::new(0) }; MOST_CPUS];

const SIGNALS: [Signal; 2] = [Signal::Round, Signal::Wake];

fn bit(why: Signal) -> u8 {
    1 << SIGNALS.iter().take_while(|signal| **signal != why).count()
}

fn take() {
    let taken = PENDING[Thread::this_cpu()].swap(0, Ordering::Acquire);
    let is_taken = |why: &Signal| taken & bit(*why) != 0;
    SIGNALS
        .into_iter()
        .filter(is_taken)
        .for_each(signalled::<Thread>);
}

// SAFETY: 1: each thread has a number. 2: one is taken in `unmask` and `sleep` only. 3: in these; the bit is released and
// acquired.
unsafe impl Processor for Thread {
    fn this_cpu() -> usize {
        NUMBER.get()
    }

    fn mask() -> bool {
        ARE_ENABLED.replace(false)
    }

    fn unmask() {
        take();
        ARE_ENABLED.set(true);
    }

    fn sleep() {
        while PENDING[Self::this_cpu()].load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        take();
        ARE_ENABLED.set(true);
    }

    fn interrupt(number: usize, why: Signal) {
        PENDING[number].fetch_or(bit(why), Ordering::Release);
    }

    fn kind(code: u64) -> FaultKind {
        FaultKind::Other(code)
    }
}

/// After a grace period no guard is left under which the old was seen, whether its CPU reads or rests.
#[test]
fn a_round_waits_for_all_guards_and_nobody_sleeps_for_good() {
    has_started(0);
    Thread::unmask();
    for number in 1..=OTHERS {
        thread::spawn(move || {
            NUMBER.set(number);
            idle::<Thread>()
        });
        while !is_started(number) {
            thread::yield_now();
        }
    }
    // SAFETY: 1: this is thread 0, and the others are in `idle`.
    let cpus = unsafe { Cpus::<Thread>::new(OTHERS) };
    let grace = InterruptsOff::new(cpus.rounds());
    let newest = AtomicU64::new(1);
    let seen = [const { AtomicU64::new(0) }; OTHERS];
    let guards = [const { AtomicU64::new(0) }; OTHERS];
    for _ in 0..3 {
        let is_over = AtomicBool::new(false);
        let read = |cpu: usize| {
            while !is_over.load(Ordering::Acquire) {
                for _ in 0..4 {
                    let outer = grace.enter();
                    let inner = grace.enter();
                    seen[cpu].store(newest.load(Ordering::Relaxed), Ordering::Relaxed);
                    drop(outer);
                    thread::yield_now();
                    seen[cpu].store(0, Ordering::Relaxed);
                    drop(inner);
                    guards[cpu].fetch_add(1, Ordering::Relaxed);
                }
                cpus.rest(&|| is_over.load(Ordering::Acquire));
            }
        };
        cpus.run_beside(&read, &mut || {
            for _ in 0..ROUNDS {
                let now = newest.fetch_add(1, Ordering::Relaxed) + 1;
                grace.wait();
                for seen in &seen {
                    let seen = seen.load(Ordering::Relaxed);
                    assert!(seen == 0 || seen >= now, "{seen} is older than {now}");
                }
            }
            is_over.store(true, Ordering::Release);
            cpus.wake();
        });
        assert!((0..OTHERS).all(|cpu| cpus.fault(cpu).is_none()));
    }
    let read = guards
        .each_ref()
        .map(|guards| guards.load(Ordering::Relaxed));
    assert!(read.iter().all(|guards| *guards > ROUNDS), "{read:?}");
}
