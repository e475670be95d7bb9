//! What a backend brings to a machine.

use crate::{Machine, SimCpus};
use arch_sim::SimMemory;
use arch_sim::walker::Translation;
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::vmemmap::TreeDescription;

/// One kind of page table, on a simulated machine.
pub trait Backend: Sized + 'static {
    /// Its name on the command line and in output.
    const NAME: &'static str;

    /// What it is, in a few words.
    const ABOUT: &'static str;

    /// Where descriptors lie.
    const MODEL: MemoryModel;

    /// The last frame that a physical address of the architecture reaches.
    const LAST_FRAME: Pfn;

    /// How many levels of tables there are, the root included; 0 for a plain map.
    const TABLE_LEVELS: u32;

    /// Whether there are tables below the root that cost frames.
    const HAS_TABLES: bool = Self::TABLE_LEVELS > 0;

    /// The leaf of the page table next in size above a base page, if it has one.
    const HUGE_LEAF: Option<Order>;

    /// Whether the page table can link a table from several places.
    const SHARES_TABLES: bool;

    /// The CPUs that translate by the tables.
    type Cpus: SimCpus;

    /// The page table.
    type Table<'m>: PageTable;

    /// CPUs that translate by the tables below `root`. Without `quiesce` they belong to a kernel
    /// that cannot keep them away from addresses while an entry in use is exchanged; that is
    /// nothing to an architecture that exchanges entries by one store.
    fn cpus(memory: &SimMemory, root: Pfn, quiesce: bool) -> Self::Cpus;

    /// The page table of `machine`.
    ///
    /// # Safety
    ///
    /// 1. There is no other one for this machine.
    unsafe fn table(machine: &Machine<Self>) -> Self::Table<'_>;

    /// How programs that read a dump of memory find the tables; `None` where there are none.
    fn tree(machine: &Machine<Self>) -> Option<TreeDescription>;

    /// What `at` translates to, read from memory byte by byte by code that is not the backend's.
    fn translate(machine: &Machine<Self>, at: VirtAddr) -> Option<Translation>;
}
