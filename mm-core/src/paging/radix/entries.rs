//! Runs of base-page entries in the memory of a table.

use super::lines::{BLOCK, COPIES, LINE, equal_blocks, equal_lines, write_copies, write_lines};
use crate::paging::{Attributes, Entry, EntryFormat, GroupTails, Groups, Leaf, Run, Step};

/// How many entries at the start of a run are compared one by one, since many runs are short.
/// Those of a compound page that fills a leaf table are lines then, the head and these apart.
const SHORT: usize = 7;

/// Writes `slots.len()` entries, the first of them `entry`, the others following it by `step`.
#[inline]
pub(super) fn write_run<F: EntryFormat>(slots: &mut [u64], entry: u64, step: Step) {
    match step {
        Step::Same => {
            if slots.len() < COPIES {
                return slots.fill(entry);
            }
            let copies = [entry; COPIES];
            write_copies(slots.as_chunks_mut().0, &copies);
            // What does not fill a chunk is in the last one, the others of which are written twice.
            if let Some(last) = slots.last_chunk_mut() {
                write_copies(core::slice::from_mut(last), &copies);
            }
        }
        Step::Next => {
            let (lines, rest) = slots.as_chunks_mut();
            let done = lines.len();
            if done > 0 {
                let (first, steps) = next_leaves::<F>(entry);
                write_lines(lines, &first, &steps);
            }
            let mut entry = entry.wrapping_add(F::FRAME_STEP.wrapping_mul((done * LINE) as u64));
            for slot in rest {
                *slot = entry;
                entry = entry.wrapping_add(F::FRAME_STEP);
            }
        }
    }
}

/// `entry` and the leaves of the frames behind it, and the steps to the next such line.
pub(super) fn next_leaves<F: EntryFormat>(entry: u64) -> ([u64; LINE], [u64; LINE]) {
    let leaf = |index: usize| entry.wrapping_add(F::FRAME_STEP.wrapping_mul(index as u64));
    let steps = [F::FRAME_STEP.wrapping_mul(LINE as u64); LINE];
    (core::array::from_fn(leaf), steps)
}

/// The first of some groups as entries, and what is added from group to group.
#[derive(Clone, Copy)]
pub(super) struct GroupEntries {
    pub(super) head: u64,
    pub(super) tail: u64,
    pub(super) head_step: u64,
    pub(super) tail_step: u64,
}

impl GroupEntries {
    /// Groups whose first head and tail are these.
    pub(super) const fn new<F: EntryFormat>(head: u64, tail: u64, tails: GroupTails) -> Self {
        let (head_step, tail_step) = match tails {
            GroupTails::Same(_) => (F::FRAME_STEP, 0),
            GroupTails::Own => (2 * F::FRAME_STEP, 2 * F::FRAME_STEP),
        };
        Self {
            head,
            tail,
            head_step,
            tail_step,
        }
    }

    /// The same from the next group on.
    pub(super) const fn next(self) -> Self {
        Self {
            head: self.head.wrapping_add(self.head_step),
            tail: self.tail.wrapping_add(self.tail_step),
            ..self
        }
    }

    /// How many frames are one group's alone, as in [`Groups::frames_each`], if the steps are those of groups
    /// that follow each other.
    pub(super) const fn frames_each<F: EntryFormat>(&self) -> Option<u64> {
        let twice = 2 * F::FRAME_STEP;
        match (self.head_step, self.tail_step) {
            (head, 0) if head == F::FRAME_STEP => Some(1),
            (head, tail) if head == twice && tail == twice => Some(2),
            _ => None,
        }
    }

    /// A group of one line, and the steps to the next.
    pub(super) const fn line(&self) -> ([u64; LINE], [u64; LINE]) {
        let (mut line, mut steps) = ([self.tail; LINE], [self.tail_step; LINE]);
        line[0] = self.head;
        steps[0] = self.head_step;
        (line, steps)
    }

    /// Writes groups of `pages` entries into all of `slots`.
    fn write(mut self, slots: &mut [u64], pages: usize) {
        if pages == LINE {
            let (line, steps) = self.line();
            return write_lines(slots.as_chunks_mut().0, &line, &steps);
        }
        for group in slots.chunks_exact_mut(pages.max(1)) {
            if let Some((first, others)) = group.split_first_mut() {
                *first = self.head;
                others.fill(self.tail);
            }
            self = self.next();
        }
    }

    /// How many groups of `pages` entries `slots` starts with. Status bits do not count.
    pub(super) fn count<F: EntryFormat>(mut self, slots: &[u64], pages: usize) -> usize {
        if pages == LINE {
            let (line, steps) = self.line();
            return equal_lines(slots.as_chunks().0, &line, &steps, F::STATUS_BITS);
        }
        let differs = |group: &[u64]| {
            let Some((first, others)) = group.split_first() else {
                return true;
            };
            let of_tails = others
                .iter()
                .fold(0, |all, entry| all | (entry ^ self.tail));
            let differs = ((first ^ self.head) | of_tails) & !F::STATUS_BITS != 0;
            self = self.next();
            differs
        };
        let mut groups = slots.chunks_exact(pages.max(1));
        let all = groups.len();
        groups.position(differs).unwrap_or(all)
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
    let [head, tail] = [head, tail].map(|leaf| attributes.leaf(leaf, depth));
    GroupEntries::new::<F>(head, tail, groups.tails).write(slots, groups.pages as usize);
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
    let (start, behind) = slots.split_at_checked(SHORT).unwrap_or((slots, &[]));
    if let Some(length) = start.iter().position(differs) {
        return length;
    }
    // Many runs are no longer.
    if behind.first().is_none_or(differs) {
        return start.len();
    }
    let blocks = match behind.as_chunks::<BLOCK>().0 {
        [] => 0,
        blocks => equal_blocks(blocks, &[entry; 4], F::STATUS_BITS) * BLOCK,
    };
    let behind = behind.get(blocks..).unwrap_or_default();
    let lines = match behind.as_chunks::<LINE>().0 {
        [] => 0,
        lines => equal_lines(lines, &[entry; LINE], &[0; LINE], F::STATUS_BITS) * LINE,
    };
    let behind = behind.get(lines..).unwrap_or_default();
    let rest = behind.iter().position(differs).unwrap_or(behind.len());
    start.len() + blocks + lines + rest
}

/// How many of `slots` equal, status bits apart, `first` and the leaves of the frames that follow.
#[inline]
fn next_length<F: EntryFormat>(slots: &[u64], first: u64) -> usize {
    let expected = |index: usize| first.wrapping_add(F::FRAME_STEP.wrapping_mul(index as u64));
    let differs = |(index, slot): (usize, &u64)| (slot ^ expected(index)) & !F::STATUS_BITS != 0;
    let (start, behind) = slots.split_at_checked(SHORT).unwrap_or((slots, &[]));
    if let Some(length) = start.iter().enumerate().position(differs) {
        return length;
    }
    let lines = match behind.as_chunks::<LINE>().0 {
        [] => 0,
        lines => {
            let (line, steps) = next_leaves::<F>(expected(start.len()));
            equal_lines(lines, &line, &steps, F::STATUS_BITS) * LINE
        }
    };
    let length = start.len() + lines;
    let rest = slots.iter().enumerate().skip(length);
    length + rest.take_while(|slot| !differs(*slot)).count()
}
