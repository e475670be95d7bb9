//! What simulated CPUs read before they need it.

use mm_core::addr::VirtRange;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The addresses that CPUs read ahead where everything is to be forgotten; none if they do not read ahead.
#[derive(Debug, Default)]
pub struct ReadAhead(Mutex<Vec<VirtRange>>);

impl ReadAhead {
    fn ranges(&self) -> MutexGuard<'_, Vec<VirtRange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads `range` from now on, if it has read nothing before.
    pub(crate) fn start(&self, range: VirtRange) {
        let mut ranges = self.ranges();
        if ranges.is_empty() {
            ranges.push(range);
        }
    }

    /// Reads `ranges` from now on, and nothing else.
    pub(crate) fn read_only(&self, all: &[VirtRange]) {
        let mut ranges = self.ranges();
        ranges.clear();
        ranges.extend_from_slice(all);
    }

    /// What is read where `page` is to be forgotten, or everything.
    pub(crate) fn before_forgetting(&self, page: Option<VirtRange>) -> Vec<VirtRange> {
        let ranges = self.ranges();
        match page {
            Some(page) if !ranges.is_empty() => vec![page],
            _ => ranges.clone(),
        }
    }
}
