//! A simulated machine with memory online, for what looks at it from outside.

use crate::failure::Failure;
use crate::look::description::Described;
use crate::need::{Limits, Need};
use crate::request::Request;
use crate::simulation::Simulation;
use crate::size::{ByteRange, ByteSize};
use arch_sim::SimMemory;
use hosted::BackendKind;
use mm_core::addr::NodeId;
use mm_core::pagemap::{Heads, Piece, Tables, Tails};
use object::elf::{EM_AARCH64, EM_RISCV, EM_X86_64};

/// A region as it is usually brought online.
#[derive(Clone, Debug)]
pub struct Region {
    /// The page tables.
    pub backend: BackendKind,
    /// The memory.
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that it is used in.
    pub align: ByteSize,
    /// What tails share.
    pub tails: Tails,
    /// What tables share.
    pub tables: Tables,
    /// Where the heads of compound pages go.
    pub heads: Heads,
}

impl Default for Region {
    fn default() -> Self {
        Self {
            backend: BackendKind::X86_64,
            ranges: Vec::new(),
            align: ByteSize(2 << 20),
            tails: Tails::PerCompound,
            tables: Tables::Private,
            heads: Heads::InPlace,
        }
    }
}

impl From<&Region> for Request {
    fn from(region: &Region) -> Self {
        Self {
            backend: region.backend,
            ranges: region.ranges.clone(),
            align: region.align,
            heads: region.heads,
            tails: (region.align.0 > region.backend.model().granule().bytes())
                .then_some(region.tails),
            tables: region.tables,
            piece: Piece::Section,
            huge_leaves: true,
            altmap: None,
            node: NodeId::new(0),
            fail_after: None,
        }
    }
}

/// A machine with that online.
#[derive(Clone, Copy, Debug)]
pub struct LiveMachine<'m> {
    /// Physical memory.
    pub memory: &'m SimMemory,
    /// The architecture's number in ELF.
    pub elf_machine: u16,
    /// The description of the vmemmap, as a kernel has it in memory; `None` where there are no tables to be described.
    pub description: Option<&'m [u8]>,
    /// Frames of RAM that are out.
    pub frames: u64,
}

/// Does `work` with a machine on which `region` is online.
///
/// # Errors
///
/// A [`Failure`] where it does not come online, or that of `work`.
pub fn with_memory_online<T>(
    region: &Region,
    limits: &Limits,
    work: &mut dyn FnMut(LiveMachine<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let request = Request::from(region);
    let facts = region.backend.facts();
    let frames = request.in_frames(facts.model.granule())?;
    let pagemap = frames.pagemap(&facts.model, None)?;
    let need = Need::of(&facts, &pagemap);
    let simulation = Simulation::new(region.backend, &frames, None, &need, limits, true)?;
    let (mut table, mut vmemmap) = simulation.start()?;
    let region = vmemmap.online(&mut table, &pagemap)?;
    let machine = &simulation.machine;
    let tree = machine.tree();
    let description = tree.map(|tree| Described::bytes_of(&vmemmap.describe(&tree)));
    let done = work(LiveMachine {
        memory: machine.memory(),
        elf_machine: elf_machine(request.backend),
        description: description.as_deref(),
        frames: machine.frames().outstanding(),
    });
    vmemmap.offline(&mut table, region).map_err(Failure::host)?;
    done
}

/// The number of a backend's architecture in ELF; 0 where it is none.
pub const fn elf_machine(backend: BackendKind) -> u16 {
    match backend {
        BackendKind::Sim => 0,
        BackendKind::X86_64 | BackendKind::X86_64La57 => EM_X86_64,
        BackendKind::AArch64_4K | BackendKind::AArch64_16K | BackendKind::AArch64_64K => EM_AARCH64,
        BackendKind::RiscV64Sv39 | BackendKind::RiscV64Sv48 | BackendKind::RiscV64Sv57 => EM_RISCV,
    }
}
