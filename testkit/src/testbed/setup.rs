//! What machine a test wants.

use hosted::MachineConfig;
use hosted::layout::find_gap;
use mm_core::addr::{NodeId, Pfn, PfnRange};
use mm_core::model::MemoryModel;

/// How tails name their heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// By [`Mask`](mm_core::descriptor::Mask).
    #[default]
    Mask,
    /// By [`Pointer`](mm_core::descriptor::Pointer).
    Pointer,
}

/// A machine, and the altmaps of its devices.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(super) devices: Vec<PfnRange>,
    pub(super) altmaps: Vec<(PfnRange, NodeId)>,
    pub(super) encoding: Encoding,
    ram_frames: u64,
    pub(super) cached: Option<PfnRange>,
}

/// How many frames there are for tables of somebody else.
const FOREIGN_FRAMES: u64 = 64;

impl Setup {
    /// A machine with `devices`; RAM and what is foreign lie elsewhere.
    pub fn new(devices: &[PfnRange]) -> Self {
        Self {
            devices: devices.to_vec(),
            altmaps: Vec::new(),
            encoding: Encoding::default(),
            ram_frames: 1 << 18,
            cached: None,
        }
    }

    /// With an altmap over `reserved`, memory of node 0.
    pub fn with_altmap(self, reserved: PfnRange) -> Self {
        self.with_altmap_on(reserved, NodeId::new(0))
    }

    /// With an altmap over `reserved`, memory of `node`.
    pub fn with_altmap_on(mut self, reserved: PfnRange, node: NodeId) -> Self {
        self.altmaps.push((reserved, node));
        self
    }

    /// With tails that name their heads so.
    pub fn with_encoding(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// With so many frames of RAM on each of the two nodes.
    pub fn with_ram(self, ram_frames: u64) -> Self {
        Self { ram_frames, ..self }
    }

    /// With CPUs that cache the descriptors of `frames` whenever memory is allocated.
    pub fn with_cpus_that_cache(self, frames: PfnRange) -> Self {
        let cached = Some(frames);
        Self { cached, ..self }
    }

    /// Frames with contents that are nobody's, for tables of somebody else.
    pub(super) fn foreign(&self, model: &MemoryModel) -> PfnRange {
        let all = model.all_frames();
        let gap = find_gap(&self.devices, all.start(), all.last(), FOREIGN_FRAMES, 1);
        gap.unwrap_or(PfnRange::single(Pfn::ZERO))
    }

    pub(super) fn config(&self, model: &MemoryModel) -> MachineConfig {
        let foreign = self.foreign(model);
        let mut devices = self.devices.clone();
        devices.push(foreign);
        let mut backed: Vec<PfnRange> = self.altmaps.iter().map(|(frames, _)| *frames).collect();
        backed.push(foreign);
        MachineConfig {
            devices,
            backed,
            ram_frames: self.ram_frames,
            ..MachineConfig::default()
        }
    }
}
