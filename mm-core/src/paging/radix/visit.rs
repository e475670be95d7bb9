//! Reading the tree.

use super::entries::run_of;
use super::tree::{Tree, entries_of};
use super::{Engine, load};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{
    Attributes, Entry, EntryFormat, Link, Lookup, Mapping, Mmu, Roots, Run, Visit,
};
use core::ops::ControlFlow;
use core::sync::atomic::AtomicU64;

/// How many entries of a live table are looked at together.
const WINDOW: usize = 32;

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// See [`PageTable::lookup`](crate::paging::PageTable::lookup).
    pub(super) fn look_up(&self, at: VirtAddr) -> Lookup {
        let alone = VirtRange::single(at);
        let (around, translated) = Tree::<F>::alike(at).unwrap_or((alone, false));
        if !translated {
            return Lookup::Hole(around);
        }
        let mut frame = self.root;
        for depth in 0..=Tree::<F>::LEAF_DEPTH {
            let slots = self.live_table(frame, depth);
            let Some(slot) = slots.get(Tree::<F>::index(depth, at)) else {
                break;
            };
            let span = || Tree::<F>::span(depth, at).unwrap_or(alone);
            let entry = load(slot);
            match self.attributes.decode(entry, depth) {
                Entry::Table { frame: next, .. } => frame = next,
                Entry::Leaf(leaf) => {
                    let by_address = match depth == Tree::<F>::LEAF_DEPTH {
                        true => self.attributes.leaf_at(entry, at),
                        false => None,
                    };
                    let leaf = by_address.unwrap_or(leaf);
                    let at = Tree::<F>::base(depth, at);
                    return Lookup::Mapped(Mapping { at, leaf });
                }
                Entry::Free => return Lookup::Hole(span()),
                _ => return Lookup::Reserved(span()),
            }
        }
        Lookup::Hole(alone)
    }

    /// The entry of the leaf that translates `at`, what it says, and whether it is in a shared
    /// table.
    pub(super) fn find_slot(&self, at: VirtAddr) -> Option<(&AtomicU64, Mapping, bool)> {
        if !F::translates(at) {
            return None;
        }
        let mut frame = self.root;
        let mut shared = false;
        for depth in 0..=Tree::<F>::LEAF_DEPTH {
            let slot = self
                .live_table(frame, depth)
                .get(Tree::<F>::index(depth, at))?;
            match self.attributes.decode(load(slot), depth) {
                Entry::Table { frame: next, link } => {
                    shared |= link == Link::Shared;
                    frame = next;
                }
                Entry::Leaf(leaf) => {
                    let at = Tree::<F>::base(depth, at);
                    return Some((slot, Mapping { at, leaf }, shared));
                }
                _ => return None,
            }
        }
        None
    }

    /// See [`PageTable::visit`](crate::paging::PageTable::visit).
    pub(super) fn visit_tree(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if Tree::<F>::translates(range) {
            return self.visit_table(0, self.root, range, visitor);
        }
        // A model may have room where there are no addresses.
        Tree::<F>::translated(range)
            .try_for_each(|part| self.visit_table(0, self.root, part, visitor))
    }

    fn visit_table(
        &self,
        depth: usize,
        frame: Pfn,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let slots = self.live_table(frame, depth);
        if depth == Tree::<F>::LEAF_DEPTH {
            return visit_leaf_table(&self.attributes, slots, range, visitor);
        }
        for (part, slot) in entries_of::<F>(slots, depth, range) {
            let at = Tree::<F>::base(depth, part.start());
            if let Some(next) = self.visit_entry(load(slot), depth, at, visitor)? {
                self.visit_table(depth + 1, next, part, visitor)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Reports `entry` at `at`, which is not in a leaf table. Answers with the table whose entries are to be
    /// visited next.
    // Not inlined: what it takes of the stack is not needed at each level.
    #[inline(never)]
    fn visit_entry(
        &self,
        entry: u64,
        depth: usize,
        at: VirtAddr,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<(), Option<Pfn>> {
        match self.attributes.decode(entry, depth) {
            Entry::Table {
                frame,
                link: Link::Shared,
            } => {
                if let Some(run) = self.shared_run(frame) {
                    visitor(Visit::SharedTable { at, frame, run })?;
                }
            }
            Entry::Table { frame, link } => {
                visitor(Visit::Table {
                    at,
                    frame,
                    leaf_table: depth + 1 == Tree::<F>::LEAF_DEPTH,
                    owned: link == Link::Private,
                })?;
                return ControlFlow::Continue(Some(frame));
            }
            Entry::Leaf(leaf) => visitor(Visit::Leaves {
                at,
                run: Run::once(leaf),
            })?,
            _ => {}
        }
        ControlFlow::Continue(None)
    }

    /// See [`PageTable::first_in_use`](crate::paging::PageTable::first_in_use).
    pub(super) fn find_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        if Tree::<F>::translates(range) {
            return self.find_in_use_below(0, self.root, range);
        }
        Tree::<F>::translated(range).find_map(|part| self.find_in_use_below(0, self.root, part))
    }

    fn find_in_use_below(&self, depth: usize, frame: Pfn, range: VirtRange) -> Option<VirtAddr> {
        let slots = self.live_table(frame, depth);
        entries_of::<F>(slots, depth, range).find_map(|(part, slot)| {
            match self.attributes.decode(load(slot), depth) {
                Entry::Free => None,
                Entry::Table { frame, .. } => self.find_in_use_below(depth + 1, frame, part),
                _ => Some(part.start()),
            }
        })
    }
}

/// Reports the leaves of a leaf table that lie in `range`.
fn visit_leaf_table<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[AtomicU64],
    range: VirtRange,
    visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let depth = Tree::<F>::LEAF_DEPTH;
    let first = Tree::<F>::index(depth, range.start());
    let last = Tree::<F>::index(depth, range.last());
    let mut at = range.start();
    for window in slots.get(first..=last).unwrap_or_default().chunks(WINDOW) {
        let mut entries = [0; WINDOW];
        for (entry, slot) in entries.iter_mut().zip(window) {
            *entry = load(slot);
        }
        let entries = entries.get(..window.len()).unwrap_or_default();
        let mut index = 0;
        while let Some((&entry, rest)) = entries.get(index..).and_then(<[u64]>::split_first) {
            let Entry::Leaf(leaf) = attributes.decode(entry, depth) else {
                index += 1;
                continue;
            };
            let at = Tree::<F>::step(depth, at, index);
            let run = match attributes.leaf_at(entry, at) {
                Some(leaf) => Run::once(leaf),
                None => run_of::<F>(leaf, entry, rest),
            };
            visitor(Visit::Leaves { at, run })?;
            index += run.count as usize;
        }
        at = Tree::<F>::step(depth, at, window.len());
    }
    ControlFlow::Continue(())
}
