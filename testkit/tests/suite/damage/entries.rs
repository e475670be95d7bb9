//! Entries that a damaged page table writes itself, whatever is in them.

use super::kinds::Damage;
use super::table::DamagedTable;
use arch_sim::walker::Walker;
use arch_x86_64::FourLevel;
use hosted::{Machine, Radix, X86_64};
use mm_core::addr::{NodeId, Order, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, Leaf, PageTable, Visit};
use std::ops::ControlFlow;

/// The bit of an entry that allows stores.
const WRITABLE: u64 = 1 << 1;

/// The depth of the entries that are huge leaves.
const HUGE_LEAF_DEPTH: usize = FourLevel::LEVELS.len() - 2;

impl DamagedTable<'_> {
    /// The address that the tables are indexed by.
    pub(super) fn address(&self, at: VirtAddr) -> VirtAddr {
        let unused = 64 - FourLevel::VIRTUAL_BITS;
        match self.damage {
            Damage::MapsAliases => VirtAddr::new(((at.get() << unused) as i64 >> unused) as u64),
            _ => at,
        }
    }

    /// The node that tables come from.
    pub(super) fn node(&self, told: NodeId) -> NodeId {
        match self.damage {
            Damage::TablesFromTheFirstNode => Machine::<X86_64>::NODES[0],
            _ => told,
        }
    }

    /// The first present leaf.
    pub(super) fn first_mapped(&self, range: VirtRange) -> Option<VirtAddr> {
        let mut found = None;
        let _ = self.table.visit(range, &mut |visit| match visit {
            Visit::Leaves { at, .. } | Visit::SharedTable { at, .. } => {
                found = Some(at.max(range.start()));
                ControlFlow::Break(())
            }
            Visit::Table { .. } => ControlFlow::Continue(()),
        });
        found
    }

    /// Empties the places that `leaf` is to have at `at`, as the damage has it.
    pub(super) fn take_what_is_there(&self, at: VirtAddr, leaf: Leaf) {
        match self.damage {
            Damage::TakesReservedForFree => self.free_reserved(at),
            Damage::StoresOverTables if leaf.block.order() != Order::BASE => {
                if let Some(entry) = self.entries(at).nth(HUGE_LEAF_DEPTH) {
                    let _ = self.machine.memory().write_u64(entry, 0);
                }
            }
            _ => {}
        }
    }

    /// Takes the right to store from the leaf of a base page at `at`, if there is one.
    pub(super) fn make_read_only(&self, at: VirtAddr) {
        let memory = self.machine.memory();
        if let Some(entry) = self.entries(at).nth(HUGE_LEAF_DEPTH + 1)
            && let Some(leaf) = memory.read_u64(entry)
        {
            let _ = memory.write_u64(entry, leaf & !WRITABLE);
        }
    }

    /// Empties the entry for `at` that is in use and not present.
    pub(super) fn free_reserved(&self, at: VirtAddr) {
        let memory = self.machine.memory();
        if let Some(entry) = self.entries(at).last()
            && memory.read_u64(entry).is_some_and(|entry| entry & 1 == 0)
        {
            let _ = memory.write_u64(entry, 0);
        }
    }

    /// Where the entries for `at` lie, from the root down, as far as there are tables.
    fn entries(&self, at: VirtAddr) -> impl Iterator<Item = PhysAddr> {
        let (memory, root) = (self.machine.memory(), self.machine.root());
        let tables = X86_64::walker().walk(memory, root, at).tables;
        let levels = FourLevel::LEVELS.iter();
        tables.into_iter().zip(levels).map(move |(table, level)| {
            let index = (at.get() >> level.shift) & ((1 << level.index_bits) - 1);
            PhysAddr::new(table.frame.base(FourLevel::GRANULE).get() + index * 8)
        })
    }
}
