//! A simulated machine for a request: RAM enough, the altmap, the vmemmap.

use crate::altmap::{self, Altmap};
use crate::failure::Failure;
use crate::need::{Limits, Need};
use crate::request::FrameRequest;
use arch_sim::{SimFrames, SimMemory};
use hosted::{AnyMachine, AnyTable, BackendFacts, BackendKind, MachineConfig};
use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Page};
use mm_core::vmemmap::{Reserve, Vmemmap};
use std::time::{Duration, Instant};

/// The page table and the vmemmap of a machine.
pub type Mapped<'m> = (AnyTable<'m>, MachineVmemmap<'m>);

/// The vmemmap of a machine.
pub type MachineVmemmap<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;

/// A machine, and the altmap in its device memory.
pub struct Simulation {
    /// The machine.
    pub machine: Box<dyn AnyMachine>,
    /// What is so of its page tables.
    pub facts: BackendFacts,
    /// The altmap.
    pub altmap: Option<Altmap>,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("facts", &self.facts)
            .field("altmap", &self.altmap)
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// A machine of `backend` with the memory of `frames`, `reserved` of it for an altmap, and RAM for `need`.
    /// See [`MachineConfig`] for `quiesce`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] where `need` is more than `limits` allow, or there is no such machine.
    pub fn new(
        backend: BackendKind,
        frames: &FrameRequest<'_>,
        reserved: Option<PfnRange>,
        need: &Need,
        limits: &Limits,
        quiesce: bool,
    ) -> Result<Self, Failure> {
        need.check(limits, &frames.less())?;
        let machine = backend.machine(&MachineConfig {
            devices: frames.ranges.clone(),
            backed: reserved.into_iter().collect(),
            ram_frames: need.ram_frames(),
            quiesce,
        })?;
        let facts = backend.facts();
        let altmap = match reserved {
            Some(reserved) => {
                let (memory, node) = (machine.memory(), frames.node());
                // SAFETY: 1: the machine has contents for the reserved part, and its RAM is
                // elsewhere. 2: it has one vmemmap, and there is one thread.
                Some(unsafe { altmap::on_machine(memory, reserved, &facts.model, node) }?)
            }
            None => None,
        };
        Ok(Self {
            machine,
            facts,
            altmap,
        })
    }

    /// How many frames `reserve` is.
    pub fn frames_in(&self, reserve: Reserve) -> u64 {
        let leaf = self.facts.huge_leaf.map_or(0, |leaf| leaf.frames());
        reserve.frames + reserve.tables + reserve.huge_leaves * leaf
    }

    /// The machine's page table and its vmemmap; once.
    ///
    /// # Errors
    ///
    /// A [`Failure`] the second time.
    pub fn start(&self) -> Result<Mapped<'_>, Failure> {
        let table = self
            .machine
            .take_table()
            .ok_or_else(|| Failure::host("the machine's page table is taken"))?;
        // SAFETY: 1: nothing else is mapped on this machine. 2: its memory has all RAM, and
        // contents for the altmap. 3: the machine has one table.
        let vmemmap = unsafe {
            Vmemmap::new(
                self.facts.model,
                self.machine.frames(),
                self.machine.memory(),
            )
        };
        Ok((table, vmemmap.map_err(Failure::host)?))
    }
}

/// Does `work`, and says how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
