//! A simulated machine as the conformance battery's harness.

use crate::{Backend, Foreign, Machine, MachineConfig, RadixBackend, Sim, SimCpus};
use arch_sim::{FlatTable, SimFrames, SimMemory};
use conformance::{AltmapUnderTest, Controls, Harness, Parts, RootChanges, Seen};
use mm_core::addr::{Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::DeviceAltmap;
use mm_core::paging::{Leaf, PageTable};
use mm_core::vmemmap::AuditSlot;
use std::cell::Cell;

/// What a backend lets a harness do, by this machine's CPUs and reader of bytes.
pub trait Power: Backend {
    /// What is kept between calls.
    type State<'m>;

    /// What is kept at first; `foreign` is memory that nobody uses.
    fn state(machine: &Machine<Self>, foreign: PfnRange) -> Self::State<'_>;

    /// See [`Controls::translate`].
    fn seen(machine: &Machine<Self>, table: &Self::Table<'_>, at: VirtAddr) -> Option<Seen>;

    /// See [`Controls::map_foreign`].
    fn plant(
        state: &Self::State<'_>,
        table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool;

    /// See [`Controls::unmap_foreign`].
    fn uproot(state: &Self::State<'_>, table: &mut Self::Table<'_>, at: VirtAddr);

    /// Makes all CPUs cache `range`.
    fn fill(machine: &Machine<Self>, range: VirtRange);

    /// Makes all CPUs cache `range` at each allocation, and watch for frames that are freed while
    /// cached.
    fn watch(machine: &Machine<Self>, range: VirtRange);

    /// Makes all CPUs watch for frames that are freed while they have them cached.
    fn watch_frees(machine: &Machine<Self>) {
        let _ = machine;
    }

    /// See [`Controls::flushes`].
    fn flushes(machine: &Machine<Self>, table: &Self::Table<'_>) -> Option<u64>;

    /// See [`Controls::root_changes`].
    fn root_changes(machine: &Machine<Self>) -> Option<RootChanges>;
}

impl Power for Sim {
    type State<'m> = ();

    fn state(_machine: &Machine<Self>, _foreign: PfnRange) {}

    fn seen(_machine: &Machine<Self>, table: &FlatTable, at: VirtAddr) -> Option<Seen> {
        // The map itself: there is nothing behind it.
        let mapping = table.lookup(at)?;
        Some(Seen {
            frame: mapping.frame_of(at, Self::MODEL.granule())?,
            writable: mapping.leaf.writable,
            executable: false,
        })
    }

    fn plant(_state: &(), table: &mut FlatTable, at: VirtAddr, leaf: Leaf) -> bool {
        table.map_foreign(at, leaf).is_ok()
    }

    fn uproot(_state: &(), table: &mut FlatTable, at: VirtAddr) {
        table.unmap_foreign(at);
    }

    fn fill(_machine: &Machine<Self>, _range: VirtRange) {}

    fn watch(_machine: &Machine<Self>, _range: VirtRange) {}

    fn flushes(_machine: &Machine<Self>, table: &FlatTable) -> Option<u64> {
        Some(table.flushes())
    }

    fn root_changes(_machine: &Machine<Self>) -> Option<RootChanges> {
        None
    }
}

impl<R: RadixBackend> Power for R {
    type State<'m> = Foreign<'m, Self>;

    fn state(machine: &Machine<Self>, foreign: PfnRange) -> Foreign<'_, Self> {
        Foreign::new(machine, foreign)
    }

    fn seen(machine: &Machine<Self>, _table: &Self::Table<'_>, at: VirtAddr) -> Option<Seen> {
        let translation = Self::translate(machine, at)?;
        let granule = Self::MODEL.granule();
        Some(Seen {
            frame: translation.address(at, granule).frame(granule)?,
            writable: translation.writable,
            executable: translation.executable,
        })
    }

    fn plant(
        state: &Foreign<'_, Self>,
        _table: &mut Self::Table<'_>,
        at: VirtAddr,
        leaf: Leaf,
    ) -> bool {
        state.map(at, leaf.block.first(), leaf.block.order())
    }

    fn uproot(state: &Foreign<'_, Self>, _table: &mut Self::Table<'_>, at: VirtAddr) {
        state.unmap(at);
        state.prune();
    }

    fn fill(machine: &Machine<Self>, range: VirtRange) {
        machine.cpus().all().iter().for_each(|cpu| cpu.fill(range));
    }

    fn watch(machine: &Machine<Self>, range: VirtRange) {
        watch::<Self>(machine, range);
    }

    fn watch_frees(machine: &Machine<Self>) {
        let all = machine.cpus().all();
        all.iter().for_each(|cpu| cpu.watch(machine.frames()));
    }

    fn flushes(machine: &Machine<Self>, _table: &Self::Table<'_>) -> Option<u64> {
        Some(machine.cpus().flushes())
    }

    fn root_changes(machine: &Machine<Self>) -> Option<RootChanges> {
        let (installed, removed) = machine.cpus().root_changes()?;
        Some(RootChanges { installed, removed })
    }
}

/// Makes all CPUs adversarial: they cache `range` whenever memory is allocated, and whenever they
/// are made to forget, and know what is freed too early.
pub fn watch<B: RadixBackend>(machine: &Machine<B>, range: VirtRange) {
    for cpu in machine.cpus().all() {
        cpu.watch(machine.frames());
        cpu.fill_at_allocations(machine.frames(), range);
    }
    machine.cpus().read_ahead(range);
}

/// What the machine of a [`HostedHarness`] can do besides.
pub struct HostedPowers<'m, B: Power> {
    machine: &'m Machine<B>,
    state: B::State<'m>,
    blocks_fail: Cell<bool>,
}

impl<'m, B: Power> Controls<B::Table<'m>> for HostedPowers<'m, B> {
    fn translate(&self, table: &B::Table<'m>, at: VirtAddr) -> Option<Option<Seen>> {
        Some(B::seen(self.machine, table, at))
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
        B::plant(&self.state, table, at, leaf)
    }

    fn unmap_foreign(&self, table: &mut B::Table<'m>, at: VirtAddr) {
        B::uproot(&self.state, table, at);
    }

    fn speculate(&self, _table: &B::Table<'m>, range: VirtRange) {
        B::fill(self.machine, range);
    }

    fn flushes(&self, table: &B::Table<'m>) -> Option<u64> {
        B::flushes(self.machine, table)
    }

    fn root_changes(&self) -> Option<RootChanges> {
        B::root_changes(self.machine)
    }

    fn violations(&self) -> u64 {
        self.machine.violations().total()
    }
}

/// The altmap of a [`HostedHarness`].
pub type HostedAltmap<'m> = DeviceAltmap<Page<Mask>, &'m SimMemory>;

/// A machine, its page table, an altmap and scratch memory.
pub struct HostedHarness<'m, B: Power> {
    machine: &'m Machine<B>,
    table: B::Table<'m>,
    controls: HostedPowers<'m, B>,
    altmap: &'m HostedAltmap<'m>,
    device: PfnRange,
    scratch: Vec<AuditSlot>,
}

impl<'m, B: Power> HostedHarness<'m, B> {
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
        B::watch(machine, B::MODEL.descriptors(device)?);
        Some(Self {
            machine,
            table: machine.take_table()?,
            controls: HostedPowers {
                machine,
                state: B::state(machine, Self::foreign()),
                blocks_fail: Cell::new(false),
            },
            altmap,
            device,
            scratch: vec![AuditSlot::default(); 1 << 15],
        })
    }
}

impl<'m, B: Power> Harness for HostedHarness<'m, B> {
    type Table = B::Table<'m>;
    type Frames = SimFrames;
    type DirectMap = SimMemory;
    type Controls = HostedPowers<'m, B>;

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
