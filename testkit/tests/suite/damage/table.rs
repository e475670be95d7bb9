//! A page table that is damaged: the engine's, with something wrong around it.

use super::frames::DamagedFrames;
use super::kinds::Damage;
use arch_sim::SimMemory;
use arch_x86_64::FourLevel;
use hosted::{Machine, Radix, SimCpus, X86_64, X86Cpus};
use mm_core::addr::{Block, Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{
    Exchange, Flush, FlushScope, Groups, InUse, Leaf, Lookup, MapError, MapStopped, Mapping, Mmu,
    NoRecords, PageTable, RadixTable, Replace, ReplaceError, Replaced, Replacement, Role, Roots,
    Run, RunSink, RunSource, Span, Step, TableRecords, Visit,
};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

/// The hardware, which does not always listen.
pub(crate) struct DamagedMmu<'m> {
    mmu: <X86_64 as Radix>::Mmu<'m>,
    deaf: Rc<Cell<bool>>,
    cpus: &'m X86Cpus,
    damage: Damage,
}

impl DamagedMmu<'_> {
    fn inner(&self) -> &dyn Mmu<FourLevel> {
        &self.mmu
    }
}

// SAFETY: kept by the MMU inside, except for what is damaged on purpose.
unsafe impl Mmu<FourLevel> for DamagedMmu<'_> {
    fn flush(&self, scope: FlushScope<'_>) {
        match self.damage {
            _ if self.deaf.get() => {}
            Damage::FlushesLeavesOnly => {
                let all = self.cpus.all().iter();
                all.for_each(|cpu| cpu.forget_leaves(scope));
            }
            _ => self.inner().flush(scope),
        }
    }

    fn publish(&self) {
        self.inner().publish();
    }

    fn replacement(&self) -> Replacement {
        self.inner().replacement()
    }
}

/// The other roots, which are not told as they should be.
pub(crate) struct DamagedRoots<'m> {
    cpus: &'m X86Cpus,
    damage: Damage,
}

// SAFETY: there is one root; what others would be told is damaged on purpose.
unsafe impl Roots for DamagedRoots<'_> {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        let times = match self.damage {
            Damage::TellsNoRoots => 0,
            Damage::TellsRootsTwice => 2,
            _ => 1,
        };
        for _ in 0..times {
            // SAFETY: 1: the caller's duty, but for how often.
            unsafe { self.cpus.entry_installed(at) };
        }
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        if self.damage != Damage::TellsNoRoots {
            // SAFETY: the caller's duty is the same.
            unsafe { self.cpus.entry_removed(at) };
        }
    }
}

/// The engine's.
type Inside<'m> =
    RadixTable<FourLevel, DamagedFrames<'m>, &'m SimMemory, DamagedMmu<'m>, DamagedRoots<'m>>;

/// The engine's table, with the damage around it.
pub(crate) struct DamagedTable<'m> {
    pub(super) table: Inside<'m>,
    pub(super) machine: &'m Machine<X86_64>,
    pub(super) damage: Damage,
    deaf: Rc<Cell<bool>>,
    /// The first tail frame that was mapped.
    first_tail: Option<Leaf>,
}

impl<'m> DamagedTable<'m> {
    /// The one table of `machine`.
    pub(crate) fn new(machine: &'m Machine<X86_64>, damage: Damage) -> Self {
        let deaf = Rc::new(Cell::new(false));
        let mmu = DamagedMmu {
            mmu: X86_64::mmu(machine.cpus()),
            deaf: Rc::clone(&deaf),
            cpus: machine.cpus(),
            damage,
        };
        let roots = DamagedRoots {
            cpus: machine.cpus(),
            damage,
        };
        let frames = DamagedFrames {
            frames: machine.frames(),
            damage,
            for_tables: true,
        };
        Self {
            // SAFETY: 1: the machine's root table is empty at first. 2: the machine's memory has
            // all frames of its allocator, and the root. 3: there is no other table. 4: broken on
            // purpose where it does not listen. 5: broken on purpose, too.
            // 6: there is one allocator.
            table: unsafe { RadixTable::new(machine.root(), roots, frames, machine.memory(), mmu) },
            machine,
            damage,
            deaf,
            first_tail: None,
        }
    }

    /// Does `work` while CPUs forget nothing, if that is the damage, and has them forget
    /// everything afterwards.
    fn flushing_late<T>(&mut self, is_damage: bool, work: impl FnOnce(&mut Self) -> T) -> T {
        self.deaf.set(is_damage);
        let done = work(self);
        self.deaf.set(false);
        if is_damage {
            let all = self.machine.cpus().all().iter();
            all.for_each(|cpu| cpu.forget(FlushScope::Everything));
        }
        done
    }

    fn seen(&self, leaf: Leaf) -> Leaf {
        match (self.damage, leaf.role) {
            (Damage::OwnsForeignLeaves, Role::Foreign) => Leaf {
                role: Role::Descriptors,
                ..leaf
            },
            _ => leaf,
        }
    }

    /// The ranges, cut as the damage has it.
    fn cut(&self, range: VirtRange) -> impl Iterator<Item = VirtRange> + Clone + use<> {
        let granule = self.table.granule();
        let page = granule.bytes();
        let pages = range.pages(granule);
        let (count, each) = match self.damage {
            Damage::FlushesByThePage => (pages, 1),
            Damage::LeavesTheLastPage if pages > 1 => (1, pages - 1),
            _ => (1, pages),
        };
        (0..count).filter_map(move |index| {
            let start = range.start().checked_add(index * each * page)?;
            VirtRange::new(start, each * page).ok()
        })
    }
}

// SAFETY: kept by the engine, except for what is damaged on purpose.
unsafe impl PageTable for DamagedTable<'_> {
    const COUNTS_TABLES: bool = true;

    type Replace = DamagedReplace;

    fn granule(&self) -> Granule {
        self.table.granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.table.huge_leaf()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        match self.table.lookup(self.address(at)) {
            Lookup::Mapped(found) => Lookup::Mapped(Mapping {
                leaf: self.seen(found.leaf),
                ..found
            }),
            other => other,
        }
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        if self.damage == Damage::OverwritesLeaves {
            let mut flush = Flush::nothing();
            // SAFETY: 1 and 2 are broken on purpose: who uses the old leaf is not asked.
            let _ = unsafe { self.table.clear_leaf(at, &mut flush) };
            self.table.flush(flush, records);
        }
        let at = self.address(at);
        self.take_what_is_there(at, leaf);
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.map_leaf(at, leaf, self.node(node), records) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        let at = self.address(at);
        if self.damage == Damage::ClearsAPageOfAHugeLeaf
            && let Some(found) = self.table.lookup(at).mapping()
            && let Some(frame) = found.frame_of(at, self.granule())
            && found.at != at
        {
            flush.add(VirtRange::new(at, self.granule().bytes()).ok()?);
            let block = Block::single(frame);
            let leaf = Leaf {
                block,
                ..found.leaf
            };
            return Some(Mapping { at, leaf });
        }
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        let mut flush = obligation;
        if self.damage == Damage::KeepsClearedTables {
            let all = std::mem::take(&mut flush);
            if let Some(ranges) = all.scope().ranges() {
                ranges.iter().for_each(|range| flush.add(*range));
            }
        }
        let late = self.damage == Damage::FreesBeforeItFlushes;
        self.flushing_late(late, |this| this.table.flush(flush, records));
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.table.visit(range, &mut |visit| match visit {
            Visit::Leaves { at, run } => {
                let leaf = self.seen(run.leaf);
                visitor(Visit::Leaves {
                    at,
                    run: Run { leaf, ..run },
                })
            }
            visit => visitor(visit),
        })
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        match self.damage {
            Damage::FindsEverythingFree => None,
            Damage::TakesReservedForFree => self.first_mapped(range),
            _ => self.table.first_in_use(range),
        }
    }

    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<S::Error>> {
        if self.damage == Damage::TakesReservedForFree {
            (0..range.pages(self.granule()))
                .filter_map(|page| range.start().checked_add(page * self.granule().bytes()))
                .for_each(|at| self.free_reserved(at));
        }
        let node = self.node(node);
        let mut source = DamagedSource {
            source,
            damage: self.damage,
            first: &mut self.first_tail,
        };
        // SAFETY: 1 is broken on purpose where what is mapped is not what was given. 2: the
        // caller's.
        let mapped = unsafe {
            self.table
                .map_runs(range, node, &mut source, self.damage.records(records))
        };
        let hides = self.damage == Damage::HidesWhatItMapped;
        mapped.map_err(|stopped| match stopped {
            MapStopped::Table { error, .. } if hides => MapStopped::Table {
                at: range.start(),
                error,
            },
            MapStopped::Source { error, .. } if hides => MapStopped::Source {
                at: range.start(),
                error,
            },
            stopped => stopped,
        })
    }

    fn can_share_tables(&self) -> bool {
        self.table.can_share_tables()
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.share_tables(range, released, records) }
    }

    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn RunSink, records: &dyn TableRecords)
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let mut released = Forgetful {
            forgets: self.damage == Damage::ForgetsARelease,
            released,
        };
        let late = self.damage == Damage::FreesBeforeItFlushes;
        let alone = self.damage == Damage::FlushesByThePage;
        self.flushing_late(late, |this| {
            let parts: Vec<_> = ranges.flat_map(|range| this.cut(range)).collect();
            let at_once = if alone { 1 } else { parts.len().max(1) };
            for parts in parts.chunks(at_once) {
                // SAFETY: the caller's duties are the same, for each of them.
                unsafe {
                    this.table
                        .unmap(parts.iter().copied(), &mut released, records)
                };
            }
        });
    }
}

/// The engine's way to exchange entries, with the damage around it.
pub(crate) enum DamagedReplace {}

// SAFETY: kept by the engine, except for what is damaged on purpose.
unsafe impl Replace<DamagedTable<'_>> for DamagedReplace {
    const RESIZES: bool = true;

    fn replacement(table: &DamagedTable<'_>) -> Replacement {
        table.table.replacement()
    }

    fn takes_tables(table: &DamagedTable<'_>) -> bool {
        InUse::takes_tables(&table.table)
    }

    fn levels(table: &DamagedTable<'_>) -> u32 {
        InUse::levels(&table.table)
    }

    fn take_spare_table(table: &mut DamagedTable<'_>, node: NodeId) -> Result<Pfn, ReplaceError> {
        <Inside<'_> as PageTable>::Replace::take_spare_table(&mut table.table, node)
    }

    unsafe fn free_spare_table(table: &mut DamagedTable<'_>, spare: Pfn) {
        if table.damage == Damage::LosesSpareTables {
            return;
        }
        // SAFETY: the caller's duty is the same.
        unsafe { <Inside<'_> as PageTable>::Replace::free_spare_table(&mut table.table, spare) }
    }

    unsafe fn replace<X: Exchange>(
        table: &mut DamagedTable<'_>,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let damage = table.damage;
        let late = damage == Damage::ExchangesBeforeItFlushes;
        let forgets = damage == Damage::ForgetsWhatItExchanged;
        let mut exchange = DamagedExchange {
            exchange,
            damage,
            forgets,
        };
        let records = match damage {
            Damage::AllocatesDespiteTheReserve => &NoRecords,
            _ => records,
        };
        let replaced = table.flushing_late(late, |this| {
            // SAFETY: the caller's duties are the same.
            unsafe { this.table.replace(range, node, &mut exchange, records) }
        });
        if damage == Damage::ReachesBeyondAnExchange
            && let Some(behind) = range.last().checked_add(1)
        {
            table.make_read_only(behind);
        }
        replaced
    }
}

/// A source, some of whose runs become others on the way.
struct DamagedSource<'s, S> {
    source: &'s mut S,
    damage: Damage,
    first: &'s mut Option<Leaf>,
}

impl<S: RunSource> RunSource for DamagedSource<'_, S> {
    type Error = S::Error;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, S::Error> {
        let run = self.source.next_run(at, pages, largest)?;
        if run.leaf.role != Role::Tail {
            return Ok(run);
        }
        Ok(match self.damage {
            Damage::LinksTheWrongTail if run.step == Step::Same => Run {
                leaf: *self.first.get_or_insert(run.leaf),
                ..run
            },
            Damage::MapsTailsWritable => Run {
                leaf: Leaf {
                    writable: true,
                    ..run.leaf
                },
                ..run
            },
            _ => run,
        })
    }

    fn next_groups(&mut self, at: VirtAddr, pages: u64) -> Result<Option<Groups>, S::Error> {
        match self.damage {
            // Done to runs.
            Damage::LinksTheWrongTail | Damage::MapsTailsWritable => Ok(None),
            _ => self.source.next_groups(at, pages),
        }
    }

    fn share_tables(&self) -> bool {
        self.source.share_tables()
    }

    fn return_unused(&mut self, run: Run) {
        if self.damage != Damage::KeepsWhatItTook {
            self.source.return_unused(run);
        }
    }
}

/// A sink that does not hear of the first run.
struct Forgetful<'s> {
    released: &'s mut dyn RunSink,
    forgets: bool,
}

impl RunSink for Forgetful<'_> {
    fn run(&mut self, run: Run) {
        if !std::mem::take(&mut self.forgets) {
            self.released.run(run);
        }
    }

    fn groups(&mut self, groups: Groups) {
        match self.forgets {
            true => groups.runs().for_each(|run| self.run(run)),
            false => self.released.groups(groups),
        }
    }
}

/// An exchange that is not asked for all that it has to say.
struct DamagedExchange<'x, X> {
    exchange: &'x mut X,
    damage: Damage,
    /// Whether the next run is not given back.
    forgets: bool,
}

impl<X: Exchange> Exchange for DamagedExchange<'_, X> {
    fn has_spans() -> bool {
        X::has_spans()
    }

    fn span(&self, at: VirtAddr) -> Span {
        match self.damage {
            Damage::NeverAsksForSpans => Span::Entries,
            _ => self.exchange.span(at),
        }
    }

    fn tail_at(&mut self, at: VirtAddr) -> Option<Leaf> {
        self.exchange.tail_at(at)
    }

    fn groups(&mut self, at: VirtAddr, old: Run) -> Option<Groups> {
        self.exchange.groups(at, old)
    }

    fn should_split(&self, at: VirtAddr, leaf: Leaf) -> bool {
        self.exchange.should_split(at, leaf)
    }

    fn split(&mut self, block: Block) {
        self.exchange.split(block);
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        self.exchange.acquire_for_copy(run)
    }

    fn join(&mut self, at: VirtAddr, order: Order) -> Option<Leaf> {
        match self.damage {
            Damage::BringsNoLeafBack => None,
            _ => self.exchange.join(at, order),
        }
    }

    fn joined(&mut self, at: VirtAddr, old: Run) {
        self.exchange.joined(at, old);
    }

    fn exchange(&mut self, at: VirtAddr, old: Run) -> Run {
        let new = self.exchange.exchange(at, old);
        let count = new.count.min(old.count);
        let kept = Run { count, ..old };
        if self.damage == Damage::KeepsWhatItShouldExchange && new != kept {
            self.exchange.released(new);
            return kept;
        }
        new
    }

    fn released(&mut self, run: Run) {
        if !std::mem::take(&mut self.forgets) {
            self.exchange.released(run);
        }
    }
}
