//! The battery against page tables that were damaged on purpose: it has to notice each of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use arch_sim::walker::{Translation, Walker};
use arch_sim::{SimFrames, SimMemory};
use arch_x86_64::FourLevel;
use conformance::{Outcome, RootChanges, Seen, checks};
use hosted::{
    Backend, HostedAltmap, HostedHarness, Machine, Power, Radix, SimCpus, X86_64, X86Cpus,
};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{
    Flush, FlushScope, Leaf, MapError, MapStopped, Mapping, Mmu, PageTable, RadixTable, Role, Run,
    RunSource, Step, Visit,
};
use std::ops::ControlFlow;

/// Nothing is damaged: what fails with the others passes with this.
const NONE: u8 = 0;
/// One of the runs that were unmapped is not given back.
const FORGETS_A_RELEASE: u8 = 1;
/// Frames are given back first, and CPUs forget them afterwards.
const FREES_BEFORE_IT_FLUSHES: u8 = 2;
/// Tails are mapped to the tail frame of another compound page.
const LINKS_THE_WRONG_TAIL: u8 = 3;

/// x86-64 with 4 levels, damaged.
enum Damaged<const KIND: u8> {}

/// An MMU that does not listen where the flush is to come too late.
struct Deaf<'m, const KIND: u8>(<X86_64 as Radix>::Mmu<'m>);

// SAFETY: not kept where the flush comes too late, which is the point; otherwise the MMU inside keeps
// 1 and 2.
unsafe impl<const KIND: u8> Mmu for Deaf<'_, KIND> {
    fn forget(&self, scope: FlushScope<'_>) {
        if KIND != FREES_BEFORE_IT_FLUSHES {
            self.0.forget(scope);
        }
    }

    fn publish(&self) {
        self.0.publish();
    }

    fn root_entry_installed(&self, at: VirtAddr) {
        self.0.root_entry_installed(at);
    }

    fn root_entry_removed(&self, at: VirtAddr) {
        self.0.root_entry_removed(at);
    }
}

/// The engine's table, with the damage around it.
struct DamagedTable<'m, const KIND: u8> {
    table: RadixTable<FourLevel, &'m SimFrames, &'m SimMemory, Deaf<'m, KIND>>,
    cpus: &'m X86Cpus,
    /// The first tail frame that was mapped.
    first_tail: Option<Leaf>,
}

// SAFETY: kept by the engine, except for what is damaged on purpose.
unsafe impl<const KIND: u8> PageTable for DamagedTable<'_, KIND> {
    fn granule(&self) -> Granule {
        self.table.granule()
    }

    fn huge_leaf(&self) -> Option<Order> {
        self.table.huge_leaf()
    }

    fn lookup(&self, at: VirtAddr) -> Option<Mapping> {
        self.table.lookup(at)
    }

    unsafe fn map_leaf(&mut self, at: VirtAddr, leaf: Leaf, node: NodeId) -> Result<(), MapError> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.map_leaf(at, leaf, node) }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        // SAFETY: the caller's duties are the same.
        unsafe { self.table.clear_leaf(at, flush) }
    }

    fn flush(&mut self, obligation: Flush) {
        self.table.flush(obligation);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.table.visit(range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        self.table.first_in_use(range)
    }

    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
    ) -> Result<(), MapStopped<S::Error>> {
        if KIND != LINKS_THE_WRONG_TAIL {
            // SAFETY: the caller's duties are the same.
            return unsafe { self.table.map_runs(range, node, source) };
        }
        let mut source = WrongTail {
            source,
            first: &mut self.first_tail,
        };
        // SAFETY: 1 is broken on purpose: what is mapped is not what was given. 2: the caller's.
        unsafe { self.table.map_runs(range, node, &mut source) }
    }

    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn FnMut(Run))
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let mut forgets = KIND == FORGETS_A_RELEASE;
        // SAFETY: the caller's duties are the same.
        unsafe {
            self.table.unmap(ranges, &mut |run| {
                if !std::mem::take(&mut forgets) {
                    released(run);
                }
            });
        }
        if KIND == FREES_BEFORE_IT_FLUSHES {
            let all = self.cpus.all().iter();
            all.for_each(|cpu| cpu.forget(FlushScope::Everything));
        }
    }
}

/// A source whose tails are all those of the first compound page.
struct WrongTail<'s, S> {
    source: &'s mut S,
    first: &'s mut Option<Leaf>,
}

impl<S: RunSource> RunSource for WrongTail<'_, S> {
    type Error = S::Error;

    fn next_run(&mut self, at: VirtAddr, pages: u64, largest: Order) -> Result<Run, S::Error> {
        let run = self.source.next_run(at, pages, largest)?;
        if run.leaf.role == Role::Tail && run.step == Step::Same {
            let leaf = *self.first.get_or_insert(run.leaf);
            return Ok(Run { leaf, ..run });
        }
        Ok(run)
    }

    fn put_back(&mut self, run: Run) {
        self.source.put_back(run);
    }
}

impl<const KIND: u8> Backend for Damaged<KIND> {
    const NAME: &'static str = "damaged";
    const MODEL: MemoryModel = X86_64::MODEL;
    const LAST_FRAME: Pfn = X86_64::LAST_FRAME;
    const HAS_TABLES: bool = true;
    const HUGE_LEAF: Option<Order> = X86_64::HUGE_LEAF;
    const SHARES_TABLES: bool = false;
    type Cpus = X86Cpus;
    type Table<'m> = DamagedTable<'m, KIND>;

    fn cpus(memory: &SimMemory, root: Pfn) -> X86Cpus {
        X86_64::cpus(memory, root)
    }

    unsafe fn table(machine: &Machine<Self>) -> DamagedTable<'_, KIND> {
        let mmu = Deaf(X86_64::mmu(machine.cpus()));
        let (root, frames, memory) = (machine.root(), machine.frames(), machine.memory());
        DamagedTable {
            // SAFETY: 1: the machine's root table is empty at first. 2: the machine's memory has
            // all frames of its allocator, and the root. 3: there is no other table. 4: broken on
            // purpose where the flush comes too late.
            table: unsafe { RadixTable::new(root, frames, memory, mmu) },
            cpus: machine.cpus(),
            first_tail: None,
        }
    }

    fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation> {
        let walker = X86_64::walker();
        walker.translate(machine.memory(), machine.root(), at).ok()
    }
}

impl<const KIND: u8> Power for Damaged<KIND> {
    type State<'m> = ();

    fn state(_machine: &Machine<Self>, _foreign: PfnRange) {}

    fn seen(machine: &Machine<Self>, _table: &Self::Table<'_>, at: VirtAddr) -> Option<Seen> {
        let translation = Self::translate(machine, at)?;
        let granule = Self::MODEL.granule();
        Some(Seen {
            frame: translation.address(at, granule).frame(granule)?,
            writable: translation.writable,
            executable: translation.executable,
        })
    }

    fn plant(_state: &(), _table: &mut Self::Table<'_>, _at: VirtAddr, _leaf: Leaf) -> bool {
        false
    }

    fn uproot(_state: &(), _table: &mut Self::Table<'_>, _at: VirtAddr) {}

    fn fill(machine: &Machine<Self>, range: VirtRange) {
        machine.cpus().all().iter().for_each(|cpu| cpu.fill(range));
    }

    fn watch(machine: &Machine<Self>, range: VirtRange) {
        for cpu in machine.cpus().all() {
            cpu.watch(machine.frames());
            cpu.fill_at_allocations(machine.frames(), range);
        }
    }

    fn flushes(machine: &Machine<Self>, _table: &Self::Table<'_>) -> Option<u64> {
        Some(machine.cpus().flushes())
    }

    fn root_changes(_machine: &Machine<Self>) -> Option<RootChanges> {
        None
    }
}

/// The checks that fail, each on a machine of its own.
fn failures<const KIND: u8>() -> Vec<&'static str> {
    type Harness<'m, const KIND: u8> = HostedHarness<'m, Damaged<KIND>>;
    let (reserved, config) = (Harness::<KIND>::reserved(), Harness::<KIND>::config());
    let node = Machine::<Damaged<KIND>>::NODES[0];
    let mut failed = Vec::new();
    for index in 0..checks::<Harness<'_, KIND>>().count() {
        let machine = Machine::<Damaged<KIND>>::new(&config).unwrap();
        let model = &X86_64::MODEL;
        // SAFETY: 1 to 4: the machine has memory there, for this altmap alone, one vmemmap and one
        // thread.
        let altmap = unsafe { HostedAltmap::new(model, machine.memory(), reserved, node) }.unwrap();
        let mut harness = HostedHarness::new(&machine, &altmap).unwrap();
        let check = checks().nth(index).unwrap();
        if let Outcome::Failed(_) = conformance::run_one(&mut harness, &check) {
            failed.push(check.name());
        }
    }
    failed
}

#[test]
fn what_is_not_damaged_passes() {
    assert_eq!(failures::<NONE>(), [""; 0]);
}

#[test]
fn a_forgotten_release_is_noticed() {
    assert!(failures::<FORGETS_A_RELEASE>().len() > 5);
}

#[test]
fn a_frame_freed_before_the_flush_is_noticed() {
    assert!(failures::<FREES_BEFORE_IT_FLUSHES>().len() > 5);
}

#[test]
fn a_wrong_tail_is_noticed() {
    assert!(failures::<LINKS_THE_WRONG_TAIL>().len() > 5);
}
