//! Reports what entries of a leaf table pointed at.
//!
//! ```text
//!   entries   H T T T  I T T T  J T T T  K L M N  0  T T T T
//!   reports   three groups of 4          a run       a run
//! ```

use super::entries::{GroupEntries, run_of, same_length};
use super::tree::Tree;
use crate::addr::{Pfn, PfnRange};
use crate::paging::{
    Attributes, Entry, EntryFormat, GroupTails, Groups, Leaf, Role, Run, RunSink, Step,
};

/// The leaf that an entry is or was, if it is this library's.
#[inline]
pub(super) fn any_own_leaf(entry: &Entry) -> Option<Leaf> {
    match entry {
        Entry::Leaf(leaf) | Entry::InvalidLeaf(leaf) if leaf.role != Role::Foreign => Some(*leaf),
        _ => None,
    }
}

/// Reports the leaves in `slots`, entries of a leaf table, each of them once. Entries may be valid or invalidated;
/// those that are not this library's are skipped.
pub(super) fn report_leaves<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    released: &mut dyn RunSink,
) {
    let own_leaf = |entry: u64| own_leaf(attributes, entry);
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

/// The same of a table all of whose entries are this library's, and equal but for the first: these are not
/// compared again.
// Not inlined: who calls it recurses over levels.
#[inline(never)]
pub(super) fn report_alike<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    released: &mut dyn RunSink,
) {
    let [head, other, ..] = *slots else {
        return report_leaves(attributes, slots, released);
    };
    let Some(leaf) = own_leaf(attributes, other) else {
        return;
    };
    let run = |count: usize| Run {
        leaf,
        count: count as u64,
        step: Step::Same,
    };
    if (head ^ other) & !F::STATUS_BITS == 0 {
        return released.run(run(slots.len()));
    }
    match own_leaf(attributes, head) {
        Some(first) if is_head(first) && is_tail(&leaf) => {
            let start = first.block.first();
            let (tails, each) = tails_of(start, leaf);
            let frames = PfnRange::new(start, each);
            released.groups(Groups {
                frames: frames.unwrap_or(PfnRange::single(start)),
                tails,
                pages: slots.len() as u64,
            });
        }
        first => {
            first
                .into_iter()
                .for_each(|leaf| released.run(Run::once(leaf)));
            released.run(run(slots.len() - 1));
        }
    }
}

/// The leaf that `entry` of a leaf table is or was, if it is this library's.
#[inline]
fn own_leaf<F: EntryFormat>(attributes: &Attributes<F>, entry: u64) -> Option<Leaf> {
    any_own_leaf(&attributes.decode(entry, Tree::<F>::LEAF_DEPTH))
}

/// Whether `leaf` can be the first of a group.
fn is_head(leaf: Leaf) -> bool {
    leaf.role == Role::Descriptors && leaf.writable
}

fn is_tail(leaf: &Leaf) -> bool {
    leaf.role == Role::Tail
}

/// The tails of groups whose first head is in the frame `head` and is followed by `tail`, and how many frames each
/// group has.
#[inline]
fn tails_of(head: Pfn, tail: Leaf) -> (GroupTails, u64) {
    let behind = head.checked_add(1);
    match behind.is_some_and(|behind| tail == Leaf::single(behind, Role::Tail)) {
        true => (GroupTails::Own, 2),
        false => (GroupTails::Same(tail), 1),
    }
}

/// The groups that `slots` starts with, whose first two entries are `head` and `tail`: at least one group.
fn groups_of<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    (head, first): (u64, Leaf),
    (tail, second): (u64, Leaf),
) -> Groups {
    let (tails, each) = tails_of(first.block.first(), second);
    let behind_head = slots.get(1..).unwrap_or_default();
    let pages = 1 + same_length::<F>(behind_head, tail);
    let others = slots.get(pages..).unwrap_or_default();
    let entries = GroupEntries::new::<F>(head, tail, tails);
    let more = entries.next().count::<F>(others, pages);
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
