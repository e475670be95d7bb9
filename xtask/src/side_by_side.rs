//! Jobs that run at the same time, as many at once as there are CPUs.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many jobs run at once.
pub(crate) fn at_once() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does `work` for each of `jobs`, and shows what became of each in their order, with the time that
/// it took: as soon as it and all before it are done.
pub(crate) fn run<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
    mut show: impl FnMut(&J, R, Duration),
) {
    let waiting: Mutex<VecDeque<(usize, &J)>> = Mutex::new(jobs.iter().enumerate().collect());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        for _ in 0..at_once().min(jobs.len()) {
            let (next, work, sender) = (&next, &work, sender.clone());
            scope.spawn(move || {
                while let Some((index, job)) = next() {
                    let start = Instant::now();
                    let result = work(job);
                    // The receiver goes only after this thread.
                    let _ = sender.send((index, result, start.elapsed()));
                }
            });
        }
        drop(sender);
        let mut done: Vec<_> = jobs.iter().map(|_| None).collect();
        let mut shown = 0;
        for (index, result, time) in receiver {
            if let Some(place) = done.get_mut(index) {
                *place = Some((result, time));
            }
            while let Some(job) = jobs.get(shown)
                && let Some((result, time)) = done.get_mut(shown).and_then(Option::take)
            {
                show(job, result, time);
                shown += 1;
            }
        }
    });
}

/// What a job printed, to be shown later. Clones write to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript(Arc<Mutex<Vec<u8>>>);

impl Transcript {
    /// All of it so far.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Transcript {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_shown_in_the_order_of_jobs_whichever_ends_first() {
        let jobs: Vec<u64> = (0..8).collect();
        let work = |job: &u64| {
            thread::sleep(Duration::from_millis(8 - job));
            job * job
        };
        let mut shown = Vec::new();
        run(&jobs, work, |job, result, _| shown.push((*job, result)));
        assert_eq!(
            shown,
            jobs.iter().map(|job| (*job, job * job)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_clones_write_is_one_transcript() {
        let transcript = Transcript::default();
        for part in ["one ", "two"] {
            transcript.clone().write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(transcript.text(), "one two");
    }
}
