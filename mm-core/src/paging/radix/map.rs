//! Filling tables from a source of runs.

use super::entries::{step_of, write_groups, write_run};
use super::tree::{Tree, entries_of};
use super::{Engine, load, store};
use crate::addr::{NodeId, Order, Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{
    Entry, EntryFormat, FrameOutOfReach, Groups, Leaf, MapError, MapStopped, Mmu, Role, Roots, Run,
    RunSource, Step,
};
use core::sync::atomic::AtomicU64;

/// What is entered into a part of a leaf table.
#[derive(Clone, Copy)]
enum Part<'r> {
    /// So many leaves of a run.
    Run(usize, &'r Run),
    Groups(&'r Groups),
}

/// What the source has answered and is not entered yet.
enum Ahead {
    Nothing,
    /// The rest of a run.
    Run(Run),
    /// What the next leaf table starts with.
    Groups(Groups),
}

impl Ahead {
    fn rest(run: Option<Run>) -> Self {
        run.map_or(Self::Nothing, Self::Run)
    }

    fn run(&self) -> Option<Run> {
        match self {
            Self::Run(run) => Some(*run),
            _ => None,
        }
    }
}

/// The source of runs, and where it is.
struct Cursor<'s, S> {
    source: &'s mut S,
    ahead: Ahead,
    /// The last address that is to be mapped.
    last: VirtAddr,
    page_shift: u32,
    /// Where tables are to come from.
    node: NodeId,
    /// The last frame that an entry can hold.
    last_frame: Pfn,
}

impl<S: RunSource> Cursor<'_, S> {
    /// The run for `at` and on.
    #[inline]
    fn peek(&mut self, at: VirtAddr, largest: Order) -> Result<Run, MapStopped<S::Error>> {
        if let Some(run) = self.ahead.run() {
            return Ok(run);
        }
        let run = self.next(at, largest)?;
        self.ahead = Ahead::Run(run);
        Ok(run)
    }

    /// The next run of the source, for `at` and on.
    #[inline]
    fn next(&mut self, at: VirtAddr, largest: Order) -> Result<Run, MapStopped<S::Error>> {
        let pages = ((self.last.get() - at.get()) >> self.page_shift) + 1;
        let run = self.source.next_run(at, pages, largest);
        let run = run.map_err(|error| MapStopped::Source { at, error })?;
        if run.last_frame() > self.last_frame {
            return Err(self.refuse(at, run));
        }
        Ok(run)
    }

    /// Groups of the source for `at` and on, with at most `room` leaves, and how many leaves that are.
    #[inline]
    fn next_groups(
        &mut self,
        at: VirtAddr,
        room: usize,
    ) -> Result<Option<(Groups, usize)>, MapStopped<S::Error>> {
        let groups = self.source.next_groups(at, room as u64);
        let groups = groups.map_err(|error| MapStopped::Source { at, error })?;
        let Some(groups) = groups else {
            return Ok(None);
        };
        match usize::try_from(groups.leaves()) {
            Ok(leaves @ 1..) if leaves <= room && groups.last_frame() <= self.last_frame => {
                Ok(Some((groups, leaves)))
            }
            _ => Err(self.refuse_groups(at, groups)),
        }
    }

    /// Gives `groups` back, which are more than was asked for, or have a frame that no entry can hold.
    #[cold]
    #[inline(never)]
    fn refuse_groups(&mut self, at: VirtAddr, groups: Groups) -> MapStopped<S::Error> {
        self.give_back(groups);
        let (frame, last) = (groups.last_frame(), self.last_frame);
        if frame <= last {
            return unsupported(at, Order::BASE);
        }
        let error = MapError::FrameOutOfReach(FrameOutOfReach { frame, last });
        MapStopped::Table { at, error }
    }

    /// Gives `groups` back.
    fn give_back(&mut self, groups: Groups) {
        groups.runs().for_each(|run| self.source.return_unused(run));
    }

    /// Gives `run` back, which has a frame that no entry can hold.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, at: VirtAddr, run: Run) -> MapStopped<S::Error> {
        let (frame, last) = (run.last_frame(), self.last_frame);
        self.source.return_unused(run);
        let error = MapError::FrameOutOfReach(FrameOutOfReach { frame, last });
        MapStopped::Table { at, error }
    }

    /// Takes the leaf at the front of `run`, which was peeked at.
    fn take_one(&mut self, run: Run) -> Leaf {
        let (taken, rest) = run.take(1);
        self.ahead = Ahead::rest(rest);
        taken.leaf
    }

    /// Takes base-page leaves for `room` pages, at least 1, from `at` on and gives them to `enter`,
    /// part by part, with how many leaves came before. Stops early with how many were entered.
    #[inline]
    fn take_base_pages(
        &mut self,
        at: VirtAddr,
        room: usize,
        mut enter: impl FnMut(usize, Part<'_>),
    ) -> Result<(), (usize, MapStopped<S::Error>)> {
        let page_shift = self.page_shift;
        let bytes = |leaves: usize| (leaves as u64) << page_shift;
        let mut entered = 0;
        if let Ahead::Groups(groups) = &self.ahead {
            enter(0, Part::Groups(groups));
            // They were asked for this table, and are no more than it has room for.
            entered = groups.leaves() as usize;
        }
        let mut next = VirtAddr::new(at.get().wrapping_add(bytes(entered)));
        // In local values, since short runs would spend their time on loads and stores of
        // `self.ahead`.
        let mut rest = self.ahead.run();
        self.ahead = Ahead::Nothing;
        while entered < room {
            let stopped = |stopped| (entered, stopped);
            let run = match rest.take() {
                Some(run) => run,
                None => {
                    let groups = self.next_groups(next, room - entered).map_err(stopped)?;
                    if let Some((groups, leaves)) = groups {
                        enter(entered, Part::Groups(&groups));
                        entered += leaves;
                        next = VirtAddr::new(next.get().wrapping_add(bytes(leaves)));
                        continue;
                    }
                    self.next(next, Order::BASE).map_err(stopped)?
                }
            };
            let order = run.leaf.block.order();
            if order != Order::BASE {
                self.ahead = Ahead::Run(run);
                return Err((entered, unsupported(next, order)));
            }
            let left = room - entered;
            let count = usize::try_from(run.count).unwrap_or(left);
            if count >= left {
                enter(entered, Part::Run(left, &run));
                self.ahead = Ahead::rest(run.take(left as u64).1);
                return Ok(());
            }
            enter(entered, Part::Run(count, &run));
            entered += count;
            next = VirtAddr::new(next.get().wrapping_add(bytes(count)));
        }
        Ok(())
    }
}

/// What was done about a free entry of a table above the leaf tables.
enum Filled {
    /// This table was allocated, to be filled and then linked there.
    Below(Pfn),
    /// All is entered up to this address.
    UpTo(VirtAddr),
}

/// Whether CPUs can see a table while it is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visibility {
    Live,
    Unlinked,
}

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// See [`PageTable::map_runs`](crate::paging::PageTable::map_runs).
    ///
    /// # Safety
    ///
    /// As there.
    pub(super) unsafe fn fill<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
    ) -> Result<(), MapStopped<S::Error>> {
        if !range.is_aligned(F::GRANULE.bytes()) || !Tree::<F>::translates(range) {
            return Err(unsupported(range.start(), Order::BASE));
        }
        let mut cursor = Cursor {
            source,
            ahead: Ahead::Nothing,
            last: range.last(),
            page_shift: F::GRANULE.shift(),
            node,
            last_frame: self.tables.last,
        };
        let filled = self.fill_table(0, self.root, Visibility::Live, range, &mut cursor);
        if let Some(rest) = cursor.ahead.run() {
            cursor.source.return_unused(rest);
        }
        self.mmu.entries_added(range);
        filled
    }

    /// Enters runs into the table `frame` at `depth`, above the leaf tables, for `range`, which lies
    /// within it.
    // The one recursion here. What it calls is not inlined, to keep its stack small.
    fn fill_table<S: RunSource>(
        &self,
        depth: usize,
        frame: Pfn,
        visibility: Visibility,
        range: VirtRange,
        cursor: &mut Cursor<'_, S>,
    ) -> Result<(), MapStopped<S::Error>> {
        let slots = self.live_table(frame, depth);
        let mut rest = Some(range);
        while let Some(left) = rest {
            let Some((part, slot)) = entries_of::<F>(slots, depth, left).next() else {
                break;
            };
            rest = left.after(part.last());
            let (table, table_visibility) = match self.attributes.decode(load(slot), depth) {
                Entry::Table { frame, .. } => (frame, Visibility::Live),
                Entry::Free => match self.fill_free_entry(depth, slots, (left, part), cursor)? {
                    Filled::Below(table) => (table, Visibility::Unlinked),
                    Filled::UpTo(last) => {
                        rest = left.after(last);
                        continue;
                    }
                },
                _ => {
                    return Err(MapStopped::Table {
                        at: part.start(),
                        error: MapError::InUse { at: part.start() },
                    });
                }
            };
            let filled = if depth + 1 < Tree::<F>::LEAF_DEPTH {
                self.fill_table(depth + 1, table, table_visibility, part, cursor)
            } else if table_visibility == Visibility::Live {
                self.fill_live_leaf_table(table, part, cursor)
            } else {
                self.fill_new_leaf_table(table, part, cursor)
            };
            if table_visibility == Visibility::Unlinked {
                let is_empty = filled.as_ref();
                let is_empty = is_empty.is_err_and(|stopped| stopped.at() == part.start());
                self.link_or_free(is_empty, depth, slot, visibility, table, part);
            }
            filled?;
        }
        Ok(())
    }

    /// Enters a huge leaf, or links to a shared table, from the free entry for `range` in `slots`, a table
    /// at `depth`, on, if no groups come next, and the next run is one or fills some; no further than `left`, which starts there too.
    /// Otherwise allocates a table, which is to be filled and then linked there.
    #[inline(never)]
    fn fill_free_entry<S: RunSource>(
        &self,
        depth: usize,
        slots: &[AtomicU64],
        (left, range): (VirtRange, VirtRange),
        cursor: &mut Cursor<'_, S>,
    ) -> Result<Filled, MapStopped<S::Error>> {
        let at = range.start();
        if depth + 1 == Tree::<F>::LEAF_DEPTH && matches!(cursor.ahead, Ahead::Nothing) {
            let room = usize::try_from(range.pages(F::GRANULE)).unwrap_or(0);
            if let Some((groups, _)) = cursor.next_groups(at, room)? {
                cursor.ahead = Ahead::Groups(groups);
                return self.table_below(depth, at, cursor);
            }
        }
        let largest = Tree::<F>::largest_leaf(at, cursor.last);
        let run = cursor.peek(at, largest)?;
        let order = run.leaf.block.order();
        if Tree::<F>::is_huge_leaf(depth, order) {
            if !Tree::<F>::covers_entry(depth, range) {
                return Err(unsupported(at, order));
            }
            let leaf = cursor.take_one(run);
            if let Some(slot) = slots.get(Tree::<F>::index(depth, at)) {
                store(slot, self.attributes.leaf(leaf, depth));
            }
            return Ok(Filled::UpTo(range.last()));
        }
        if cursor.source.share_tables() && Self::fills_table(depth, range, &run) {
            let slots = slots.get(Tree::<F>::index(depth, at)..);
            return self.link_run(slots.unwrap_or_default(), left, run, cursor);
        }
        self.table_below(depth, at, cursor)
    }

    /// Allocates the table below an entry at `depth`, for `at` and on. Where there is none, groups go back that
    /// were for it.
    #[inline]
    fn table_below<S: RunSource>(
        &self,
        depth: usize,
        at: VirtAddr,
        cursor: &mut Cursor<'_, S>,
    ) -> Result<Filled, MapStopped<S::Error>> {
        let table = self.tables.allocate(cursor.node).map_err(|error| {
            if let Ahead::Groups(groups) = cursor.ahead {
                cursor.ahead = Ahead::Nothing;
                cursor.give_back(groups);
            }
            let error = error.into();
            MapStopped::Table { at, error }
        })?;
        if depth + 1 != Tree::<F>::LEAF_DEPTH {
            // SAFETY: 1 and 2: the table was allocated just now and is linked nowhere.
            unsafe { self.private_table(table, depth + 1) }.fill(0);
        }
        Ok(Filled::Below(table))
    }

    /// Links `table`, which has been filled for `range`, at the free entry `slot` at `depth`. Frees
    /// it instead if it is empty.
    #[inline(never)]
    fn link_or_free(
        &self,
        is_empty: bool,
        depth: usize,
        slot: &AtomicU64,
        visibility: Visibility,
        table: Pfn,
        range: VirtRange,
    ) {
        if is_empty {
            // SAFETY: 1: taken by `fill_free_entry`, and not linked.
            return unsafe { self.tables.give_back(table) };
        }
        if visibility == Visibility::Live {
            self.mmu.publish();
        }
        store(slot, self.attributes.table(table, false));
        if depth == 0 {
            let at = Tree::<F>::base(depth, range.start());
            // SAFETY: 1: the roots are this engine's, and the entry is stored above.
            unsafe { self.roots.entry_installed(at) };
        }
    }

    /// Whether `run` is the same tail leaf for all of a leaf table, which the entry at `depth` for
    /// `range` would link.
    fn fills_table(depth: usize, range: VirtRange, run: &Run) -> bool {
        depth + 1 == Tree::<F>::LEAF_DEPTH
            && run.step == Step::Same
            && run.leaf.role == Role::Tail
            && run.count >= Tree::<F>::LEAVES_PER_TABLE
            && Tree::<F>::covers_entry(depth, range)
    }

    /// Links a shared table in place of the leaves of `run` at the start of `left`: at the first of `slots`,
    /// which is free, and at as many behind it as are free and wholly filled.
    #[inline(never)]
    fn link_run<S: RunSource>(
        &self,
        slots: &[AtomicU64],
        left: VirtRange,
        run: Run,
        cursor: &mut Cursor<'_, S>,
    ) -> Result<Filled, MapStopped<S::Error>> {
        let at = left.start();
        let leaves = Tree::<F>::LEAVES_PER_TABLE;
        let tables = (run.count / leaves).min(left.pages(F::GRANULE) / leaves);
        let tables = usize::try_from(tables).unwrap_or(slots.len()).max(1);
        let linked = self.link_shared(slots.get(..tables).unwrap_or(slots), run.leaf, cursor.node);
        let (linked, is_new) = linked.map_err(|error| MapStopped::Table { at, error })?;
        let (replaced, rest) = run.take(linked * leaves);
        cursor.ahead = Ahead::rest(rest);
        // A new table has the references of its own leaves.
        let unused = match is_new {
            true => replaced.take(leaves).1,
            false => Some(replaced),
        };
        if let Some(unused) = unused {
            cursor.source.return_unused(unused);
        }
        let bytes = linked.saturating_mul(leaves * F::GRANULE.bytes());
        let last = at.get().saturating_add(bytes.saturating_sub(1));
        Ok(Filled::UpTo(VirtAddr::new(last)))
    }

    /// Enters runs into a leaf table that CPUs may be walking. Its entries for `range` have to be
    /// free.
    #[inline(never)]
    fn fill_live_leaf_table<S: RunSource>(
        &self,
        frame: Pfn,
        range: VirtRange,
        cursor: &mut Cursor<'_, S>,
    ) -> Result<(), MapStopped<S::Error>> {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slots = self.live_table(frame, depth);
        if let Some((part, _)) =
            entries_of::<F>(slots, depth, range).find(|(_, slot)| load(slot) != 0)
        {
            return Err(MapStopped::Table {
                at: range.start(),
                error: MapError::InUse { at: part.start() },
            });
        }
        let slots = window::<F, _>(slots, range);
        let enter_run = |first: usize, count: usize, leaf: Leaf, step: Step| {
            let mut entry = self.attributes.leaf(leaf, depth);
            for slot in slots.iter().skip(first).take(count) {
                store(slot, entry);
                entry = entry.wrapping_add(step_of::<F>(step));
            }
        };
        let enter = |first: usize, part: Part<'_>| match part {
            Part::Run(count, run) => enter_run(first, count, run.leaf, run.step),
            Part::Groups(groups) => {
                let mut first = first;
                for run in groups.runs() {
                    let count = run.count as usize;
                    enter_run(first, count, run.leaf, run.step);
                    first += count;
                }
            }
        };
        let filled = cursor.take_base_pages(range.start(), slots.len(), enter);
        filled.map_err(|(_, stopped)| stopped)
    }

    /// Enters runs into a leaf table that was allocated for this: all of it is written, once.
    #[inline(never)]
    fn fill_new_leaf_table<S: RunSource>(
        &self,
        frame: Pfn,
        range: VirtRange,
        cursor: &mut Cursor<'_, S>,
    ) -> Result<(), MapStopped<S::Error>> {
        let depth = Tree::<F>::LEAF_DEPTH;
        // SAFETY: 1 and 2: `fill_free_entry` allocated it and has not linked it.
        let slots = unsafe { self.private_table(frame, depth) };
        let (below, slots) = slots.split_at_mut(Tree::<F>::index(depth, range.start()));
        zero(below);
        let pages = usize::try_from(range.pages(F::GRANULE)).unwrap_or(slots.len());
        let (slots, above) = slots.split_at_mut(pages.min(slots.len()));
        zero(above);
        let room = slots.len();
        let enter = |first: usize, part: Part<'_>| match part {
            Part::Run(count, run) => {
                if let Some(slots) = slots.get_mut(first..first + count) {
                    write_run::<F>(slots, self.attributes.leaf(run.leaf, depth), run.step);
                }
            }
            Part::Groups(groups) => {
                let slots = slots.get_mut(first..first + groups.leaves() as usize);
                write_groups(&self.attributes, slots.unwrap_or_default(), groups, depth);
            }
        };
        let filled = cursor.take_base_pages(range.start(), room, enter);
        filled.map_err(|(entered, stopped)| {
            slots.get_mut(entered..).unwrap_or_default().fill(0);
            stopped
        })
    }
}

/// Zeroes `slots`, mostly none.
#[inline]
fn zero(slots: &mut [u64]) {
    if !slots.is_empty() {
        slots.fill(0);
    }
}

/// The entries of a leaf table that `range`, which lies within it, is about.
#[inline]
fn window<F: EntryFormat, T>(slots: &[T], range: VirtRange) -> &[T] {
    let first = Tree::<F>::index(Tree::<F>::LEAF_DEPTH, range.start());
    let last = Tree::<F>::index(Tree::<F>::LEAF_DEPTH, range.last());
    slots.get(first..=last).unwrap_or_default()
}

fn unsupported<E>(at: VirtAddr, order: Order) -> MapStopped<E> {
    MapStopped::Table {
        at,
        error: MapError::Unsupported { at, order },
    }
}
