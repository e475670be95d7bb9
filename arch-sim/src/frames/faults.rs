//! Allocations that are made to fail.

use mm_core::addr::Order;

/// Which allocations fail.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// How many may still succeed.
    pub(super) left: Option<u64>,
    /// How many come before the one that fails.
    pub(super) until: Option<u64>,
    /// Whether blocks of more than one frame fail.
    pub(super) blocks: bool,
}

impl Faults {
    /// How many of `at_most` allocations of `order` in one call are let through; none means that
    /// the call fails.
    pub(super) fn grant(&mut self, order: Order, at_most: u64) -> u64 {
        if self.until == Some(0) {
            self.until = None;
            return 0;
        }
        if self.blocks && order != Order::BASE {
            return 0;
        }
        let before = self.until.unwrap_or(u64::MAX);
        at_most.min(before).min(self.left.unwrap_or(u64::MAX))
    }

    /// Counts `allocations` that succeeded.
    pub(super) fn count(&mut self, allocations: u64) {
        for limit in [&mut self.left, &mut self.until].into_iter().flatten() {
            *limit = limit.saturating_sub(allocations);
        }
    }
}
