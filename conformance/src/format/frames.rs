//! From frame to frame, and the last one.

use super::any::AnyFormat;
use super::samples::{ALL_ROLES, Sample, blocks, last_depth, leaf_depths, numbers, statuses};
use crate::outcome::{Verdict, ensure, equal, fail, skip};
use mm_core::addr::{Block, Order, Pfn};
use mm_core::paging::{Entry, Leaf, Role};

/// The leaves of one frame, one for each role, writable and not.
fn base_pages(format: &AnyFormat, frame: Pfn) -> impl Iterator<Item = Sample> {
    let kinds = ALL_ROLES
        .into_iter()
        .flat_map(|role| [(role, true), (role, false)]);
    kinds.map(move |(role, writable)| {
        let leaf = Leaf {
            writable,
            ..Leaf::single(frame, role)
        };
        Sample::leaf(format, leaf, last_depth(format))
    })
}

/// An entry, and the same invalidated.
fn both(format: &AnyFormat, sample: Sample) -> impl Iterator<Item = Sample> {
    let invalid = sample.invalidated(format);
    [Some(sample), invalid].into_iter().flatten()
}

pub(super) fn a_step_is_the_next_frame_and_nothing_else(format: &AnyFormat) -> Verdict {
    let Some(last_but_one) = format.last_frame.get().checked_sub(1) else {
        return skip("there is one frame only");
    };
    for number in numbers(last_but_one) {
        let (Some(frame), Some(next)) = (Pfn::new(number), Pfn::new(number + 1)) else {
            return fail("a frame up to the last can be named");
        };
        for (sample, next) in base_pages(format, frame).zip(base_pages(format, next)) {
            for (sample, next) in both(format, sample).zip(both(format, next)) {
                for status in statuses(format) {
                    let stepped = sample.with_status(format, status).entry;
                    equal(
                        next.with_status(format, status).entry,
                        stepped.wrapping_add(format.frame_step),
                        "a step from frame to frame",
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// What the format would enter for what `entry` is taken for.
fn entered_again(format: &AnyFormat, entry: u64, depth: usize) -> Option<u64> {
    match (format.decode)(entry, depth) {
        Entry::Leaf(leaf) => Some((format.leaf)(leaf, depth)),
        Entry::InvalidLeaf(leaf) => Some((format.invalidated)((format.leaf)(leaf, depth))),
        _ => None,
    }
}

pub(super) fn behind_the_last_frame_no_entry_follows(format: &AnyFormat) -> Verdict {
    for last in base_pages(format, format.last_frame) {
        for last in both(format, last) {
            let behind = last.entry.wrapping_add(format.frame_step);
            let bits = format.owned | format.tail;
            equal(
                last.entry & bits,
                behind & bits,
                "the bits for software stay as they are",
            )?;
            let found = (format.decode)(behind, last.depth);
            ensure(
                !matches!(
                    found,
                    Entry::Free | Entry::Table { .. } | Entry::InvalidTable { .. }
                ),
                "it does not become something else",
            )?;
            if let Some(again) = entered_again(format, behind, last.depth) {
                ensure(
                    (again ^ behind) & !format.status_bits != 0,
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

pub(super) fn the_last_frame_is_the_last_that_an_entry_holds(format: &AnyFormat) -> Verdict {
    base_pages(format, format.last_frame).try_for_each(|last| last.read(format))?;
    for depth in 0..last_depth(format) {
        Sample::link(format, format.last_frame, false, depth).read(format)?;
    }
    if format.last_frame == Pfn::MAX {
        return Ok(());
    }
    for (depth, order) in leaf_depths(format) {
        let Some(order) = order else {
            return fail("an entry translates whole base pages");
        };
        for number in behind(blocks(format, order)) {
            let first = number.checked_mul(order.frames()).and_then(Pfn::new);
            let Some(block) = first.and_then(|first| Block::new(first, order)) else {
                continue;
            };
            let leaf = Leaf {
                block,
                role: Role::Descriptors,
                writable: true,
            };
            let found = (format.decode)((format.leaf)(leaf, depth), depth);
            ensure(
                found != Entry::Leaf(leaf),
                "a leaf cannot hold a frame behind the last",
            )?;
        }
    }
    for depth in 0..last_depth(format) {
        for frame in behind(blocks(format, Order::BASE)).filter_map(Pfn::new) {
            let link = Sample::link(format, frame, false, depth);
            let found = (format.decode)(link.entry, depth);
            ensure(
                found != link.says,
                "a link cannot hold a frame behind the last",
            )?;
        }
    }
    Ok(())
}
