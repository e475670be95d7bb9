//! A machine: RAM, device memory, CPUs, and the tables of one backend.

use crate::backend::Backend;
use crate::layout::find_gap;
use arch_sim::{SimFrames, SimMemory, TableWatch, Violations};
use mm_core::addr::{NodeId, Pfn, PfnRange};
use std::cell::Cell;
use std::fmt;
use std::io;

/// RAM starts at a multiple of this many frames, so that blocks of any usual order fit.
const RAM_ALIGN: u64 = 1 << 18;

/// What a [`Machine`] has.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Memory that will be brought online; RAM lies elsewhere. Has no contents.
    pub devices: Vec<PfnRange>,
    /// Parts of it that have contents, for altmaps.
    pub backed: Vec<PfnRange>,
    /// How many frames of RAM each of the two nodes has. The first node's lie in two places.
    pub ram_frames: u64,
    /// Whether the kernel can keep CPUs away from addresses whose entries are exchanged, where the
    /// architecture asks for that.
    pub quiesce: bool,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            backed: Vec::new(),
            ram_frames: 1 << 21,
            quiesce: true,
        }
    }
}

/// Why there is no such machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum MachineError {
    /// The requested ranges leave no room for RAM in the physical address space.
    NoRoomForRam {
        /// How many frames have to fit.
        frames: u64,
    },
    /// The host refused.
    Host(io::Error),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoomForRam { frames } => write!(
                f,
                "the ranges leave no {frames:#x} frames of the physical address space for RAM; request less"
            ),
            Self::Host(error) => write!(f, "the host has no memory for the simulation: {error}"),
        }
    }
}

impl std::error::Error for MachineError {}

impl From<io::Error> for MachineError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// A simulated machine with the tables of the backend `B`.
pub struct Machine<B: Backend> {
    memory: SimMemory,
    frames: SimFrames,
    root: Pfn,
    table_watch: TableWatch,
    cpus: B::Cpus,
    table_taken: Cell<bool>,
}

impl<B: Backend> fmt::Debug for Machine<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("backend", &B::NAME)
            .field("frames", &self.frames)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Machine<B> {
    /// The nodes that have RAM.
    pub const NODES: [NodeId; 2] = [NodeId::new(0), NodeId::new(1)];

    /// A machine with an empty root table, which is no frame of the allocator's.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn new(config: &MachineConfig) -> Result<Self, MachineError> {
        let granule = B::MODEL.granule();
        let mut taken = config.devices.clone();
        let mut place = |frames: u64| {
            let last = B::LAST_FRAME;
            let above = B::MODEL.all_frames().last().saturating_add(1);
            // Above all that can be brought online, so that RAM is in the same place whatever is
            // requested; where the model has no end before the address space's, in the
            // first gap.
            let gap = find_gap(&taken, above, last, frames, RAM_ALIGN)
                .or_else(|| find_gap(&taken, Pfn::ZERO, last, frames, RAM_ALIGN))
                .ok_or(MachineError::NoRoomForRam { frames })?;
            // The next one is apart from this.
            taken.push(PfnRange::new(gap.start(), frames + 1).unwrap_or(gap));
            Ok::<_, MachineError>(gap)
        };
        let half = (config.ram_frames / 2).max(1);
        let first = place(half)?;
        let second = place(half)?;
        let other = place(config.ram_frames.max(1))?;
        let root = place(1)?;

        let mut chunks = vec![first, second, other, root];
        chunks.extend_from_slice(&config.backed);
        let memory = SimMemory::new(granule, &chunks)?;
        let [near, far] = Self::NODES;
        let frames = SimFrames::new(&memory, &[(near, &[first, second]), (far, &[other])])?;
        let root = root.start();
        Ok(Self {
            cpus: B::cpus(&memory, root, config.quiesce),
            memory,
            frames,
            root,
            table_watch: TableWatch::default(),
            table_taken: Cell::new(false),
        })
    }

    /// Physical memory; the direct map.
    pub fn memory(&self) -> &SimMemory {
        &self.memory
    }

    /// The allocator of RAM.
    pub fn frames(&self) -> &SimFrames {
        &self.frames
    }

    /// The CPUs.
    pub fn cpus(&self) -> &B::Cpus {
        &self.cpus
    }

    /// The root table.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// What the page table does to its tables, if it has some.
    pub fn table_watch(&self) -> &TableWatch {
        &self.table_watch
    }

    /// What went wrong so far.
    pub fn violations(&self) -> &Violations {
        self.memory.violations()
    }

    /// The machine's page table; `None` after the first time.
    pub fn take_table(&self) -> Option<B::Table<'_>> {
        if self.table_taken.replace(true) {
            return None;
        }
        // SAFETY: 1: the first and only call for this machine.
        Some(unsafe { B::table(self) })
    }
}
