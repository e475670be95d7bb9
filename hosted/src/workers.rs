//! Threads that help to describe memory.

use mm_core::vmemmap::Workers;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{hint, ptr, thread};

/// How often a thread looks for work before it sleeps: what comes next is there within microseconds, or not
/// soon.
const LOOKS: u32 = 20_000;

/// What is to be done: each part once.
struct Job<'p> {
    part: &'p (dyn Fn(usize) + Sync),
    parts: usize,
    /// The next part that nobody has.
    next: AtomicUsize,
}

impl Job<'_> {
    /// Does parts as long as there are some.
    fn work(&self) {
        while self.next.load(Ordering::Relaxed) < self.parts {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part < self.parts {
                (self.part)(part);
            }
        }
    }
}

#[derive(Default)]
struct Shared {
    /// What there is to do, or null. It is there as long as it is here, and until nobody is `inside` after that.
    job: AtomicPtr<Job<'static>>,
    /// How many threads may have a job.
    inside: AtomicUsize,
    ends: AtomicBool,
    /// For threads that sleep.
    sleep: Mutex<()>,
    changed: Condvar,
}

/// Counts a thread as inside.
struct Inside<'s>(&'s Shared);

impl<'s> Inside<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.inside.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Has all parts of a job done, and everybody out, before anything else goes on.
struct Finish<'s>(&'s Shared, &'s Job<'s>);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.1.work();
        self.0.job.store(ptr::null_mut(), Ordering::SeqCst);
        let mut looks = 0;
        while self.0.inside.load(Ordering::SeqCst) != 0 {
            // The last part takes microseconds, unless its thread has no CPU.
            if looks < LOOKS {
                looks += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    fn is_idle(&self) -> bool {
        self.job.load(Ordering::SeqCst).is_null() && !self.ends.load(Ordering::SeqCst)
    }

    /// What a thread does.
    fn help(&self) {
        loop {
            let mut looks = 0;
            while looks < LOOKS && self.is_idle() {
                hint::spin_loop();
                looks += 1;
            }
            if self.is_idle() {
                let mut lock = self.lock();
                while self.is_idle() {
                    let woken = self.changed.wait(lock);
                    lock = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let _inside = Inside::new(self);
            // SAFETY: null, or a job: `run` takes it away first and looks who is inside then, and this thread
            // was inside before it looked.
            if let Some(job) = unsafe { self.job.load(Ordering::SeqCst).as_ref() } {
                job.work();
            }
        }
    }
}

/// The thread that calls, and others that wait for work. They end with the value.
pub struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<thread::JoinHandle<()>>,
    /// One call at a time.
    calls: Mutex<()>,
}

impl Threads {
    /// So many threads, with the one that calls.
    pub fn new(threads: NonZeroUsize) -> Self {
        let shared = Arc::<Shared>::default();
        let help = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.help())
        };
        Self {
            helpers: (1..threads.get()).map(help).collect(),
            shared,
            calls: Mutex::new(()),
        }
    }

    /// Threads that stay as long as the process, as the CPUs of a kernel do.
    pub fn leaked(threads: NonZeroUsize) -> &'static Self {
        Box::leak(Box::new(Self::new(threads)))
    }
}

// SAFETY: 1: numbers are taken from a counter, by whoever is free, the caller too. 2: `Finish` waits until nobody
// is inside any more, also where a part has panicked. 3: the job is found by a load that sees the store of who
// made it.
unsafe impl Workers for Threads {
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        let _alone = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let job = Job {
            part,
            parts,
            next: AtomicUsize::new(0),
        };
        let _finish = Finish(&self.shared, &job);
        // The others see it for a shorter time than it is there: see `help`.
        let pointer = ptr::from_ref(&job).cast_mut().cast::<Job<'static>>();
        self.shared.job.store(pointer, Ordering::SeqCst);
        self.shared.wake();
        job.work();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.shared.wake();
        for helper in self.helpers.drain(..) {
            // A part that panicked has said so.
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_done_once_before_run_returns() {
        for threads in 1..=4 {
            let workers = Threads::new(NonZeroUsize::new(threads).unwrap());
            for parts in [0, 1, 2, 7, 100] {
                let done: Vec<_> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                workers.run(parts, &|part| {
                    done[part].fetch_add(1, Ordering::Relaxed);
                });
                let once = |count: &AtomicUsize| count.load(Ordering::Relaxed) == 1;
                assert!(done.iter().all(once), "{threads} threads, {parts} parts");
            }
        }
    }
}
