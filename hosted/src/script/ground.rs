//! Backends as scripts see them: what is mapped, by code that is not the page table's, and whatever
//! else goes on in a machine.

use super::bytes::{Fingerprint, fingerprint};
use crate::{Backend, Foreign, Machine, RadixBackend, Sim, SimCpus};
use arch_sim::FlatTable;
use arch_sim::walker::{Scanned, Walker};
use mm_core::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, Leaf, PageTable, Role, Visit};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// A leaf that somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenLeaf {
    pub(super) at: VirtAddr,
    /// The first frame that it points at.
    pub(super) frame: u64,
    pub(super) pages: u64,
    pub(super) writable: bool,
    pub(super) executable: bool,
    /// Whether it is this library's.
    pub(super) ours: bool,
}

/// The addresses that one of the CPUs caches whenever frames are allocated.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(Arc<Mutex<[Option<VirtRange>; 2]>>);

impl Ahead {
    pub(super) fn set(&self, ranges: [Option<VirtRange>; 2]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ranges;
    }

    fn get(&self) -> [Option<VirtRange>; 2] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend that scripts can be run on.
pub(super) trait Ground: Backend {
    /// Somebody else's mappings.
    type Others<'m>;

    /// The base-2 logarithms of how many pages a table maps, level by level from the leaf tables to
    /// those below the root.
    fn table_spans() -> Vec<u32>;

    /// Nobody's mappings yet, with these frames for tables.
    fn others(machine: &Machine<Self>, frames: PfnRange) -> Self::Others<'_>;

    /// Somebody else maps `leaf` at `at`. Says whether there was a place for it.
    fn plant(
        others: &Self::Others<'_>,
        table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool;

    /// Somebody else links tables down to that of base pages for `at`. Says whether there was a
    /// place for them.
    fn plant_tables(others: &Self::Others<'_>, at: VirtAddr) -> bool;

    /// Takes somebody else's leaf at `at` away.
    fn uproot(others: &Self::Others<'_>, table: &mut Self::Table<'_>, at: VirtAddr);

    /// Takes away somebody else's tables in which there is nothing.
    fn prune(others: &Self::Others<'_>);

    /// Shows every leaf for addresses of `range`, in the order of addresses.
    fn leaves(
        machine: &Machine<Self>,
        table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenLeaf),
    );

    /// The bytes of the tables for `range`.
    fn fingerprint(
        machine: &Machine<Self>,
        table: &Self::Table<'_>,
        range: VirtRange,
    ) -> Fingerprint;

    /// How many tables there are for `at`, below the root.
    fn tables_at(machine: &Machine<Self>, at: VirtAddr) -> usize;

    /// What a CPU makes of an access: whether it is done; `None` where there is no CPU.
    fn access(machine: &Machine<Self>, cpu: usize, at: VirtAddr, store: bool) -> Option<bool>;

    /// Makes all CPUs cache what is mapped in `range`.
    fn speculate(machine: &Machine<Self>, range: VirtRange);

    /// Lets CPUs know of frames that are freed while they have them cached, read ahead in `all`
    /// whenever they are made to forget something, and one of them, the one with the number
    /// `eager`, cache at each allocation what `ahead` says.
    fn watch(machine: &Machine<Self>, all: VirtRange, ahead: &Ahead, eager: usize);

    /// Compares what CPUs have cached for `range` with the tables.
    fn recheck(machine: &Machine<Self>, range: VirtRange);
}

impl Ground for Sim {
    type Others<'m> = ();

    fn table_spans() -> Vec<u32> {
        vec![Self::HUGE_LEAF.map_or(0, Order::get).into()]
    }

    fn others(_machine: &Machine<Self>, _frames: PfnRange) {}

    fn plant(_others: &(), table: &mut FlatTable, at: VirtAddr, leaf: Leaf) -> bool {
        table.map_foreign(at, leaf).is_ok()
    }

    fn plant_tables(_others: &(), _at: VirtAddr) -> bool {
        false
    }

    fn uproot(_others: &(), table: &mut FlatTable, at: VirtAddr) {
        table.unmap_foreign(at);
    }

    fn prune(_others: &()) {}

    fn leaves(
        _machine: &Machine<Self>,
        table: &FlatTable,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenLeaf),
    ) {
        // The map itself: there is nothing behind it.
        let _ = table.visit(range, &mut |visited| {
            if let Visit::Leaves { at, run } = visited {
                visit(SeenLeaf {
                    at,
                    frame: run.leaf.block.first().get(),
                    pages: run.pages(),
                    writable: run.leaf.writable,
                    executable: false,
                    ours: run.leaf.role != Role::Foreign,
                });
            }
            ControlFlow::Continue(())
        });
    }

    fn fingerprint(machine: &Machine<Self>, table: &FlatTable, range: VirtRange) -> Fingerprint {
        let mut leaves = Fingerprint::default();
        Self::leaves(machine, table, range, &mut |leaf| {
            let flags = u64::from(leaf.writable) << 1 | u64::from(leaf.ours);
            leaves.add(leaf.at.get(), leaf.frame, leaf.pages << 2 | flags);
        });
        leaves
    }

    fn tables_at(_machine: &Machine<Self>, _at: VirtAddr) -> usize {
        0
    }

    fn access(_machine: &Machine<Self>, _cpu: usize, _at: VirtAddr, _store: bool) -> Option<bool> {
        None
    }

    fn speculate(_machine: &Machine<Self>, _range: VirtRange) {}

    fn watch(_machine: &Machine<Self>, _all: VirtRange, _ahead: &Ahead, _eager: usize) {}

    fn recheck(_machine: &Machine<Self>, _range: VirtRange) {}
}

impl<R: RadixBackend> Ground for R {
    type Others<'m> = Foreign<'m, Self>;

    fn table_spans() -> Vec<u32> {
        // What an entry one level above translates.
        let above = R::Format::LEVELS.iter().rev().skip(1);
        above
            .map(|level| level.shift - R::MODEL.granule().shift())
            .collect()
    }

    fn others(machine: &Machine<Self>, frames: PfnRange) -> Foreign<'_, Self> {
        Foreign::new(machine, frames)
    }

    fn plant(
        others: &Foreign<'_, Self>,
        _table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool {
        others.map(at, leaf.block.first(), leaf.block.order())
    }

    fn plant_tables(others: &Foreign<'_, Self>, at: VirtAddr) -> bool {
        others.link_tables(at)
    }

    fn uproot(others: &Foreign<'_, Self>, _table: &mut Self::Table<'_>, at: VirtAddr) {
        others.unmap(at);
    }

    fn prune(others: &Foreign<'_, Self>) {
        others.prune();
    }

    fn leaves(
        machine: &Machine<Self>,
        _table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenLeaf),
    ) {
        let granule = Self::MODEL.granule();
        let (memory, root) = (machine.memory(), machine.root());
        R::walker().scan(memory, root, range, &mut |scanned| {
            if let Scanned::Leaf(leaf) = scanned {
                visit(SeenLeaf {
                    at: leaf.span.start(),
                    frame: leaf.frame.get(),
                    pages: leaf.span.pages(granule),
                    writable: leaf.writable,
                    executable: leaf.executable,
                    // What is planted is not global.
                    ours: leaf.global,
                });
            }
        });
    }

    fn fingerprint(
        machine: &Machine<Self>,
        _table: &Self::Table<'_>,
        range: VirtRange,
    ) -> Fingerprint {
        fingerprint(machine, range)
    }

    fn tables_at(machine: &Machine<Self>, at: VirtAddr) -> usize {
        let walk = R::walker().walk(machine.memory(), machine.root(), at);
        walk.tables.len().saturating_sub(1)
    }

    fn access(machine: &Machine<Self>, cpu: usize, at: VirtAddr, store: bool) -> Option<bool> {
        let cpus = machine.cpus().all();
        let cpu = cpus.get(cpu % cpus.len().max(1))?;
        let done = if store { cpu.store(at) } else { cpu.access(at) };
        Some(done.is_ok())
    }

    fn speculate(machine: &Machine<Self>, range: VirtRange) {
        machine.cpus().all().iter().for_each(|cpu| cpu.fill(range));
    }

    fn watch(machine: &Machine<Self>, all: VirtRange, ahead: &Ahead, eager: usize) {
        machine.cpus().read_ahead(all);
        let cpus = machine.cpus().all();
        cpus.iter().for_each(|cpu| cpu.watch(machine.frames()));
        if let Some(cpu) = cpus.get(eager % cpus.len().max(1)).cloned() {
            let ahead = ahead.clone();
            machine.frames().on_allocate(move |_| {
                ahead
                    .get()
                    .into_iter()
                    .flatten()
                    .for_each(|range| cpu.fill(range));
            });
        }
    }

    fn recheck(machine: &Machine<Self>, range: VirtRange) {
        let all = machine.cpus().all();
        all.iter().for_each(|cpu| cpu.recheck(range));
    }
}
