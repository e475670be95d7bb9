//! Runs of base-page entries in the memory of a table.

use crate::paging::{Attributes, Entry, EntryFormat, GroupTails, Groups, Leaf, Run, Step};

/// How many leaves the groups have that are read and written one cache line at a time: on every granule those of
/// the size that huge leaves of the kernel have (2 MiB, 32 MiB, 512 MiB).
pub(super) const LINE: usize = 8;

/// How many entries at the start of a run are compared one by one, since many runs are short.
const SHORT: usize = 8;

/// How many entries of a run of frames that follow each other are compared at a time after that.
const CHUNK: usize = 16;

/// How many equal entries are written or compared at a time: with less, counting takes as long as that.
const BLOCK: usize = 32;

/// Writes `slots.len()` entries, the first of them `entry`, the others following it by `step`.
#[inline]
pub(super) fn write_run<F: EntryFormat>(slots: &mut [u64], entry: u64, step: Step) {
    let (blocks, rest) = slots.as_chunks_mut::<BLOCK>();
    match step {
        Step::Same => {
            for block in blocks {
                block.fill(entry);
            }
            rest.fill(entry);
        }
        Step::Next => {
            let mut entry = entry;
            let mut write = |slots: &mut [u64]| {
                for slot in slots {
                    *slot = entry;
                    entry = entry.wrapping_add(F::FRAME_STEP);
                }
            };
            for block in blocks {
                write(block);
            }
            write(rest);
        }
    }
}

/// Writes the leaves of `groups`, `slots.len()` of them, as entries at `depth`.
#[inline]
pub(super) fn write_groups<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &mut [u64],
    groups: &Groups,
    depth: usize,
) {
    let (head, tail) = groups.group(0);
    let [mut head, mut tail] = [head, tail].map(|leaf| attributes.leaf(leaf, depth));
    let (head_step, tail_step) = match groups.tails {
        GroupTails::Same(_) => (F::FRAME_STEP, 0),
        GroupTails::Own => (2 * F::FRAME_STEP, 2 * F::FRAME_STEP),
    };
    let mut write = |group: &mut [u64]| {
        if let Some((first, others)) = group.split_first_mut() {
            *first = head;
            others.fill(tail);
        }
        head = head.wrapping_add(head_step);
        tail = tail.wrapping_add(tail_step);
    };
    match groups.pages as usize {
        LINE => slots
            .as_chunks_mut::<LINE>()
            .0
            .iter_mut()
            .for_each(|line| write(line)),
        pages => slots.chunks_exact_mut(pages.max(1)).for_each(write),
    }
}

/// What is added from leaf to leaf of a run in the format `F`.
#[inline]
pub(super) fn step_of<F: EntryFormat>(step: Step) -> u64 {
    match step {
        Step::Same => 0,
        Step::Next => F::FRAME_STEP,
    }
}

/// Reports the leaves in `slots`, entries at `depth`, as runs, each with the index of its first
/// entry. `wanted` says of an entry whether it is reported; it may be valid or invalidated. All
/// other entries are skipped.
#[inline]
pub(super) fn for_each_run<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    depth: usize,
    wanted: impl Fn(&Entry) -> Option<Leaf>,
    mut report: impl FnMut(usize, Run),
) {
    let mut index = 0;
    while let Some((&entry, rest)) = slots.get(index..).and_then(<[u64]>::split_first) {
        let Some(leaf) = wanted(&attributes.decode(entry, depth)) else {
            index += 1;
            continue;
        };
        let run = run_of::<F>(leaf, entry, rest);
        report(index, run);
        index += run.count as usize;
    }
}

/// The run that starts with `entry`, which says `leaf`, if `rest` follows it.
#[inline]
pub(super) fn run_of<F: EntryFormat>(leaf: Leaf, entry: u64, rest: &[u64]) -> Run {
    let (step, more) = match following::<F>(entry, rest) {
        (Step::Next, _) if !leaf.role.can_step() => (Step::Same, 0),
        following => following,
    };
    Run {
        leaf,
        count: more as u64 + 1,
        step,
    }
}

/// How many entries of `rest` continue `entry`, and by which step.
#[inline]
fn following<F: EntryFormat>(entry: u64, rest: &[u64]) -> (Step, usize) {
    let Some(next) = rest.first() else {
        return (Step::Same, 0);
    };
    let changed = (next ^ entry) & !F::STATUS_BITS;
    if changed == 0 {
        return (Step::Same, same_length::<F>(rest, entry));
    }
    let second = entry.wrapping_add(F::FRAME_STEP);
    if (next ^ second) & !F::STATUS_BITS == 0 {
        (Step::Next, next_length::<F>(rest, second))
    } else {
        (Step::Same, 0)
    }
}

/// How many of `slots` equal `entry`, status bits apart.
#[inline]
pub(super) fn same_length<F: EntryFormat>(slots: &[u64], entry: u64) -> usize {
    let differs = |slot: &u64| (slot ^ entry) & !F::STATUS_BITS != 0;
    let start = slots.get(..SHORT).unwrap_or(slots);
    if let Some(length) = start.iter().position(differs) {
        return length;
    }
    // All are equal where the bits that all of them have are those that any of them has: two operations for
    // several entries at once, where these are aligned.
    let same = |block: &&Block| {
        let (all, any) = (block.0.iter()).fold((u64::MAX, 0), |(all, any), slot| {
            (all & slot, any | slot)
        });
        ((all ^ entry) | (any ^ entry)) & !F::STATUS_BITS == 0
    };
    let behind = slots.get(start.len()..).unwrap_or_default();
    // SAFETY: a block is entries, whatever these are.
    let (before, blocks, _) = unsafe { behind.align_to::<Block>() };
    let unlike = before.iter().position(differs);
    if let Some(length) = unlike {
        return start.len() + length;
    }
    let blocks = blocks.iter().take_while(same).count();
    let length = start.len() + before.len() + blocks * BLOCK;
    let rest = slots.get(length..).unwrap_or_default();
    length + rest.iter().position(differs).unwrap_or(rest.len())
}

/// Entries that are compared at a time, where they lie in cache lines of their own.
#[repr(C, align(64))]
struct Block([u64; BLOCK]);

/// How many of `slots` equal, status bits apart, `first` and the leaves of the frames that follow.
#[inline]
fn next_length<F: EntryFormat>(slots: &[u64], first: u64) -> usize {
    let step = F::FRAME_STEP;
    let expected = |index: usize| first.wrapping_add(step.wrapping_mul(index as u64));
    let differs = |(index, slot): (usize, &u64)| (slot ^ expected(index)) & !F::STATUS_BITS != 0;

    let start = slots.get(..SHORT).unwrap_or(slots);
    if let Some(length) = start.iter().enumerate().position(differs) {
        return length;
    }
    let mut length = start.len();
    let (chunks, _) = slots.get(length..).unwrap_or_default().as_chunks::<CHUNK>();
    for chunk in chunks {
        let entry = expected(length);
        let mut difference = 0;
        for (offset, slot) in chunk.iter().enumerate() {
            difference |= slot ^ entry.wrapping_add(step.wrapping_mul(offset as u64));
        }
        if difference & !F::STATUS_BITS != 0 {
            break;
        }
        length += CHUNK;
    }
    let rest = slots.iter().enumerate().skip(length);
    length + rest.take_while(|slot| !differs(*slot)).count()
}
