//! A simulated machine as the conformance battery's harness.

use arch_sim::{SimFrames, SimMemory};
use conformance::{AltmapUnderTest, Controls, Harness, Parts, RootChanges, Seen};
use hosted::{Inspect, Machine, MachineConfig, SimCpus};
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::frame::DeviceAltmap;
use mm_core::paging::Leaf;
use mm_core::vmemmap::AuditSlot;
use std::cell::Cell;

/// What the machine of a [`HostedHarness`] can do besides.
pub struct HostedControls<'m, B: Inspect> {
    machine: &'m Machine<B>,
    foreign: B::Foreign<'m>,
    blocks_fail: Cell<bool>,
}

impl<'m, B: Inspect> Controls<B::Table<'m>> for HostedControls<'m, B> {
    fn translate(&self, table: &B::Table<'m>, at: VirtAddr) -> Option<Option<Seen>> {
        let leaf = B::leaf(self.machine, table, at);
        Some(leaf.map(|leaf| Seen {
            frame: leaf.frame_at(at, B::MODEL.granule().shift()),
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

    fn map_foreign(&self, table: &mut B::Table<'m>, at: VirtAddr, leaf: Leaf) -> bool {
        B::map_foreign(&self.foreign, table, at, leaf)
    }

    fn unmap_foreign(&self, table: &mut B::Table<'m>, at: VirtAddr) {
        B::unmap_foreign(&self.foreign, table, at);
        B::prune(&self.foreign);
    }

    fn link_foreign_tables(&self, _table: &mut B::Table<'m>, at: VirtAddr) -> bool {
        B::link_foreign_tables(&self.foreign, at)
    }

    fn unlink_foreign_tables(&self, _table: &mut B::Table<'m>, _at: VirtAddr) -> bool {
        let linked = B::foreign_tables_are_linked(&self.foreign);
        B::prune(&self.foreign);
        linked
    }

    fn plant_reserved(&self, _table: &mut B::Table<'m>, at: VirtAddr, order: Order) -> bool {
        B::reserve_entry(&self.foreign, at, order)
    }

    fn take_reserved(&self, _table: &mut B::Table<'m>, _at: VirtAddr) -> bool {
        let whole = B::take_reserved(&self.foreign);
        B::prune(&self.foreign);
        whole
    }

    // No format translates by bit 62.
    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        B::HAS_TABLES.then_some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    fn access(&self, _table: &B::Table<'m>, at: VirtAddr) -> Option<Option<Pfn>> {
        access::<B>(self.machine, at)
    }

    fn speculate(&self, _table: &B::Table<'m>, range: VirtRange) {
        self.machine.cpus().fill(range);
    }

    fn flushes(&self, table: &B::Table<'m>) -> Option<u64> {
        Some(B::flushes(self.machine, table))
    }

    fn root_changes(&self) -> Option<RootChanges> {
        let (installed, removed) = self.machine.cpus().root_changes()?;
        Some(RootChanges { installed, removed })
    }

    fn violations(&self) -> u64 {
        self.machine.violations().total()
    }
}

/// What an access at `at` leads to, by the first CPU of `machine`.
pub fn access<B: Inspect>(machine: &Machine<B>, at: VirtAddr) -> Option<Option<Pfn>> {
    let found = machine.cpus().access(0, at, false)?;
    Some(found.ok().and_then(|to| to.frame(B::MODEL.granule())))
}

/// The altmap of a [`HostedHarness`].
pub type HostedAltmap<'m> = DeviceAltmap<&'m SimMemory>;

/// A machine, its page table, an altmap and scratch memory.
pub struct HostedHarness<'m, B: Inspect> {
    machine: &'m Machine<B>,
    table: B::Table<'m>,
    controls: HostedControls<'m, B>,
    altmap: &'m HostedAltmap<'m>,
    device: PfnRange,
    scratch: Vec<AuditSlot>,
}

impl<'m, B: Inspect> HostedHarness<'m, B> {
    /// What a machine for this has.
    pub fn config() -> MachineConfig {
        let foreign = Self::foreign();
        let all = B::MODEL.all_frames();
        let unit = B::MODEL.subsection().frames();
        let last = Pfn::new(all.last().get().saturating_sub(unit - 1));
        let ends = [Some(all.start()), last].into_iter().flatten();
        let mut devices = vec![Self::device(), foreign];
        devices.extend(ends.filter_map(|start| PfnRange::new(start, unit).ok()));
        MachineConfig {
            devices,
            backed: vec![Self::reserved(), foreign],
            ram_frames: 1 << 18,
            ..MachineConfig::default()
        }
    }

    /// How many frames the blocks have that the machine's memory is laid out in.
    fn block() -> u64 {
        let leaves = B::MODEL.granule().entries_per_table() as u64;
        let tables = 2 * leaves * B::MODEL.descriptors_per_page();
        tables.max(8 * B::MODEL.section().frames())
    }

    /// Device memory: three blocks of eight sections, or of what two leaf tables describe (1 GiB,
    /// 16 GiB and 1 TiB for 4K, 16K and 64K pages).
    pub fn device() -> PfnRange {
        frames(4 * Self::block(), 3 * Self::block())
    }

    /// Frames that foreign tables are made of.
    pub fn foreign() -> PfnRange {
        frames(8 * Self::block(), 64)
    }

    /// The reserved frames of the altmap: a subsection.
    pub fn reserved() -> PfnRange {
        Self::device().take_first(B::MODEL.subsection().frames()).0
    }

    /// The harness of `machine`, which was made of [`config`](Self::config), with an altmap of
    /// [`reserved`](Self::reserved); `None` where the machine's table was taken already.
    pub fn new(machine: &'m Machine<B>, altmap: &'m HostedAltmap<'m>) -> Option<Self> {
        let device = Self::device();
        let cpus = machine.cpus();
        cpus.watch(machine.frames(), B::MODEL.descriptors(device)?);
        Some(Self {
            machine,
            table: machine.take_table()?,
            controls: HostedControls {
                machine,
                foreign: B::foreign(machine, Self::foreign()),
                blocks_fail: Cell::new(false),
            },
            altmap,
            device,
            scratch: vec![AuditSlot::default(); 1 << 15],
        })
    }
}

impl<'m, B: Inspect> Harness for HostedHarness<'m, B> {
    type Table = B::Table<'m>;
    type Frames = SimFrames;
    type DirectMap = SimMemory;
    type Controls = HostedControls<'m, B>;

    fn parts(&mut self) -> Parts<'_, Self> {
        let altmap: &dyn AltmapUnderTest = self.altmap;
        Parts {
            model: B::MODEL,
            table: &mut self.table,
            frames: self.machine.frames(),
            direct_map: self.machine.memory(),
            controls: &self.controls,
            device: self.device,
            node: Machine::<B>::NODES[0],
            altmap: Some(altmap),
            scratch: &mut self.scratch,
            ends_are_free: true,
        }
    }
}

/// A range of a model's frames.
fn frames(start: u64, frames: u64) -> PfnRange {
    let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
    PfnRange::new(start, frames).unwrap_or(PfnRange::single(start))
}
