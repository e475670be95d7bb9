//! From frame to frame, and the last one.

use super::samples::{ALL_ROLES, Sample, blocks, last_depth, leaf_depths, numbers, statuses};
use crate::outcome::{Verdict, ensure, equal, fail, skip};
use mm_core::addr::{Block, Order, Pfn};
use mm_core::paging::{Entry, EntryFormat, Leaf, Role};

/// The leaves of one frame, one for each role, writable and not.
fn base_pages<F: EntryFormat>(frame: Pfn) -> impl Iterator<Item = Sample> {
    let kinds = ALL_ROLES
        .into_iter()
        .flat_map(|role| [(role, true), (role, false)]);
    kinds.map(move |(role, writable)| {
        let leaf = Leaf {
            writable,
            ..Leaf::single(frame, role)
        };
        Sample::leaf::<F>(leaf, last_depth::<F>())
    })
}

/// An entry, and the same invalidated.
fn both<F: EntryFormat>(sample: Sample) -> impl Iterator<Item = Sample> {
    let invalid = sample.invalidated::<F>();
    [Some(sample), invalid].into_iter().flatten()
}

pub(super) fn a_step_is_the_next_frame_and_nothing_else<F: EntryFormat>() -> Verdict {
    let Some(last_but_one) = F::LAST_FRAME.get().checked_sub(1) else {
        return skip("there is one frame only");
    };
    for number in numbers(last_but_one) {
        let (Some(frame), Some(next)) = (Pfn::new(number), Pfn::new(number + 1)) else {
            return fail("a frame up to the last can be named");
        };
        for (sample, next) in base_pages::<F>(frame).zip(base_pages::<F>(next)) {
            for (sample, next) in both::<F>(sample).zip(both::<F>(next)) {
                for status in statuses::<F>() {
                    let stepped = sample.with_status::<F>(status).entry;
                    equal(
                        next.with_status::<F>(status).entry,
                        stepped.wrapping_add(F::FRAME_STEP),
                        "a step from frame to frame",
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// What the format would enter for what `entry` is taken for.
fn entered_again<F: EntryFormat>(entry: u64, depth: usize) -> Option<u64> {
    match F::decode(entry, depth) {
        Entry::Leaf(leaf) => Some(F::leaf(leaf, depth)),
        Entry::InvalidLeaf(leaf) => Some(F::invalidated(F::leaf(leaf, depth))),
        _ => None,
    }
}

pub(super) fn behind_the_last_frame_no_entry_follows<F: EntryFormat>() -> Verdict {
    for last in base_pages::<F>(F::LAST_FRAME) {
        for last in both::<F>(last) {
            let behind = last.entry.wrapping_add(F::FRAME_STEP);
            let bits = F::OWNED | F::TAIL;
            equal(
                last.entry & bits,
                behind & bits,
                "the bits for software stay as they are",
            )?;
            let found = F::decode(behind, last.depth);
            ensure(
                !matches!(
                    found,
                    Entry::Free | Entry::Table { .. } | Entry::InvalidTable { .. }
                ),
                "it does not become something else",
            )?;
            if let Some(again) = entered_again::<F>(behind, last.depth) {
                ensure(
                    (again ^ behind) & !F::STATUS_BITS != 0,
                    "it is no entry of another frame",
                )?;
            }
        }
    }
    Ok(())
}

/// Block numbers behind the last one, of which there are `blocks`.
fn behind(blocks: u64) -> impl Iterator<Item = u64> {
    let powers = (0..48).map(|bit| 1 << bit);
    [blocks]
        .into_iter()
        .chain(powers.filter(move |number| *number > blocks))
}

pub(super) fn the_last_frame_is_the_last_that_an_entry_holds<F: EntryFormat>() -> Verdict {
    base_pages::<F>(F::LAST_FRAME).try_for_each(|last| last.read::<F>())?;
    for depth in 0..last_depth::<F>() {
        Sample::link::<F>(F::LAST_FRAME, false, depth).read::<F>()?;
    }
    if F::LAST_FRAME == Pfn::MAX {
        return Ok(());
    }
    for (depth, order) in leaf_depths::<F>() {
        let Some(order) = order else {
            return fail("an entry translates whole base pages");
        };
        for number in behind(blocks::<F>(order)) {
            let first = number.checked_mul(order.frames()).and_then(Pfn::new);
            let Some(block) = first.and_then(|first| Block::new(first, order)) else {
                continue;
            };
            let leaf = Leaf {
                block,
                role: Role::Descriptors,
                writable: true,
            };
            let found = F::decode(F::leaf(leaf, depth), depth);
            ensure(
                found != Entry::Leaf(leaf),
                "a leaf cannot hold a frame behind the last",
            )?;
        }
    }
    for depth in 0..last_depth::<F>() {
        for frame in behind(blocks::<F>(Order::BASE)).filter_map(Pfn::new) {
            let link = Sample::link::<F>(frame, false, depth);
            let found = F::decode(link.entry, depth);
            ensure(
                found != link.says,
                "a link cannot hold a frame behind the last",
            )?;
        }
    }
    Ok(())
}
