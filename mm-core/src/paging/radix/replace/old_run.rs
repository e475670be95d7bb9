//! Entries of a table in use that form a run.

use crate::paging::radix::entries::step_of;
use crate::paging::radix::tree::Tree;
use crate::paging::radix::{load, store};
use crate::paging::{Attributes, Entry, EntryFormat, Role, Run, Step};
use core::sync::atomic::AtomicU64;

/// Entries of a leaf table that form a run, by the first of them.
#[derive(Clone, Copy)]
pub(super) struct OldRun {
    pub(super) entry: u64,
    pub(super) step: Step,
    pub(super) count: u16,
}

impl OldRun {
    /// The run, if the entries are this library's leaves.
    pub(super) fn run<F: EntryFormat>(&self, attributes: &Attributes<F>) -> Option<Run> {
        match attributes.decode(self.entry, Tree::<F>::LEAF_DEPTH) {
            Entry::Leaf(leaf) if leaf.role != Role::Foreign => Some(Run {
                leaf,
                count: u64::from(self.count),
                step: self.step,
            }),
            _ => None,
        }
    }
}

/// The run that `slots` start with; `None` where there are none.
pub(super) fn old_run<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[AtomicU64],
) -> Option<OldRun> {
    let (first, rest) = slots.split_first()?;
    let entry = load(first);
    let continues = |step: u64| {
        let expected = |index: usize| entry.wrapping_add(step.wrapping_mul(index as u64 + 1));
        let same = |(index, slot): &(usize, &AtomicU64)| {
            (load(slot) ^ expected(*index)) & !F::STATUS_BITS == 0
        };
        rest.iter().enumerate().take_while(same).count()
    };
    let can_step = match attributes.decode(entry, Tree::<F>::LEAF_DEPTH) {
        Entry::Leaf(leaf) => leaf.role.can_step(),
        _ => true,
    };
    let (step, more) = match continues(0) {
        0 if !can_step => (Step::Same, 0),
        0 => (Step::Next, continues(F::FRAME_STEP)),
        same => (Step::Same, same),
    };
    let step = if more == 0 { Step::Same } else { step };
    // A table has at most 2^13 entries.
    let count = u16::try_from(more + 1).unwrap_or(1);
    Some(OldRun { entry, step, count })
}

/// Stores `count` entries, the first of them `entry`.
pub(super) fn write<F: EntryFormat>(slots: &[AtomicU64], entry: u64, step: Step, count: u16) {
    let step = step_of::<F>(step);
    let mut entry = entry;
    for slot in slots.iter().take(usize::from(count)) {
        store(slot, entry);
        entry = entry.wrapping_add(step);
    }
}
