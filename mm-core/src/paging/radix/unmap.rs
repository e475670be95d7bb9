//! Invalidate, flush, reclaim.
//!
//! Invalidating makes an entry not present and leaves in it what it pointed at. After the flush the
//! same entries are found again, zeroed, and reported.
//!
//! A look at a leaf table tells whether it can be detached, and whether its first entries tell of all others.
//! If they do, its invalidated link says so where the format has a bit for that
//! ([`ALIKE`](EntryFormat::ALIKE)): nobody has to read them once more.
//!
//! ```text
//!   before           a table with other entries      a table with nothing else
//!   parent  [T]      [T]                             [t]   one store: detached
//!   leaves  [A B C]  [a b C]                         [A B] untouched
//!   after reclaim    [0 0 C]                         [0], A and B reported, T freed
//! ```

use super::alike::Alike;
use super::report::{report_alike, report_leaves};
use super::tree::{Tree, entries_of};
use super::{Engine, load, store};
use crate::addr::{Pfn, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{Entry, EntryFormat, Flush, Link, Mmu, Role, Roots, Run, RunSink, SeenBits};
use core::sync::atomic::AtomicU64;

/// How many entries of a live table are looked at together.
const WINDOW: usize = 32;

/// Whether a table is detached from its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detach {
    /// It has entries that have to be kept.
    Kept,
    /// Nothing has to be kept.
    Whole,
    /// The same of a leaf table whose first entries tell of all others.
    Alike,
}

impl Detach {
    const fn whole(nothing_left: bool) -> Self {
        match nothing_left {
            true => Self::Whole,
            false => Self::Kept,
        }
    }
}

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// Makes this library's entries of `range` not present, and adds to `obligation` what has to be
    /// flushed.
    pub(super) fn invalidate(&self, range: VirtRange, obligation: &mut Flush) {
        if Tree::<F>::translates(range) {
            self.invalidate_table(0, self.root, false, range, obligation);
            obligation.add(range);
        }
    }

    /// Invalidates entries within the table `frame` at `depth`. Says whether the table can be detached from
    /// its parent, since no entry has to be kept. Only an `owned` table can be. What a huge leaf translates
    /// beyond `range` is added to `obligation`.
    fn invalidate_table(
        &self,
        depth: usize,
        frame: Pfn,
        owned: bool,
        range: VirtRange,
        obligation: &mut Flush,
    ) -> Detach {
        let slots = self.live_table(frame, depth);
        let first = Tree::<F>::index(depth, range.start());
        let last = Tree::<F>::index(depth, range.last());
        let is_dead = |slot: &AtomicU64| {
            let entry = load(slot);
            entry == 0
                || matches!(
                    self.attributes.decode(entry, depth),
                    Entry::InvalidTable { .. } | Entry::InvalidLeaf(_)
                )
        };
        let outside = |slots: &[AtomicU64]| {
            slots.iter().take(first).all(is_dead) && slots.iter().skip(last + 1).all(is_dead)
        };

        if depth == Tree::<F>::LEAF_DEPTH {
            let inside = slots.get(first..=last).unwrap_or_default();
            if owned && outside(slots) {
                match look_at::<F>(inside) {
                    Detach::Kept => {}
                    // What is outside is told by nothing.
                    Detach::Alike if inside.len() < slots.len() => return Detach::Whole,
                    detach => return detach,
                }
            }
            for slot in inside {
                self.invalidate_leaf(depth, slot);
            }
            return Detach::Kept;
        }

        let mut nothing_left = owned;
        for (part, slot) in entries_of::<F>(slots, depth, range) {
            let entry = load(slot);
            let detach = match self.attributes.decode(entry, depth) {
                // Never written to: unlinked whole, or kept.
                Entry::Table {
                    link: Link::Shared, ..
                } => Detach::whole(Tree::<F>::covers_entry(depth, part)),
                Entry::Table { frame, link } => {
                    let owned = link == Link::Private;
                    self.invalidate_table(depth + 1, frame, owned, part, obligation)
                }
                Entry::Free | Entry::InvalidTable { .. } | Entry::InvalidLeaf(_) => continue,
                Entry::Leaf(_) | Entry::Reserved => {
                    if self.invalidate_leaf(depth, slot) {
                        if let Some(span) = Tree::<F>::span(depth, part.start())
                            && span != part
                        {
                            obligation.add(span);
                        }
                    } else {
                        nothing_left = false;
                    }
                    continue;
                }
            };
            if detach == Detach::Kept {
                nothing_left = false;
            } else {
                obligation.note_links();
                let alike = if detach == Detach::Alike { F::ALIKE } else { 0 };
                store(slot, F::invalidated(entry) | alike);
                if depth == 0 {
                    let at = Tree::<F>::base(depth, part.start());
                    // SAFETY: 1: the roots are this engine's, and its own entry is invalidated above.
                    unsafe { self.roots.entry_removed(at) };
                }
            }
        }
        Detach::whole(nothing_left && outside(slots))
    }

    /// Makes a leaf entry not present, if it is this library's; says whether it was.
    fn invalidate_leaf(&self, depth: usize, slot: &AtomicU64) -> bool {
        let entry = load(slot);
        let own = matches!(self.attributes.decode(entry, depth), Entry::Leaf(leaf) if leaf.role != Role::Foreign);
        if own {
            store(slot, F::invalidated(entry));
        }
        own
    }

    /// Zeroes the invalidated entries of `range`, reports what they pointed at, and frees the
    /// tables that were detached.
    ///
    /// # Safety
    ///
    /// 1. The obligation of the invalidation has been met since.
    /// 2. Nobody uses the addresses any more.
    pub(super) unsafe fn reclaim(&self, range: VirtRange, released: &mut dyn RunSink) {
        if Tree::<F>::translates(range) {
            self.reclaim_table(0, self.root, range, released);
        }
    }

    fn reclaim_table(
        &self,
        depth: usize,
        frame: Pfn,
        range: VirtRange,
        released: &mut dyn RunSink,
    ) {
        let slots = self.live_table(frame, depth);
        if depth == Tree::<F>::LEAF_DEPTH {
            let first = Tree::<F>::index(depth, range.start());
            let last = Tree::<F>::index(depth, range.last());
            for window in slots.get(first..=last).unwrap_or_default().chunks(WINDOW) {
                self.reclaim_window(depth, window, released);
            }
            return;
        }
        let mut again = None;
        for (part, slot) in entries_of::<F>(slots, depth, range) {
            let entry = load(slot);
            match self.attributes.decode(entry, depth) {
                Entry::Table {
                    link: Link::Shared, ..
                } => {}
                Entry::Table { frame, .. } => {
                    self.reclaim_table(depth + 1, frame, part, released);
                }
                Entry::InvalidTable { frame } => {
                    store(slot, 0);
                    self.release_link(depth + 1, entry, frame, &mut again, released);
                }
                Entry::InvalidLeaf(leaf) => {
                    store(slot, 0);
                    released.run(Run::once(leaf));
                }
                _ => {}
            }
        }
        self.release_again(depth + 1, again, released);
    }

    /// Zeroes and reports the invalidated leaves among a few entries of a live table.
    // Not inlined: its entries would be on the stack at every level of the recursion.
    #[inline(never)]
    fn reclaim_window(&self, depth: usize, slots: &[AtomicU64], released: &mut dyn RunSink) {
        let mut entries = [0; WINDOW];
        for (entry, slot) in entries.iter_mut().zip(slots) {
            let found = load(slot);
            if matches!(self.attributes.decode(found, depth), Entry::InvalidLeaf(_)) {
                *entry = found;
                store(slot, 0);
            }
        }
        let entries = entries.get(..slots.len()).unwrap_or_default();
        report_leaves(&self.attributes, entries, released);
    }

    /// Gives back the reference of the link `entry` to the table `frame` that no CPU can reach through it
    /// any more. Links to one shared table are gathered in `again`, until there is another one.
    fn release_link(
        &self,
        depth: usize,
        entry: u64,
        frame: Pfn,
        again: &mut Option<SharedLinks>,
        released: &mut dyn RunSink,
    ) {
        if entry & F::TAIL == 0 {
            let known = match entry & F::ALIKE {
                0 => Known::Private,
                _ => Known::PrivateAlike,
            };
            return self.release_links(depth, frame, 1, known, released);
        }
        match again {
            Some(same) if same.table == frame => same.links += 1,
            other => {
                let links = 1;
                let before = other.replace(SharedLinks {
                    table: frame,
                    links,
                });
                self.release_again(depth, before, released);
            }
        }
    }

    /// Gives back the references of links that were gathered.
    fn release_again(&self, depth: usize, again: Option<SharedLinks>, released: &mut dyn RunSink) {
        if let Some(SharedLinks { table, links }) = again {
            self.release_links(depth, table, links, Known::Nothing, released);
        }
    }

    /// Gives back the reference of a link to a table, which may be shared, that no CPU can reach through it
    /// any more. With the last one, the references of the table's own entries go too.
    pub(super) fn release_table(&self, depth: usize, frame: Pfn, released: &mut dyn RunSink) {
        self.release_links(depth, frame, 1, Known::Nothing, released);
    }

    /// The same for several links, at least 1. `known` tells what is known of the table.
    fn release_links(
        &self,
        depth: usize,
        frame: Pfn,
        links: u64,
        known: Known,
        released: &mut dyn RunSink,
    ) {
        // SAFETY: 1: tables come from there. 2: the links that owned the references are cleared and
        // flushed.
        let Some(dead) = (unsafe { self.tables.release(frame, links) }) else {
            return;
        };
        if depth == Tree::<F>::LEAF_DEPTH {
            if known == Known::Nothing
                && let Some(run) = self.shared_run(frame)
            {
                self.records.remove_shared_table(run.leaf, frame);
            }
            // SAFETY: 1: the last link is gone and flushed. 2: read here only, before it is freed.
            let slots = unsafe { self.private_table(frame, depth) };
            match known {
                Known::PrivateAlike => report_alike(&self.attributes, slots, released),
                Known::Private | Known::Nothing => {
                    report_leaves(&self.attributes, slots, released);
                }
            }
        } else {
            // Children of a detached table were invalidated, or are whole and were left as they
            // are.
            let mut again = None;
            for slot in self.live_table(frame, depth) {
                let entry = load(slot);
                match self.attributes.decode(entry, depth) {
                    Entry::InvalidTable { frame }
                    | Entry::Table {
                        frame,
                        link: Link::Private | Link::Shared,
                    } => self.release_link(depth + 1, entry, frame, &mut again, released),
                    Entry::InvalidLeaf(leaf) => released.run(Run::once(leaf)),
                    Entry::Leaf(leaf) if leaf.role != Role::Foreign => {
                        released.run(Run::once(leaf))
                    }
                    _ => {}
                }
            }
            self.release_again(depth + 1, again, released);
        }
        // SAFETY: 1: released above.
        unsafe { self.tables.free(dead) };
    }
}

/// What is known of a table whose last link goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It may be recorded as shared.
    Nothing,
    Private,
    /// The same, a leaf table; all of its entries are this library's, and the first ones tell of all others.
    PrivateAlike,
}

/// Links to one shared table whose references have not been released yet.
#[derive(Clone, Copy)]
struct SharedLinks {
    table: Pfn,
    links: u64,
}

/// Whether a part of a leaf table can be detached, as all of its entries are this library's or free, and whether
/// the first ones tell of all others. A range that is unmapped may have gaps, and other code may have mapped
/// something there.
// Not inlined: who calls it recurses over levels.
#[inline(never)]
fn look_at<F: EntryFormat>(slots: &[AtomicU64]) -> Detach {
    let begun = Alike::begun_by::<F>(|index| slots.get(index).map(load));
    if let Some(lines) = begun.and_then(Alike::lines::<F>)
        && lines.first.iter().all(|entry| entry & F::OWNED != 0)
        && let (entries, []) = slots.as_chunks()
        && F::are_lines(entries, &lines)
    {
        return Detach::Alike;
    }
    // The first two apart: the first one may be a head, and wide loads are aligned to two entries.
    let (start, others) = slots.split_at_checked(2).unwrap_or((slots, &[]));
    let of_slot = |slot| SeenBits::of_entry(load(slot));
    let first = start.first().map_or(SeenBits::NONE, of_slot);
    let second = start.get(1).map_or(SeenBits::NONE, of_slot);
    let behind = F::seen_bits(others).and(second);
    if first.and(behind).all & F::OWNED != 0 {
        let is_equal = (behind.all ^ behind.any) & !F::STATUS_BITS == 0;
        return match begun {
            Some(Alike::Equal) if is_equal => Detach::Alike,
            _ => Detach::Whole,
        };
    }
    // Mostly there is no gap.
    let mut entries = slots.iter().map(load);
    Detach::whole(entries.all(|entry| entry == 0 || entry & F::OWNED != 0))
}
