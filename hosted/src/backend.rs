//! What a backend brings to a machine, and choosing one at run time.

use crate::{
    AArch64_4K, AArch64_16K, AArch64_64K, Machine, Sim, WithoutQuiesce, X86_64, X86_64La57,
};
use arch_sim::SimMemory;
use arch_sim::walker::Translation;
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;

/// One kind of page table, on a simulated machine.
pub trait Backend: Sized + 'static {
    /// Its name on the command line and in output.
    const NAME: &'static str;

    /// Where descriptors lie.
    const MODEL: MemoryModel;

    /// The last frame that a physical address of the architecture reaches.
    const LAST_FRAME: Pfn;

    /// Whether there are tables below the root that cost frames.
    const HAS_TABLES: bool;

    /// The leaf of the page table next in size above a base page, if it has one.
    const HUGE_LEAF: Option<Order>;

    /// Whether the page table can link a table from several places.
    const SHARES_TABLES: bool;

    /// The CPUs that translate by the tables.
    type Cpus;

    /// The page table.
    type Table<'m>: PageTable;

    /// CPUs that translate by the tables below `root`.
    fn cpus(memory: &SimMemory, root: Pfn) -> Self::Cpus;

    /// The page table of `machine`.
    ///
    /// # Safety
    ///
    /// 1. There is no other one for this machine.
    unsafe fn table(machine: &Machine<Self>) -> Self::Table<'_>;

    /// What `at` translates to, read from memory byte by byte by code that is not the backend's.
    fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation>;
}

/// A backend's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// [`Sim`].
    Sim,
    /// [`X86_64`].
    X86_64,
    /// [`X86_64La57`].
    X86_64La57,
    /// [`AArch64_4K`].
    AArch64_4K,
    /// [`AArch64_16K`].
    AArch64_16K,
    /// [`AArch64_64K`].
    AArch64_64K,
}

/// Something to do with a backend that is chosen at run time.
pub trait WithBackend {
    /// What comes of it.
    type Output;

    /// Does it with `B`.
    fn with<B: Backend>(self) -> Self::Output;
}

impl BackendKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sim,
        Self::X86_64,
        Self::X86_64La57,
        Self::AArch64_4K,
        Self::AArch64_16K,
        Self::AArch64_64K,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        self.run(Name)
    }

    /// Where descriptors lie.
    pub fn model(self) -> MemoryModel {
        self.run(Model)
    }

    /// Does `job` with the backend.
    pub fn run<J: WithBackend>(self, job: J) -> J::Output {
        match self {
            Self::Sim => job.with::<Sim>(),
            Self::X86_64 => job.with::<X86_64>(),
            Self::X86_64La57 => job.with::<X86_64La57>(),
            Self::AArch64_4K => job.with::<AArch64_4K>(),
            Self::AArch64_16K => job.with::<AArch64_16K>(),
            Self::AArch64_64K => job.with::<AArch64_64K>(),
        }
    }

    /// Does `job` with the backend, in a kernel that cannot keep CPUs away from addresses. Where
    /// the architecture does not ask for that, it is the same.
    pub fn run_without_quiesce<J: WithBackend>(self, job: J) -> J::Output {
        match self {
            Self::Sim | Self::X86_64 | Self::X86_64La57 => self.run(job),
            Self::AArch64_4K => job.with::<WithoutQuiesce<AArch64_4K>>(),
            Self::AArch64_16K => job.with::<WithoutQuiesce<AArch64_16K>>(),
            Self::AArch64_64K => job.with::<WithoutQuiesce<AArch64_64K>>(),
        }
    }
}

struct Name;

impl WithBackend for Name {
    type Output = &'static str;

    fn with<B: Backend>(self) -> &'static str {
        B::NAME
    }
}

struct Model;

impl WithBackend for Model {
    type Output = MemoryModel;

    fn with<B: Backend>(self) -> MemoryModel {
        B::MODEL
    }
}
