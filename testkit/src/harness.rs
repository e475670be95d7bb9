//! A simulated machine as the conformance battery's harness.

use crate::machine::{TestCpus, TestMachine, TestTable};
use arch_sim::{SimFrames, SimMemory};
use conformance::{AltmapUnderTest, Controls, Harness, Parts, RootChanges, Seen};
use hosted::MachineConfig;
use mm_core::addr::{Granule, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::DeviceAltmap;
use mm_core::model::MemoryModel;
use mm_core::paging::Leaf;
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::AuditSlot;
use std::cell::Cell;

/// What the machine of a [`HostedHarness`] can do besides.
pub struct HostedControls<'m> {
    machine: &'m TestMachine,
    blocks_fail: Cell<bool>,
    /// Which of the CPUs reads next.
    reads: Cell<usize>,
    online_root: Option<Vec<OnlineEntry>>,
}

impl<'m> Controls<TestTable<'m>> for HostedControls<'m> {
    fn translate(&self, table: &TestTable<'m>, at: VirtAddr) -> Option<Option<Seen>> {
        let leaf = table.leaf(at);
        Some(leaf.map(|leaf| Seen {
            frame: leaf.frame_at(at, self.machine.model().granule().shift()),
            writable: leaf.writable,
            executable: leaf.executable,
        }))
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        match n {
            Some(n) => self.machine.frames().fail_after(n),
            None => {
                self.machine.frames().no_more_faults();
                self.machine.frames().fail_blocks(self.blocks_fail.get());
            }
        }
        true
    }

    fn fail_blocks(&self, fail: bool) -> bool {
        self.blocks_fail.set(fail);
        self.machine.frames().fail_blocks(fail);
        true
    }

    fn map_foreign(&self, table: &mut TestTable<'m>, at: VirtAddr, leaf: Leaf) -> bool {
        table.map_foreign(at, leaf)
    }

    fn unmap_foreign(&self, table: &mut TestTable<'m>, at: VirtAddr) {
        table.unmap_foreign(at);
        table.prune();
    }

    fn link_foreign_tables(&self, table: &mut TestTable<'m>, at: VirtAddr) -> bool {
        table.link_foreign_tables(at)
    }

    fn unlink_foreign_tables(&self, table: &mut TestTable<'m>, _at: VirtAddr) -> bool {
        let linked = table.foreign_tables_are_linked();
        table.prune();
        linked
    }

    fn plant_reserved(&self, table: &mut TestTable<'m>, at: VirtAddr, order: Order) -> bool {
        table.reserve_entry(at, order)
    }

    fn take_reserved(&self, table: &mut TestTable<'m>, _at: VirtAddr) -> bool {
        let whole = table.take_reserved();
        table.prune();
        whole
    }

    // No format translates by bit 62.
    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        self.machine
            .facts()
            .has_tables
            .then_some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    fn access(&self, _table: &TestTable<'m>, at: VirtAddr) -> Option<Option<Pfn>> {
        access(self.machine.cpus(), self.machine.model().granule(), at)
    }

    // Each CPU in turn.
    fn read(&self, at: VirtAddr) -> Option<Option<Pfn>> {
        let cpu = self.reads.get();
        self.reads.set(cpu.wrapping_add(1));
        let found = self.machine.cpus().access(cpu, at, false)?;
        let granule = self.machine.model().granule();
        Some(found.ok().and_then(|to| to.frame(granule)))
    }

    fn online_root(&self) -> Option<&[OnlineEntry]> {
        self.online_root.as_deref()
    }

    fn speculate(&self, _table: &TestTable<'m>, range: VirtRange) {
        self.machine.cpus().fill(range);
    }

    fn flushes(&self, table: &TestTable<'m>) -> Option<u64> {
        Some(table.flushes())
    }

    fn root_changes(&self) -> Option<RootChanges> {
        let (installed, removed) = self.machine.cpus().root_changes()?;
        Some(RootChanges { installed, removed })
    }

    fn violations(&self) -> u64 {
        self.machine.violations().total()
    }
}

/// What an access at `at` leads to, by the first of `cpus`; `None` where there are none.
pub fn access(cpus: &dyn TestCpus, granule: Granule, at: VirtAddr) -> Option<Option<Pfn>> {
    let found = cpus.access(0, at, false)?;
    Some(found.ok().and_then(|to| to.frame(granule)))
}

/// The altmap of a [`HostedHarness`].
pub type HostedAltmap<'m> = DeviceAltmap<&'m SimMemory>;

/// A machine, its page table, an altmap and scratch memory.
pub struct HostedHarness<'m> {
    machine: &'m TestMachine,
    table: TestTable<'m>,
    controls: HostedControls<'m>,
    altmap: &'m HostedAltmap<'m>,
    device: PfnRange,
    scratch: Vec<AuditSlot>,
}

impl<'m> HostedHarness<'m> {
    /// What a machine of `model` for this has.
    pub fn config(model: &MemoryModel) -> MachineConfig {
        let foreign = Self::foreign(model);
        let all = model.all_frames();
        let unit = model.subsection().frames();
        let last = Pfn::new(all.last().get().saturating_sub(unit - 1));
        let ends = [Some(all.start()), last].into_iter().flatten();
        let mut devices = vec![Self::device(model), foreign];
        devices.extend(ends.filter_map(|start| PfnRange::new(start, unit).ok()));
        MachineConfig {
            devices,
            backed: vec![Self::reserved(model), foreign],
            ram_frames: 1 << 18,
            ..MachineConfig::default()
        }
    }

    /// How many frames the blocks have that the machine's memory is laid out in.
    fn block(model: &MemoryModel) -> u64 {
        let leaves = model.granule().entries_per_table() as u64;
        let tables = 2 * leaves * model.descriptors_per_page();
        tables.max(8 * model.section().frames())
    }

    /// Device memory: three blocks of eight sections, or of what two leaf tables describe (1 GiB,
    /// 16 GiB and 1 TiB for 4K, 16K and 64K pages).
    pub fn device(model: &MemoryModel) -> PfnRange {
        frames(4 * Self::block(model), 3 * Self::block(model))
    }

    /// Frames that foreign tables are made of.
    pub fn foreign(model: &MemoryModel) -> PfnRange {
        frames(8 * Self::block(model), 64)
    }

    /// The reserved frames of the altmap: a subsection.
    pub fn reserved(model: &MemoryModel) -> PfnRange {
        Self::device(model)
            .take_first(model.subsection().frames())
            .0
    }

    /// The harness of `machine`, which was made of [`config`](Self::config), with an altmap of
    /// [`reserved`](Self::reserved); `None` where the machine's table was taken already.
    pub fn new(machine: &'m TestMachine, altmap: &'m HostedAltmap<'m>) -> Option<Self> {
        let model = &machine.model();
        let device = Self::device(model);
        let cpus = machine.cpus();
        cpus.watch(machine.frames(), model.descriptors(device)?);
        Some(Self {
            machine,
            table: machine.take_table(Self::foreign(model))?,
            controls: HostedControls {
                machine,
                blocks_fail: Cell::new(false),
                reads: Cell::new(0),
                online_root: Some(new_root(model)),
            },
            altmap,
            device,
            scratch: vec![AuditSlot::default(); 1 << 15],
        })
    }

    /// The same, where nobody reads beside the writer.
    pub fn without_readers(mut self) -> Self {
        self.controls.online_root = None;
        self
    }
}

impl<'m> Harness for HostedHarness<'m> {
    type Table = TestTable<'m>;
    type Frames = SimFrames;
    type DirectMap = SimMemory;
    type Controls = HostedControls<'m>;

    fn parts(&mut self) -> Parts<'_, Self> {
        let altmap: &dyn AltmapUnderTest = self.altmap;
        Parts {
            model: self.machine.model(),
            table: &mut self.table,
            frames: self.machine.frames(),
            direct_map: self.machine.memory(),
            controls: &self.controls,
            device: self.device,
            node: TestMachine::NODES[0],
            altmap: Some(altmap),
            scratch: &mut self.scratch,
            ends_are_free: true,
        }
    }
}

/// A root of a map of what is online, of nothing yet.
pub fn new_root(model: &MemoryModel) -> Vec<OnlineEntry> {
    let entries = 0..model.online_entries();
    entries.map(|_| OnlineEntry::new()).collect()
}

/// A range of a model's frames.
fn frames(start: u64, frames: u64) -> PfnRange {
    let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
    PfnRange::new(start, frames).unwrap_or(PfnRange::single(start))
}
