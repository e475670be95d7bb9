//! Clearing one leaf, and the tables that go with the last one.
//!
//! ```text
//!   clear_leaf   leaf zeroed; tables without another entry detached: one store at the topmost
//!   flush        CPUs forget leaf and tables, then the tables are freed
//! ```
//!
//! A detached table stays linked by an entry that is not present, which remembers it, until the
//! obligation is met that says so.

use super::tree::{Tree, entries_of};
use super::{Engine, load, store};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{
    Attributes, Entry, EntryFormat, Flush, FlushScope, Link, Mapping, Mmu, Role, Roots, Run,
};
use core::sync::atomic::AtomicU64;

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// See [`PageTable::clear_leaf`](crate::paging::PageTable::clear_leaf).
    pub(super) fn clear_entry(&self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let (slot, mapping, in_shared_table) = self.find_slot(at)?;
        if in_shared_table || mapping.leaf.role == Role::Foreign {
            return None;
        }
        let bytes = mapping.leaf.block.order().bytes(F::GRANULE)?;
        let span = VirtRange::new(mapping.at, bytes).ok()?;
        store(slot, 0);
        flush.add(span);
        self.detach_empty(0, self.root, false, at, flush);
        Some(mapping)
    }

    /// Detaches the topmost of the tables for `at` below the table `frame` at `depth` that have no
    /// entry. Says whether that table, which can be detached if it is `owned`, has none either.
    fn detach_empty(
        &self,
        depth: usize,
        frame: Pfn,
        owned: bool,
        at: VirtAddr,
        flush: &mut Flush,
    ) -> bool {
        let slots = self.live_table(frame, depth);
        let index = Tree::<F>::index(depth, at);
        if let Some(slot) = slots.get(index)
            && let Entry::Table { frame, link } = self.attributes.decode(load(slot), depth)
            && link != Link::Shared
            && self.detach_empty(depth + 1, frame, link == Link::Private, at, flush)
            && let Some(span) = Tree::<F>::span(depth, at)
        {
            store(slot, F::invalidated(load(slot)));
            if depth == 0 {
                // SAFETY: 1: the roots are this engine's, and its own entry is invalidated above.
                unsafe { self.roots.entry_removed(span.start()) };
            }
            flush.add_detached(span);
        }
        owned && is_empty(&self.attributes, slots, depth, index)
    }

    /// Frees the tables that `clear_leaf` has detached, where CPUs have forgotten them by
    /// `obligation`, which has been met.
    pub(super) fn reclaim_detached(&self, obligation: &Flush) {
        let Some(all) = obligation.detached() else {
            return;
        };
        match obligation.scope() {
            FlushScope::Nothing => {}
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => {
                for range in ranges.iter() {
                    self.reclaim_detached_below(0, self.root, *range);
                }
            }
            FlushScope::Everything => self.reclaim_detached_below(0, self.root, all),
        }
    }

    /// Frees the detached tables below the table `frame` at `depth` all of whose addresses are of
    /// `range`.
    fn reclaim_detached_below(&self, depth: usize, frame: Pfn, range: VirtRange) {
        if depth == Tree::<F>::LEAF_DEPTH || !Tree::<F>::translates(range) {
            return;
        }
        for (part, slot) in entries_of::<F>(self.live_table(frame, depth), depth, range) {
            match self.attributes.decode(load(slot), depth) {
                Entry::InvalidTable { frame } if Tree::<F>::covers_entry(depth, part) => {
                    store(slot, 0);
                    // Nothing is in it, but for links to tables that are empty too.
                    self.release_table(depth + 1, frame, &mut |_: Run| {});
                }
                Entry::Table { frame, link } if link != Link::Shared => {
                    self.reclaim_detached_below(depth + 1, frame, part);
                }
                _ => {}
            }
        }
    }
}

/// Whether nothing is in a table at `depth` but tables that were detached. `index` is the entry
/// that went last: mostly its neighbours are there.
fn is_empty<F: EntryFormat>(
    attributes: &Attributes<F>,
    slots: &[AtomicU64],
    depth: usize,
    index: usize,
) -> bool {
    let is_dead = |slot: &AtomicU64| {
        let entry = load(slot);
        entry == 0 || matches!(attributes.decode(entry, depth), Entry::InvalidTable { .. })
    };
    let near = slots.get(index.saturating_sub(1)..).unwrap_or_default();
    near.iter().take(3).all(is_dead) && slots.iter().all(is_dead)
}
