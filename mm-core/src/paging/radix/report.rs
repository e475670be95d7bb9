//! Reports what entries of a leaf table pointed at.
//!
//! ```text
//!   entries   H T T T  I T T T  J T T T  K L M N  0  T T T T
//!   reports   three groups of 4          a run       a run
//! ```

use super::alike::Alike;
use super::entries::{GroupEntries, run_of, same_length};
use super::lines::LINE;
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

/// The same of a table all of whose entries are this library's and told by the first ones: the others are not
/// read again.
// Not inlined: who calls it recurses over levels.
#[inline(never)]
pub(super) fn report_alike<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[u64],
    released: &mut dyn RunSink,
) {
    let own_leaf = |entry: u64| own_leaf(attributes, entry);
    let begun = Alike::begun_by::<F>(|index| slots.get(index).copied());
    let leaves = slots.len() as u64;
    let run = |leaf: Leaf, count: u64, step: Step| Run { leaf, count, step };
    match (begun, slots) {
        (Some(Alike::Run(first)), _) => {
            if let Some(leaf) = own_leaf(first).filter(|leaf| leaf.role.can_step()) {
                return released.run(run(leaf, leaves, Step::Next));
            }
        }
        (Some(Alike::Groups(entries)), _) => {
            if let Some(groups) = groups_in_lines(attributes, entries, leaves / LINE as u64) {
                return released.groups(groups);
            }
        }
        (Some(Alike::Equal), [head, other, ..]) => {
            if let Some(leaf) = own_leaf(*other) {
                return report_equal(own_leaf(*head), leaf, leaves, released);
            }
        }
        _ => {}
    }
    report_leaves(attributes, slots, released);
}

/// Reports `leaves` leaves, of which the first one may be another than `leaf`.
fn report_equal(first: Option<Leaf>, leaf: Leaf, leaves: u64, released: &mut dyn RunSink) {
    let run = |count| Run {
        leaf,
        count,
        step: Step::Same,
    };
    match first {
        Some(first) if first == leaf => released.run(run(leaves)),
        Some(first) if is_head(first) && is_tail(&leaf) => {
            let start = first.block.first();
            let (tails, each) = tails_of(start, leaf);
            let frames = PfnRange::new(start, each);
            released.groups(Groups {
                frames: frames.unwrap_or(PfnRange::single(start)),
                tails,
                pages: leaves,
            });
        }
        first => {
            first
                .into_iter()
                .for_each(|leaf| released.run(Run::once(leaf)));
            released.run(run(leaves.saturating_sub(1)));
        }
    }
}

/// The groups that these entries begin, one in each of some lines, if they are groups.
fn groups_in_lines<F: EntryFormat>(
    attributes: &Attributes<F>,
    entries: GroupEntries,
    lines: u64,
) -> Option<Groups> {
    let head = own_leaf(attributes, entries.head).filter(|leaf| is_head(*leaf))?;
    let tail = own_leaf(attributes, entries.tail).filter(is_tail)?;
    let (start, each) = (head.block.first(), entries.frames_each::<F>()?);
    let tails = match each {
        1 => GroupTails::Same(tail),
        _ => Some(tails_of(start, tail).0).filter(|tails| *tails == GroupTails::Own)?,
    };
    let frames = PfnRange::new(start, lines.checked_mul(each)?).ok();
    Some(Groups {
        // Behind the last frame there is no leaf to be had by counting on.
        frames: frames.filter(|frames| frames.last() <= attributes.last_frame())?,
        tails,
        pages: LINE as u64,
    })
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
