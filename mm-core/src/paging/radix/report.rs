//! Reports what entries of a leaf table pointed at.
//!
//! ```text
//!   entries   H T T T  I T T T  J T T T  K L M N  0  T T T T
//!   reports   three groups of 4          a run       a run
//! ```

use super::entries::{LINE, run_of, same_length};
use crate::addr::PfnRange;
use crate::paging::{Attributes, Entry, EntryFormat, GroupTails, Groups, Leaf, Role, RunSink};

/// The leaf that an entry is or was, if it is this library's.
#[inline]
pub(super) fn any_own_leaf(entry: &Entry) -> Option<Leaf> {
    match entry {
        Entry::Leaf(leaf) | Entry::InvalidLeaf(leaf) if leaf.role != Role::Foreign => Some(*leaf),
        _ => None,
    }
}

/// Reports the leaves in `slots`, entries at `depth`, each of them once. Entries may be valid or invalidated;
/// those that are not this library's are skipped.
pub(super) fn report_leaves<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    depth: usize,
    released: &mut dyn RunSink,
) {
    let own_leaf = |entry: u64| any_own_leaf(&attributes.decode(entry, depth));
    let mut left = slots;
    while let Some((&entry, others)) = left.split_first() {
        let Some(leaf) = own_leaf(entry) else {
            left = others;
            continue;
        };
        let tail = others.first().copied().filter(|_| is_head(leaf));
        let tail = tail.and_then(|entry| Some((entry, own_leaf(entry).filter(is_tail)?)));
        let leaves = match tail {
            Some(tail) => {
                let groups = groups_of(attributes, left, (entry, leaf), tail);
                released.groups(groups);
                groups.leaves()
            }
            None => {
                let run = run_of::<F>(leaf, entry, others);
                released.run(run);
                run.count
            }
        };
        left = left.get(leaves as usize..).unwrap_or_default();
    }
}

/// Whether `leaf` can be the first of a group.
fn is_head(leaf: Leaf) -> bool {
    leaf.role == Role::Descriptors && leaf.writable
}

fn is_tail(leaf: &Leaf) -> bool {
    leaf.role == Role::Tail
}

/// The groups that `slots` starts with, whose first two entries are `head` and `tail`: at least one group.
fn groups_of<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    (head, first): (u64, Leaf),
    (tail, second): (u64, Leaf),
) -> Groups {
    let behind = first.block.first().checked_add(1);
    let is_own = behind.is_some_and(|behind| second == Leaf::single(behind, Role::Tail));
    let (tails, each, tail_step) = match is_own {
        true => (GroupTails::Own, 2, 2 * F::FRAME_STEP),
        false => (GroupTails::Same(second), 1, 0),
    };
    let behind_head = slots.get(1..).unwrap_or_default();
    let pages = 1 + same_length::<F>(behind_head, tail);
    let steps = [each * F::FRAME_STEP, tail_step];
    let expected = [
        head.wrapping_add(steps[0]),
        tail.wrapping_add(steps[1]),
    ];
    let others = slots.get(pages..).unwrap_or_default();
    let more = match pages {
        LINE => alike_lines::<F>(others, expected, steps),
        _ => alike_groups::<F>(others, pages, expected, steps),
    };
    let start = first.block.first();
    let of = |groups: usize| PfnRange::new(start, groups as u64 * each).ok();
    // Behind the last frame there is no leaf to be had by counting on.
    let reached = of(1 + more).filter(|frames| frames.last() <= attributes.last_frame());
    Groups {
        frames: reached.or(of(1)).unwrap_or(PfnRange::single(start)),
        tails,
        pages: pages as u64,
    }
}

/// How many groups of `pages` entries follow each other at the start of `slots`: the first of head and tails
/// as `expected`, each further one by `steps` from the one before. Status bits do not count.
fn alike_groups<F: EntryFormat>(
    slots: &[u64],
    pages: usize,
    expected: [u64; 2],
    steps: [u64; 2],
) -> usize {
    let [mut head, mut tail] = expected;
    let differs = |group: &[u64]| {
        let Some((first, others)) = group.split_first() else {
            return true;
        };
        let of_tails = others.iter().fold(0, |all, entry| all | (entry ^ tail));
        let differs = ((first ^ head) | of_tails) & !F::STATUS_BITS != 0;
        head = head.wrapping_add(steps[0]);
        tail = tail.wrapping_add(steps[1]);
        differs
    };
    let mut groups = slots.chunks_exact(pages);
    let all = groups.len();
    groups.position(differs).unwrap_or(all)
}

/// The same for groups of one [`LINE`].
fn alike_lines<F: EntryFormat>(slots: &[u64], expected: [u64; 2], steps: [u64; 2]) -> usize {
    let [mut head, mut tail] = expected;
    let differs = |[first, others @ ..]: &[u64; LINE]| {
        let of_tails = others.iter().fold(0, |all, entry| all | (entry ^ tail));
        let differs = ((first ^ head) | of_tails) & !F::STATUS_BITS != 0;
        head = head.wrapping_add(steps[0]);
        tail = tail.wrapping_add(steps[1]);
        differs
    };
    let (lines, _) = slots.as_chunks::<LINE>();
    lines.iter().position(differs).unwrap_or(lines.len())
}
