//! Time that this thread has a CPU.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Measures from when it was made.
///
/// It stands still while another process has the CPU: what takes longer than a slice of the scheduler would
/// otherwise be charged with those of others, and what takes less would not. What the host's kernel does for
/// this thread counts. Reading it takes a system call, a fraction of a microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// From now on.
    pub fn start() -> Self {
        Self(now())
    }

    /// What has passed.
    pub fn elapsed(self) -> Duration {
        now().saturating_sub(self.0)
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
