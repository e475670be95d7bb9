//! Runs of base-page entries in the memory of a table.

use crate::paging::{Entry, EntryFormat, Leaf, Run, Step};

/// How many entries are compared at a time: a cache line of them.
const CHUNK: usize = 8;

/// Writes `slots.len()` entries, the first of them `entry`, each next one `step` more.
pub(super) fn write_run(slots: &mut [u64], entry: u64, step: u64) {
    let mut entry = entry;
    for slot in slots {
        *slot = entry;
        entry = entry.wrapping_add(step);
    }
}

/// What is added from leaf to leaf of a run in the format `F`.
pub(super) fn step_of<F: EntryFormat>(step: Step) -> u64 {
    match step {
        Step::Same => 0,
        Step::Next => F::FRAME_STEP,
    }
}

/// Reports the leaves in `slots`, entries at `depth`, as runs with the index of the first; valid and invalidated ones alike,
/// as long as `wanted` says so of the entry. Whatever else is there is passed over.
pub(super) fn for_each_run<F: EntryFormat>(
    slots: &[u64],
    depth: usize,
    wanted: impl Fn(&Entry) -> Option<Leaf>,
    mut report: impl FnMut(usize, Run),
) {
    let mut index = 0;
    while let Some((&entry, rest)) = slots.get(index..).and_then(<[u64]>::split_first) {
        let Some(leaf) = wanted(&F::decode(entry, depth)) else {
            index += 1;
            continue;
        };
        let (step, more) = following::<F>(entry, rest);
        let run = Run {
            leaf,
            count: more as u64 + 1,
            step,
        };
        report(index, run);
        index += more + 1;
    }
}

/// How many entries of `rest` continue `entry`, and by which step.
#[inline]
fn following<F: EntryFormat>(entry: u64, rest: &[u64]) -> (Step, usize) {
    let entry = entry & !F::STATUS_BITS;
    let Some(next) = rest.first() else {
        return (Step::Same, 0);
    };
    let difference = (next & !F::STATUS_BITS).wrapping_sub(entry);
    if difference == 0 {
        (Step::Same, run_length(rest, entry, 0, !F::STATUS_BITS))
    } else if difference == F::FRAME_STEP {
        let first = entry.wrapping_add(F::FRAME_STEP);
        (
            Step::Next,
            run_length(rest, first, F::FRAME_STEP, !F::STATUS_BITS),
        )
    } else {
        (Step::Same, 0)
    }
}

/// How many of `slots` equal, under `mask`, `first`, `first + step`, `first + 2 * step`, and so on.
#[inline]
fn run_length(slots: &[u64], first: u64, step: u64, mask: u64) -> usize {
    let mut expected = first;
    let mut length = 0;
    let (chunks, _) = slots.as_chunks::<CHUNK>();
    for chunk in chunks {
        let mut difference = 0;
        for (offset, slot) in chunk.iter().enumerate() {
            let wanted = expected.wrapping_add(step.wrapping_mul(offset as u64));
            difference |= (slot & mask) ^ wanted;
        }
        if difference != 0 {
            break;
        }
        length += CHUNK;
        expected = expected.wrapping_add(step.wrapping_mul(CHUNK as u64));
    }
    for slot in slots.get(length..).unwrap_or_default() {
        if slot & mask != expected {
            break;
        }
        length += 1;
        expected = expected.wrapping_add(step);
    }
    length
}
