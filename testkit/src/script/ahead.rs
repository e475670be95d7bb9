//! What CPUs read before they need it.

use crate::TestMachine;
use mm_core::addr::VirtRange;
use std::sync::{Arc, Mutex, PoisonError};

/// How many ranges they are: two of the vmemmap, and two of packed heads.
const RANGES: usize = 4;

/// The addresses that one of the CPUs caches whenever frames are allocated.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(Arc<Mutex<[Option<VirtRange>; RANGES]>>);

impl Ahead {
    pub(super) fn set(&self, ranges: [Option<VirtRange>; RANGES]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ranges;
    }

    fn get(&self) -> [Option<VirtRange>; RANGES] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets CPUs know of frames that are freed while they have them cached, read ahead in `all`
    /// whenever they are made to forget something, and one of them, the one with the number
    /// `eager`, cache at each allocation what this says.
    pub(super) fn watch(&self, machine: &TestMachine, all: VirtRange, eager: usize) {
        let cpus = machine.cpus();
        cpus.read_ahead(all);
        cpus.watch_frees(machine.frames());
        let ahead = self.clone();
        let ranges = move || ahead.get().into_iter().flatten().collect();
        cpus.fill_at_allocations(eager, machine.frames(), Box::new(ranges));
    }
}
