//! The CPUs that read: what a kernel brings.

use super::wrong::Wrong;
use crate::Fault;

/// A kernel's CPUs besides the one that this runs on.
///
/// # Safety
///
/// 1. `run_beside` calls `work` once on each of them, with the numbers from 0 to `count` less one, and
///    does not return before each call has: by itself, or given up at a fault, and then nothing of it
///    is done any more.
pub unsafe trait OtherCpus {
    /// How many there are.
    fn count(&self) -> usize;

    /// Has all of them do `work`, and does `here` on this CPU meanwhile. What they do ends when `here`
    /// has told them, so it waits for them after that.
    fn run_beside(&self, work: &(dyn Fn(usize) + Sync), here: &mut dyn FnMut());

    /// The fault at which the work of CPU `number` was given up, if it was.
    fn fault(&self, number: usize) -> Option<Fault>;
}

/// Whether there was none.
pub(super) fn faults_of(cpus: &impl OtherCpus, number: usize) -> Result<(), Wrong> {
    cpus.fault(number)
        .map_or(Ok(()), |fault| Err(Wrong::Fault(fault)))
}
