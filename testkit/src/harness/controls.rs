//! What can be done and seen on a simulated machine besides the operations of the library.

use super::TableUnderTest;
use crate::machine::{TestCpus, TestMachine};
use arch_sim::{SimFrames, Violations};
use conformance::{Controls, RootChanges, Seen};
use mm_core::addr::{Granule, Order, Pfn, VirtAddr, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::Leaf;
use mm_core::readers::OnlineEntry;
use std::cell::Cell;

/// What the machine of a [`HostedHarness`](super::HostedHarness) can do besides.
pub struct HostedControls<'m> {
    frames: &'m SimFrames,
    cpus: &'m dyn TestCpus,
    /// Of whoever watches.
    violations: Option<&'m Violations>,
    granule: Granule,
    has_tables: bool,
    blocks_fail: Cell<bool>,
    /// Which of the CPUs reads next.
    reads: Cell<usize>,
    online_root: Option<Vec<OnlineEntry>>,
}

impl<'m> HostedControls<'m> {
    /// Those of a machine of `model` with tables, where nobody watches.
    pub fn new(model: &MemoryModel, frames: &'m SimFrames, cpus: &'m dyn TestCpus) -> Self {
        Self {
            frames,
            cpus,
            violations: None,
            granule: model.granule(),
            has_tables: true,
            blocks_fail: Cell::new(false),
            reads: Cell::new(0),
            online_root: Some(new_root(model)),
        }
    }

    /// The same, where `violations` has what was seen.
    pub fn watched(mut self, violations: &'m Violations) -> Self {
        self.violations = Some(violations);
        self
    }

    /// Those of `machine`.
    pub(super) fn of(machine: &'m TestMachine) -> Self {
        let controls = Self::new(&machine.model(), machine.frames(), machine.cpus());
        Self {
            has_tables: machine.facts().has_tables,
            ..controls.watched(machine.violations())
        }
    }

    /// The same, where nobody reads beside the writer.
    pub(super) fn without_readers(self) -> Self {
        Self {
            online_root: None,
            ..self
        }
    }

    /// In which frame `cpu` finds `at`.
    fn found(&self, cpu: usize, at: VirtAddr) -> Option<Option<Pfn>> {
        let found = self.cpus.access(cpu, at, false)?;
        Some(found.ok().and_then(|to| to.frame(self.granule)))
    }
}

impl<'m> Controls<TableUnderTest<'m>> for HostedControls<'m> {
    fn translate(&self, table: &TableUnderTest<'m>, at: VirtAddr) -> Option<Option<Seen>> {
        Some(table.seen(at))
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        match n {
            Some(n) => self.frames.fail_after(n),
            None => {
                self.frames.no_more_faults();
                self.frames.fail_blocks(self.blocks_fail.get());
            }
        }
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.blocks_fail.set(fail);
        self.frames.fail_blocks(fail);
        true
    }

    fn map_foreign(&self, table: &mut TableUnderTest<'m>, at: VirtAddr, leaf: Leaf) -> bool {
        table.map_foreign(at, leaf)
    }

    fn unmap_foreign(&self, table: &mut TableUnderTest<'m>, at: VirtAddr) {
        table.unmap_foreign(at);
        table.prune();
    }

    fn link_foreign_tables(&self, table: &mut TableUnderTest<'m>, at: VirtAddr) -> bool {
        table.link_foreign_tables(at)
    }

    fn unlink_foreign_tables(&self, table: &mut TableUnderTest<'m>, _at: VirtAddr) -> bool {
        let linked = table.foreign_tables_are_linked();
        table.prune();
        linked
    }

    fn plant_reserved(&self, table: &mut TableUnderTest<'m>, at: VirtAddr, order: Order) -> bool {
        table.reserve_entry(at, order)
    }

    fn take_reserved(&self, table: &mut TableUnderTest<'m>, _at: VirtAddr) -> bool {
        let whole = table.take_reserved();
        table.prune();
        whole
    }

    // No format translates by bit 62.
    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        self.has_tables.then_some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    fn access(&self, _table: &TableUnderTest<'m>, at: VirtAddr) -> Option<Option<Pfn>> {
        self.found(0, at)
    }

    // Each CPU in turn.
    fn read(&self, at: VirtAddr) -> Option<Option<Pfn>> {
        let cpu = self.reads.get();
        self.reads.set(cpu.wrapping_add(1));
        self.found(cpu, at)
    }

    fn online_root(&self) -> Option<&[OnlineEntry]> {
        self.online_root.as_deref()
    }

    fn speculate(&self, _table: &TableUnderTest<'m>, range: VirtRange) {
        self.cpus.fill(range);
    }

    fn flushes(&self, table: &TableUnderTest<'m>) -> Option<u64> {
        Some(table.flushes())
    }

    fn root_changes(&self) -> Option<RootChanges> {
        let (installed, removed) = self.cpus.root_changes()?;
        Some(RootChanges { installed, removed })
    }

    fn violations(&self) -> u64 {
        self.violations.map_or(0, Violations::total)
    }
}

/// A root of a map of what is online, of nothing yet.
fn new_root(model: &MemoryModel) -> Vec<OnlineEntry> {
    let entries = 0..model.online_entries();
    entries.map(|_| OnlineEntry::new()).collect()
}
