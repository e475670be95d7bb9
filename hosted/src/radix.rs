//! Backends whose tables are the engine's: what differs from architecture to architecture, and what
//! does not.

use crate::{Backend, Machine, SimCpus};
use arch_sim::walker::{Translation, Walker};
use arch_sim::{SimFrames, SimMemory, TableMap};
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::paging::{EntryFormat, Mmu, RadixTable, Roots};
use mm_core::vmemmap::TreeDescription;

/// What an architecture brings to a machine whose tables the radix engine writes.
pub trait Radix: Sized + 'static {
    /// The backend's name on the command line and in output.
    const RADIX_NAME: &'static str;

    /// What it is, in a few words.
    const RADIX_ABOUT: &'static str;

    /// Where descriptors lie.
    const RADIX_MODEL: MemoryModel;

    /// The last frame of the machine: the last that an entry can hold, unless it has less.
    const RADIX_LAST_FRAME: Pfn = Self::Format::LAST_FRAME;

    /// What the engine writes.
    type Format: EntryFormat + 'static;

    /// What reads it.
    type Walker: Walker + Send + Sync + 'static;

    /// The CPUs that translate by the tables.
    type Processors: SimCpus<Walker = Self::Walker>;

    /// The hardware that the engine tells of its changes.
    type Mmu<'m>: Mmu<Self::Format>;

    /// The other roots, of which there are none; they may count what they are told.
    type Roots<'m>: Roots;

    /// The reader.
    fn walker() -> Self::Walker;

    /// CPUs that translate by the tables below `root`; see [`Backend::cpus`].
    fn processors(memory: &SimMemory, root: Pfn, quiesce: bool) -> Self::Processors;

    /// The hardware that stands for all of `cpus`.
    fn mmu(cpus: &Self::Processors) -> Self::Mmu<'_>;

    /// See [`Roots`](Self::Roots).
    fn roots(cpus: &Self::Processors) -> Self::Roots<'_>;

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
    const ABOUT: &'static str = R::RADIX_ABOUT;
    const MODEL: MemoryModel = R::RADIX_MODEL;
    const LAST_FRAME: Pfn = R::RADIX_LAST_FRAME;
    const TABLE_LEVELS: u32 = R::Format::LEVELS.len() as u32;
    const HUGE_LEAF: Option<Order> = <Self as Backend>::Table::<'static>::HUGE_LEAF;
    const SHARES_TABLES: bool = true;
    type Cpus = R::Processors;
    type Table<'m> = RadixTable<R::Format, &'m SimFrames, TableMap<'m>, R::Mmu<'m>, R::Roots<'m>>;

    fn cpus(memory: &SimMemory, root: Pfn, quiesce: bool) -> R::Processors {
        R::processors(memory, root, quiesce)
    }

    unsafe fn table(machine: &Machine<Self>) -> Self::Table<'_> {
        // SAFETY: 1: the machine's root table is empty at first. 2: the machine's memory has all
        // frames of its allocator, and the root. 3: there is no other table for the machine
        // (duty 1). 4: the machine has no other CPUs. 5: it has no other root.
        // 6: there is one allocator.
        unsafe {
            RadixTable::new(
                machine.root(),
                R::roots(machine.cpus()),
                machine.frames(),
                TableMap::new(machine.memory(), machine.table_watch()),
                R::mmu(machine.cpus()),
            )
        }
    }

    fn tree(machine: &Machine<Self>) -> Option<TreeDescription> {
        Some(TreeDescription::of::<R::Format>(machine.root()))
    }

    fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation> {
        let walker = R::walker();
        walker.translate(machine.memory(), machine.root(), at).ok()
    }
}
