//! A machine looked at, and interfered with, from outside.
//!
//! Tables are read by code that is not their own: from bytes, where they have any. Somebody else's
//! mappings are written the same way.
//!
//! - `seen`: what a reader comes to;
//! - `fingerprint`: the bytes of tables;
//! - `foreign`: mappings of somebody else.

mod fingerprint;
mod foreign;
mod seen;

pub use fingerprint::{Fingerprint, table_bytes};
pub use foreign::Foreign;
pub use seen::{SeenEntry, SeenLeaf, SeenTable};

use crate::{Backend, Machine, RadixBackend, Sim, SimCpus};
use arch_sim::FlatTable;
use arch_sim::walker::{Scanned, Table, Walker};
use mm_core::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, Leaf, Mapping, PageTable, Visit};
use std::ops::ControlFlow;

/// A backend whose machine can be looked at, and interfered with, from outside.
pub trait Inspect: Backend {
    /// Somebody else's mappings.
    type Foreign<'m>;

    /// The base-2 logarithms of how many pages a table maps, level by level from the leaf tables to
    /// those below the root.
    fn table_spans() -> Vec<u32>;

    /// Nobody's mappings yet. Tables for them will be `frames`, which have contents and are not the
    /// allocator's.
    fn foreign(machine: &Machine<Self>, frames: PfnRange) -> Self::Foreign<'_>;

    /// Somebody else maps `leaf` at `at`. Says whether there was a place for it.
    fn map_foreign(
        foreign: &Self::Foreign<'_>,
        table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool;

    /// Somebody else links tables down to that of base pages for `at`. Says whether there was a
    /// place for them.
    fn link_foreign_tables(foreign: &Self::Foreign<'_>, at: VirtAddr) -> bool;

    /// Whether all tables that somebody else has linked are so still.
    fn foreign_tables_are_linked(foreign: &Self::Foreign<'_>) -> bool;

    /// Somebody else keeps something that is not present in the entry for `at` of a leaf of
    /// `order`. Says whether it was free.
    fn reserve_entry(foreign: &Self::Foreign<'_>, at: VirtAddr, order: Order) -> bool;

    /// Takes out what somebody else keeps in entries that are not present. Says whether all of it
    /// was there.
    fn take_reserved(foreign: &Self::Foreign<'_>) -> bool;

    /// Takes somebody else's leaf at `at` away. Tables stay.
    fn unmap_foreign(foreign: &Self::Foreign<'_>, table: &mut Self::Table<'_>, at: VirtAddr);

    /// Takes away somebody else's tables in which there is nothing.
    fn prune(foreign: &Self::Foreign<'_>);

    /// Shows every table below the root and every leaf for addresses of `range`, in the order of
    /// addresses.
    fn scan(
        machine: &Machine<Self>,
        table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    );

    /// The leaf that translates `at`.
    fn leaf(machine: &Machine<Self>, table: &Self::Table<'_>, at: VirtAddr) -> Option<SeenLeaf>;

    /// How many tables there are for `at`, below the root.
    fn tables_at(machine: &Machine<Self>, at: VirtAddr) -> usize;

    /// The bytes of the tables for `range`.
    fn fingerprint(
        machine: &Machine<Self>,
        table: &Self::Table<'_>,
        range: VirtRange,
    ) -> Fingerprint;

    /// How often CPUs were made to forget something, so far.
    fn flushes(machine: &Machine<Self>, table: &Self::Table<'_>) -> u64;
}

// The map itself: there is nothing behind it.
impl Inspect for Sim {
    type Foreign<'m> = ();

    fn table_spans() -> Vec<u32> {
        vec![Self::HUGE_LEAF.map_or(0, Order::get).into()]
    }

    fn foreign(_machine: &Machine<Self>, _frames: PfnRange) {}

    fn map_foreign(_foreign: &(), table: &mut FlatTable, at: VirtAddr, leaf: Leaf) -> bool {
        table.map_foreign(at, leaf).is_ok()
    }

    fn link_foreign_tables(_foreign: &(), _at: VirtAddr) -> bool {
        false
    }

    fn foreign_tables_are_linked(_foreign: &()) -> bool {
        true
    }

    // A map has no entries but those of leaves.
    fn reserve_entry(_foreign: &(), _at: VirtAddr, _order: Order) -> bool {
        false
    }

    fn take_reserved(_foreign: &()) -> bool {
        true
    }

    fn unmap_foreign(_foreign: &(), table: &mut FlatTable, at: VirtAddr) {
        table.unmap_foreign(at);
    }

    fn prune(_foreign: &()) {}

    fn scan(
        _machine: &Machine<Self>,
        table: &FlatTable,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    ) {
        let _ = table.visit(range, &mut |visited| {
            if let Visit::Leaves { at, run } = visited {
                let bytes = Self::MODEL.granule().bytes() << run.leaf.block.order().get();
                for index in 0..run.count {
                    let leaf = run.block(index).map(|block| Leaf { block, ..run.leaf });
                    let at = at.checked_add(index * bytes);
                    if let (Some(at), Some(leaf)) = (at, leaf) {
                        visit(SeenEntry::Leaf(SeenLeaf::of_map(&Mapping { at, leaf })));
                    }
                }
            }
            ControlFlow::Continue(())
        });
    }

    fn leaf(_machine: &Machine<Self>, table: &FlatTable, at: VirtAddr) -> Option<SeenLeaf> {
        table.lookup(at).mapping().as_ref().map(SeenLeaf::of_map)
    }

    fn tables_at(_machine: &Machine<Self>, _at: VirtAddr) -> usize {
        0
    }

    fn fingerprint(machine: &Machine<Self>, table: &FlatTable, range: VirtRange) -> Fingerprint {
        let mut leaves = Fingerprint::default();
        Self::scan(machine, table, range, &mut |entry| {
            if let SeenEntry::Leaf(leaf) = entry {
                let flags = u64::from(leaf.writable) << 1 | u64::from(leaf.owned);
                let pages = leaf.order.frames();
                leaves.add(leaf.at.get(), leaf.frame.get(), pages << 2 | flags);
            }
        });
        leaves
    }

    fn flushes(_machine: &Machine<Self>, table: &FlatTable) -> u64 {
        table.flushes()
    }
}

impl<R: RadixBackend> Inspect for R {
    type Foreign<'m> = Foreign<'m, Self>;

    fn table_spans() -> Vec<u32> {
        // What an entry one level above translates.
        let above = R::Format::LEVELS.iter().rev().skip(1);
        above
            .map(|level| level.shift - R::MODEL.granule().shift())
            .collect()
    }

    fn foreign(machine: &Machine<Self>, frames: PfnRange) -> Foreign<'_, Self> {
        Foreign::new(machine, frames)
    }

    fn map_foreign(
        foreign: &Foreign<'_, Self>,
        _table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool {
        foreign.map(at, leaf.block.first(), leaf.block.order())
    }

    fn link_foreign_tables(foreign: &Foreign<'_, Self>, at: VirtAddr) -> bool {
        foreign.link_tables(at)
    }

    fn foreign_tables_are_linked(foreign: &Foreign<'_, Self>) -> bool {
        foreign.tables_are_linked()
    }

    fn reserve_entry(foreign: &Foreign<'_, Self>, at: VirtAddr, order: Order) -> bool {
        foreign.reserve(at, order)
    }

    fn take_reserved(foreign: &Foreign<'_, Self>) -> bool {
        foreign.take_reserved()
    }

    fn unmap_foreign(foreign: &Foreign<'_, Self>, _table: &mut Self::Table<'_>, at: VirtAddr) {
        foreign.unmap(at);
    }

    fn prune(foreign: &Foreign<'_, Self>) {
        foreign.prune();
    }

    fn scan(
        machine: &Machine<Self>,
        _table: &Self::Table<'_>,
        range: VirtRange,
        visit: &mut dyn FnMut(SeenEntry),
    ) {
        let memory = machine.memory();
        R::walker().scan(memory, machine.root(), range, &mut |scanned| {
            visit(match scanned {
                Scanned::Hole(_) => return,
                Scanned::Table(Table {
                    frame, level, span, ..
                }) => SeenEntry::Table(SeenTable {
                    frame,
                    span,
                    leaf_table: level == 1,
                }),
                Scanned::Leaf(leaf) => {
                    let raw = memory.read_u64(leaf.entry).unwrap_or(0);
                    SeenEntry::Leaf(SeenLeaf::of_walk::<R::Format>(&leaf, raw))
                }
            });
        });
    }

    fn leaf(machine: &Machine<Self>, _table: &Self::Table<'_>, at: VirtAddr) -> Option<SeenLeaf> {
        let memory = machine.memory();
        let leaf = R::walker().translate(memory, machine.root(), at).ok()?;
        let raw = memory.read_u64(leaf.entry)?;
        Some(SeenLeaf::of_walk::<R::Format>(&leaf, raw))
    }

    fn tables_at(machine: &Machine<Self>, at: VirtAddr) -> usize {
        let walk = R::walker().walk(machine.memory(), machine.root(), at);
        walk.tables.len().saturating_sub(1)
    }

    fn fingerprint(
        machine: &Machine<Self>,
        _table: &Self::Table<'_>,
        range: VirtRange,
    ) -> Fingerprint {
        fingerprint::of(machine, range)
    }

    fn flushes(machine: &Machine<Self>, _table: &Self::Table<'_>) -> u64 {
        machine.cpus().flushes()
    }
}
