//! A lock for a few words.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value behind a lock that is held for a few loads and stores. Who waits, spins.
///
/// It does not keep interrupts away. Whoever interrupts the holder on its CPU and takes the lock
/// waits for ever.
#[derive(Debug)]
pub(super) struct Spin<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time reaches the value, under the lock.
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Calls `work`, which neither panics nor takes the lock again, with the value.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            while self.locked.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
        // SAFETY: the lock is held, so there is no other reference. A panic would leave it held.
        let result = work(unsafe { &mut *self.value.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::thread;

    #[test]
    fn one_thread_at_a_time_reaches_the_value() {
        let spin = Spin::new(0_u64);
        let work = || {
            for _ in 0..1000 {
                spin.with(|value| {
                    let before = *value;
                    thread::yield_now();
                    *value = before + 1;
                });
            }
        };
        thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(work));
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(spin.with(|value| *value), 4000);
    }
}
