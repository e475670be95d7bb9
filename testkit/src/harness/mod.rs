//! A simulated machine as the conformance battery's harness.

mod controls;

pub use controls::HostedControls;

use crate::machine::{TestMachine, WithForeign};
use any_table::Erased;
use arch_sim::SimMemory;
use conformance::{AltmapUnderTest, Harness, Outcome, Parts, checks};
use hosted::MachineConfig;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::frame::{DeviceAltmap, FrameAllocator, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::vmemmap::AuditSlot;

/// The altmap of a [`HostedHarness`].
pub type HostedAltmap<'m> = DeviceAltmap<&'m SimMemory>;

/// The page table of a [`HostedHarness`].
pub type TableUnderTest<'m> = Erased<Box<dyn WithForeign + 'm>>;

/// An allocator whose counts can be read.
pub trait FramesUnderTest: FrameAllocator + InspectFrames {}

impl<T: FrameAllocator + InspectFrames> FramesUnderTest for T {}

/// What a [`HostedHarness`] is made of: all of one simulated machine.
pub struct MachineParts<'m> {
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// Its page table.
    pub table: Box<dyn WithForeign + 'm>,
    /// Its allocator.
    pub frames: &'m dyn FramesUnderTest,
    /// Its memory.
    pub memory: &'m SimMemory,
    /// What it can do besides.
    pub controls: HostedControls<'m>,
    /// An altmap of [`reserved`](HostedHarness::reserved).
    pub altmap: &'m dyn AltmapUnderTest,
}

/// A machine, its page table, an altmap and scratch memory: of whatever type, so that the battery is
/// compiled once.
pub struct HostedHarness<'m> {
    model: MemoryModel,
    table: TableUnderTest<'m>,
    frames: &'m dyn FramesUnderTest,
    memory: &'m SimMemory,
    controls: HostedControls<'m>,
    altmap: &'m dyn AltmapUnderTest,
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
        let model = machine.model();
        let device = Self::device(&model);
        machine
            .cpus()
            .watch(machine.frames(), model.descriptors(device)?);
        Some(Self::of(MachineParts {
            model,
            table: machine.take_table_with_foreign(Self::foreign(&model))?,
            frames: machine.frames(),
            memory: machine.memory(),
            controls: HostedControls::of(machine),
            altmap,
        }))
    }

    /// The harness of a machine that may be damaged.
    pub fn of(parts: MachineParts<'m>) -> Self {
        Self {
            model: parts.model,
            table: Erased::new(parts.table),
            frames: parts.frames,
            memory: parts.memory,
            controls: parts.controls,
            altmap: parts.altmap,
            device: Self::device(&parts.model),
            scratch: vec![AuditSlot::default(); 1 << 15],
        }
    }

    /// The same, where nobody reads beside the writer.
    pub fn without_readers(mut self) -> Self {
        self.controls = self.controls.without_readers();
        self
    }

    /// The names of all checks.
    pub fn check_names() -> Vec<&'static str> {
        checks::<HostedHarness<'_>>()
            .map(|check| check.name())
            .collect()
    }

    /// Runs all checks, and gives each one's name and outcome to `report`.
    pub fn run(&mut self, report: &mut dyn FnMut(&'static str, Outcome)) {
        conformance::run(self, report);
    }

    /// Runs the check of that name; `None` where there is none.
    pub fn run_one(&mut self, name: &str) -> Option<Outcome> {
        let check = checks().find(|check| check.name() == name)?;
        Some(conformance::run_one(self, &check))
    }
}

impl<'m> Harness for HostedHarness<'m> {
    type Table = TableUnderTest<'m>;
    type Frames = &'m dyn FramesUnderTest;
    type DirectMap = SimMemory;
    type Controls = HostedControls<'m>;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: self.model,
            table: &mut self.table,
            frames: &self.frames,
            direct_map: self.memory,
            controls: &self.controls,
            device: self.device,
            node: TestMachine::NODES[0],
            altmap: Some(self.altmap),
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
