//! One CPU's translation caches, as unkind as the architecture allows.
//!
//! A real CPU drops cached translations whenever it likes, which hides missing flushes. This one
//! keeps all it has ever read until it is told to forget, prefers what it has to what memory says,
//! and compares the two at each access. It caches leaves, and the upper entries on the way to them
//! (the *paging-structure caches*), from which later walks start: after a table was detached, such
//! a walk still goes through it. Where an architecture allows that, it caches entries that are not present, too.

mod cache;
mod filled;
mod mmu;
mod places;
#[cfg(test)]
mod tests;

pub use mmu::{MmuRecord, SimMmu};

use crate::frames::SimFrames;
use crate::memory::SimMemory;
use crate::violations::{CachedAs, Violation};
use crate::walker::{Hole, HoleKind, Scanned, Table, Translation, Walker};
use cache::Cache;
use filled::{Copied, Filled};
use mm_core::addr::{Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::FlushScope;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no translation.
    NotMapped {
        /// The address.
        at: VirtAddr,
        /// Why.
        hole: Hole,
    },
    /// A store to a page that allows none.
    ReadOnly {
        /// The address.
        at: VirtAddr,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped { at, hole } => {
                write!(f, "{at} is not mapped ({:?})", hole.kind)
            }
            Self::ReadOnly { at } => write!(f, "{at} is read-only"),
        }
    }
}

impl std::error::Error for Fault {}

/// How often each operation was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlbCounts {
    /// [`SimTlb::access`] and [`SimTlb::store`].
    pub accesses: u64,
    /// [`SimTlb::invalidate_page`].
    pub page_invalidations: u64,
    /// [`SimTlb::flush_non_global`] and [`SimTlb::load_root`].
    pub non_global_flushes: u64,
    /// [`SimTlb::flush_all`].
    pub full_flushes: u64,
    /// [`SimTlb::forget`].
    pub forgets: u64,
}

#[derive(Debug)]
struct State {
    root: Pfn,
    leaves: Cache<Translation>,
    tables: Cache<Table>,
    /// Entries that are not present, on a CPU that caches them.
    holes: Option<Cache<Hole>>,
    filled: Filled,
    counts: TlbCounts,
    demands_break: bool,
}

#[derive(Debug)]
struct Shared<W> {
    walker: W,
    memory: SimMemory,
    state: Mutex<State>,
}

/// One CPU's translation caches; clones are handles on the same CPU.
#[derive(Debug)]
pub struct SimTlb<W> {
    shared: Arc<Shared<W>>,
}

impl<W> Clone for SimTlb<W> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<W: Walker> SimTlb<W> {
    /// A CPU with empty caches that translates by the tables below `root`, which lie in `memory`,
    /// in the format that `walker` reads. What goes wrong is written to the memory's log.
    pub fn new(walker: W, memory: &SimMemory, root: Pfn) -> Self {
        let granule = walker.granule();
        Self {
            shared: Arc::new(Shared {
                walker,
                memory: memory.clone(),
                state: Mutex::new(State {
                    root,
                    leaves: Cache::new(granule),
                    tables: Cache::new(granule),
                    holes: None,
                    filled: Filled::default(),
                    counts: TlbCounts::default(),
                    demands_break: false,
                }),
            }),
        }
    }

    /// Reads at `at`: what it translates to.
    ///
    /// # Errors
    ///
    /// [`Fault::NotMapped`].
    pub fn access(&self, at: VirtAddr) -> Result<PhysAddr, Fault> {
        let leaf = self.translate(at)?;
        Ok(leaf.address(at, self.shared.walker.granule()))
    }

    /// Writes at `at`: what it translates to.
    ///
    /// # Errors
    ///
    /// [`Fault`].
    pub fn store(&self, at: VirtAddr) -> Result<PhysAddr, Fault> {
        let leaf = self.translate(at)?;
        if leaf.writable {
            Ok(leaf.address(at, self.shared.walker.granule()))
        } else {
            Err(Fault::ReadOnly { at })
        }
    }

    /// Makes this a CPU of an architecture that demands break-before-make (AArch64): it writes down
    /// when it comes upon an entry that leads elsewhere, or is of another size, than what it
    /// has cached for an address.
    pub fn demand_break_before_make(&self) {
        self.lock().demands_break = true;
    }

    /// Makes this a CPU of an architecture that allows to cache entries which are not present (RISC-V): until it is
    /// told to forget them, an access faults, though the entry has become present since. That is
    /// written down.
    pub fn cache_holes(&self) {
        let mut state = self.lock();
        state.holes = Some(Cache::new(self.shared.walker.granule()));
        state.filled.clear();
    }

    /// Caches all tables and leaves for addresses of `range` that are present, as speculation may
    /// at any time, and what is not present, if this CPU [caches that](Self::cache_holes).
    pub fn fill(&self, range: VirtRange) {
        let Shared { walker, memory, .. } = &*self.shared;
        let state = &mut *self.lock();
        let (mut unbroken, mut whole) = (Vec::new(), Vec::new());
        walker.scan_some(memory, state.root, range, &mut |scanned| {
            unbroken.extend(state.unbroken(&scanned));
            match scanned {
                Scanned::Table(table) => {
                    state.tables.add(table);
                    if table.level == 1
                        && range.contains(table.span.start())
                        && range.contains(table.span.last())
                    {
                        if state.filled.has(&table, memory) {
                            return false;
                        }
                        whole.extend(Copied::of(table, memory));
                    }
                }
                Scanned::Leaf(leaf) => state.leaves.add(leaf),
                Scanned::Hole(hole) => state.add_hole(hole),
            }
            true
        });
        for copied in whole {
            state.filled.add(copied, memory);
        }
        unbroken.into_iter().for_each(|found| self.record(found));
    }

    /// Drops the leaves for `at`, global ones too, and all upper entries: INVLPG.
    pub fn invalidate_page(&self, at: VirtAddr) {
        let mut state = self.lock();
        state.counts.page_invalidations += 1;
        if let Some(byte) = VirtRange::between(at, at) {
            state.leaves.drop_range(byte);
            state.filled.drop_range(byte);
        }
        state.tables.clear();
    }

    /// Drops leaves that are not global, and all upper entries: a load of CR3 with the same root.
    pub fn flush_non_global(&self) {
        self.lock().flush_non_global();
    }

    /// Translates by the tables below `root` from now on: a load of CR3. Global leaves stay.
    pub fn load_root(&self, root: Pfn) {
        let mut state = self.lock();
        state.root = root;
        state.flush_non_global();
    }

    /// Drops everything: a change of CR4.PGE.
    pub fn flush_all(&self) {
        let mut state = self.lock();
        state.counts.full_flushes += 1;
        state.clear();
    }

    /// Drops the leaves that overlap `scope` and the upper entries whose span does, and nothing
    /// more.
    pub fn forget(&self, scope: FlushScope<'_>) {
        let mut state = self.lock();
        state.counts.forgets += 1;
        match scope {
            FlushScope::Nothing => {}
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => {
                for range in ranges.iter() {
                    state.leaves.drop_range(*range);
                    state.tables.drop_range(*range);
                    state.filled.drop_range(*range);
                    if let Some(holes) = &mut state.holes {
                        holes.drop_range(*range);
                    }
                }
            }
            FlushScope::Everything => state.clear(),
        }
    }

    /// Drops the leaves that overlap `scope` and keeps all upper entries: TLBI VALE1IS, or SFENCE.VMA with an address,
    /// which is too little where a table was detached. Of what is not present, it drops entries where base pages would
    /// be.
    pub fn forget_leaves(&self, scope: FlushScope<'_>) {
        let mut state = self.lock();
        state.counts.forgets += 1;
        match scope {
            FlushScope::Nothing => {}
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => {
                let page = self.shared.walker.granule().bytes();
                for range in ranges.iter() {
                    state.leaves.drop_range(*range);
                    state.filled.drop_range(*range);
                    if let Some(holes) = &mut state.holes {
                        holes.drop_of_size(page, *range);
                    }
                }
            }
            FlushScope::Everything => {
                state.leaves.clear();
                state.filled.clear();
            }
        }
    }

    /// Drops what is cached of entries for addresses of `range` that were not present, and nothing else: what a kernel has
    /// CPUs do, one way or another, where somebody has mapped something.
    pub fn forget_holes(&self, range: VirtRange) {
        let mut state = self.lock();
        if let Some(holes) = &mut state.holes {
            holes.drop_range(range);
            state.filled.drop_range(range);
        }
    }

    /// Compares what is cached for addresses of `range` with the tables, and writes down what is
    /// stale: leaves as accesses would find them, and upper entries that lead to another table, or
    /// to one where there is none.
    pub fn recheck(&self, range: VirtRange) {
        let Shared { walker, memory, .. } = &*self.shared;
        let state = self.lock();
        let page = walker.granule().bytes();
        let mut stale = Vec::new();
        for leaf in state.leaves.overlapping(range) {
            let last = leaf.span.last().min(range.last());
            let mut next = Some(leaf.span.start().max(range.start()));
            while let Some(at) = next.filter(|at| *at <= last) {
                let live = walker.translate(memory, state.root, at);
                if !self.agree(at, &Ok(*leaf), &live) {
                    let (cached, live) = (Some(*leaf), live.ok());
                    stale.push(Violation::StaleTranslation { at, cached, live });
                    break;
                }
                // As far as both reach, they agree everywhere or nowhere.
                next = match live {
                    Ok(live) => live.span.last().checked_add(1),
                    Err(_) => at.checked_add(page),
                };
            }
        }
        for hole in state
            .holes
            .iter()
            .flat_map(|holes| holes.overlapping(range))
        {
            let at = hole.span.start().max(range.start());
            if let Ok(live) = walker.translate(memory, state.root, at) {
                let (cached, live) = (None, Some(live));
                stale.push(Violation::StaleTranslation { at, cached, live });
            }
        }
        for table in state.tables.overlapping(range) {
            let at = table.span.start();
            let walk = walker.walk(memory, state.root, at);
            let live = walk.tables.iter().find(|live| live.level == table.level);
            let live = live.map(|live| live.frame);
            if live != Some(table.frame) {
                let cached = table.frame;
                stale.push(Violation::StaleTable { at, cached, live });
            }
        }
        drop(state);
        stale.into_iter().for_each(|found| self.record(found));
    }

    /// Whether something cached points at `frame`, as a page or as a table.
    pub fn frame_is_cached(&self, frame: Pfn) -> bool {
        let state = self.lock();
        let frame = PfnRange::single(frame);
        state.leaves.first_of(frame).is_some() || state.tables.first_of(frame).is_some()
    }

    /// How many leaves are cached.
    pub fn cached_leaves(&self) -> usize {
        self.lock().leaves.len()
    }

    /// How many upper entries are cached.
    pub fn cached_tables(&self) -> usize {
        self.lock().tables.len()
    }

    /// How often each operation was done.
    pub fn counts(&self) -> TlbCounts {
        self.lock().counts
    }

    /// Writes down which of `frames`, which are being freed, this CPU can still reach.
    pub fn frames_freed(&self, frames: PfnRange) {
        let state = self.lock();
        let cached = [
            (state.leaves.first_of(frames), CachedAs::Leaf),
            (state.tables.first_of(frames), CachedAs::Table),
        ];
        drop(state);
        for (frame, cached_as) in cached {
            if let Some(frame) = frame {
                self.record(Violation::FreedWhileCached { frame, cached_as });
            }
        }
    }

    /// The leaf that the CPU takes for `at`.
    fn translate(&self, at: VirtAddr) -> Result<Translation, Fault> {
        let Shared { walker, memory, .. } = &*self.shared;
        let state = &mut *self.lock();
        state.counts.accesses += 1;
        let live = walker.translate(memory, state.root, at);

        if let Ok(leaf) = &live
            && let Some(violation) = state.unbroken(&Scanned::Leaf(*leaf))
        {
            self.record(violation);
        }

        // Of several, one that is wrong.
        let wrong = |leaf: &&Translation| !self.agree(at, &Ok(**leaf), &live);
        let cached = state.leaves.at(at).find(wrong);
        let cached = cached.or_else(|| state.leaves.at(at).next()).copied();
        let hole = state.holes.as_ref().and_then(|holes| holes.at(at).next());
        let found = match (cached, hole.copied()) {
            (_, Some(hole)) if live.is_ok() => Err(hole),
            (Some(leaf), _) => Ok(leaf),
            (None, Some(hole)) => Err(hole),
            (None, None) => {
                let deepest = state.tables.at(at).next().copied();
                let start = deepest.map_or_else(|| walker.start(state.root, at), Ok);
                let tables = &mut state.tables;
                start.and_then(|table| {
                    walker.walk_from(memory, table, at, &mut |table| tables.add(table))
                })
            }
        };
        match found {
            Ok(leaf) => state.leaves.add(leaf),
            Err(hole) => state.add_hole(hole),
        }
        if !self.agree(at, &found, &live) {
            self.record(Violation::StaleTranslation {
                at,
                cached: found.ok(),
                live: live.ok(),
            });
        }
        found.map_err(|hole| Fault::NotMapped { at, hole })
    }

    /// Whether an access at `at` comes out alike, whatever the size of the leaf.
    fn agree(
        &self,
        at: VirtAddr,
        cached: &Result<Translation, Hole>,
        live: &Result<Translation, Hole>,
    ) -> bool {
        let granule = self.shared.walker.granule();
        let outcome =
            |leaf: &Translation| (leaf.address(at, granule), leaf.writable, leaf.executable);
        cached.as_ref().ok().map(outcome) == live.as_ref().ok().map(outcome)
    }

    fn record(&self, violation: Violation) {
        self.shared.memory.violations().record(violation);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is wrong with an entry in the tables, if this CPU demands break-before-make and has
    /// another one cached.
    fn unbroken(&self, live: &Scanned) -> Option<Violation> {
        if !self.demands_break {
            return None;
        }
        let (span, frame, cached) = match live {
            Scanned::Hole(_) => return None,
            Scanned::Table(table) => {
                let at_level = |cached: &&Table| cached.span == table.span;
                let other = |cached: &&Table| at_level(cached) && cached.frame != table.frame;
                let cached = self.tables.overlapping(table.span).find(other)?;
                (table.span, table.frame, (cached.span, cached.frame))
            }
            Scanned::Leaf(leaf) => {
                let other =
                    |cached: &&Translation| (cached.span, cached.frame) != (leaf.span, leaf.frame);
                let cached = self.leaves.overlapping(leaf.span).find(other)?;
                (leaf.span, leaf.frame, (cached.span, cached.frame))
            }
        };
        Some(Violation::NotBroken {
            at: span.start().max(cached.0.start()),
            cached: cached.1,
            live: frame,
        })
    }

    fn flush_non_global(&mut self) {
        self.counts.non_global_flushes += 1;
        self.leaves.retain(|leaf| leaf.global);
        self.tables.clear();
        self.filled.clear();
        self.clear_holes();
    }

    fn clear(&mut self) {
        self.leaves.clear();
        self.tables.clear();
        self.filled.clear();
        self.clear_holes();
    }

    fn clear_holes(&mut self) {
        if let Some(holes) = &mut self.holes {
            holes.clear();
        }
    }

    /// Caches `hole`, if this CPU does so and it is an entry that is not present.
    fn add_hole(&mut self, hole: Hole) {
        if let Some(holes) = &mut self.holes
            && hole.kind == HoleKind::NotPresent
        {
            holes.add(hole);
        }
    }
}

impl<W: Walker + Send + Sync + 'static> SimTlb<W> {
    /// Watches `frames` from now on for frames that are freed while they are cached here.
    pub fn watch(&self, frames: &SimFrames) {
        let cpu = self.clone();
        frames.on_free(move |freed| cpu.frames_freed(freed));
    }

    /// Caches all that is present in `range` at each allocation from `frames`: half-built mappings
    /// too, which a rollback then has to flush.
    pub fn fill_at_allocations(&self, frames: &SimFrames, range: VirtRange) {
        let cpu = self.clone();
        frames.on_allocate(move |_| cpu.fill(range));
    }
}
