//! Backends whose tables are the engine's: what differs from architecture to architecture, and what
//! does not.

use crate::{Backend, Machine};
use arch_sim::walker::{Translation, Walker};
use arch_sim::{SimFrames, SimMemory, SimTlb};
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, Mmu, RadixTable};

/// CPUs that translate by a machine's tables.
pub trait SimCpus {
    /// What reads the tables.
    type Walker: Walker;

    /// The translation caches of each CPU.
    fn all(&self) -> &[SimTlb<Self::Walker>];

    /// Makes them read ahead, from now on, whenever it can do harm: right before they are made to
    /// forget addresses, and right after. Where everything is to be forgotten they read `range`.
    fn read_ahead(&self, range: VirtRange);

    /// How often they were made to forget something, all of them together, so far.
    fn flushes(&self) -> u64;

    /// How many entries of the root became present so far, and how many went, if they are told.
    fn root_changes(&self) -> Option<(u64, u64)>;
}

/// What an architecture brings to a machine whose tables the radix engine writes.
pub trait Radix: Sized + 'static {
    /// The backend's name on the command line and in output.
    const RADIX_NAME: &'static str;

    /// Where descriptors lie.
    const RADIX_MODEL: MemoryModel;

    /// The last frame that memory may have: all that an entry can hold, if nothing else is said.
    const RADIX_LAST_FRAME: Pfn = Self::Format::LAST_FRAME;

    /// What the engine writes.
    type Format: EntryFormat + 'static;

    /// What reads it.
    type Walker: Walker + Send + Sync + 'static;

    /// The CPUs that translate by the tables.
    type Processors: SimCpus<Walker = Self::Walker>;

    /// The hardware that the engine tells of its changes.
    type Mmu<'m>: Mmu;

    /// The reader.
    fn walker() -> Self::Walker;

    /// CPUs that translate by the tables below `root`.
    fn processors(memory: &SimMemory, root: Pfn) -> Self::Processors;

    /// The hardware that stands for all of `cpus`.
    fn mmu(cpus: &Self::Processors) -> Self::Mmu<'_>;

    /// The entry by which somebody else would map `frame`, by hand: a base page, or the leaf next
    /// in size.
    fn foreign_leaf(frame: Pfn, huge: bool) -> u64;

    /// The entry by which somebody else would link the table `frame`, by hand.
    fn foreign_table(frame: Pfn) -> u64;
}

/// A [`Backend`] whose tables the radix engine writes: for what needs to look behind the page
/// table.
pub trait RadixBackend: Radix + Backend<Cpus = <Self as Radix>::Processors> {}

impl<R: Radix> RadixBackend for R {}

impl<R: Radix> Backend for R {
    const NAME: &'static str = R::RADIX_NAME;
    const MODEL: MemoryModel = R::RADIX_MODEL;
    const LAST_FRAME: Pfn = R::RADIX_LAST_FRAME;
    const HAS_TABLES: bool = true;
    const HUGE_LEAF: Option<Order> = <Self as Backend>::Table::<'static>::HUGE_LEAF;
    const SHARES_TABLES: bool = true;
    type Cpus = R::Processors;
    type Table<'m> = RadixTable<R::Format, &'m SimFrames, &'m SimMemory, R::Mmu<'m>>;

    fn cpus(memory: &SimMemory, root: Pfn) -> R::Processors {
        R::processors(memory, root)
    }

    unsafe fn table(machine: &Machine<Self>) -> Self::Table<'_> {
        // SAFETY: 1: the machine's root table is empty at first. 2: the machine's memory has all
        // frames of its allocator, and the root. 3: there is no other table for the machine
        // (duty 1). 4: the machine has no other CPUs.
        unsafe {
            RadixTable::new(
                machine.root(),
                machine.frames(),
                machine.memory(),
                R::mmu(machine.cpus()),
            )
        }
    }

    fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation> {
        let walker = R::walker();
        walker.translate(machine.memory(), machine.root(), at).ok()
    }
}
