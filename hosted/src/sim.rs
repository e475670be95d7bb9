//! The backend without tables: the oracle.

use crate::{Backend, Machine, NoCpus, X86_64};
use arch_sim::walker::Translation;
use arch_sim::{FlatTable, SimMemory};
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::model::MemoryModel;
use mm_core::vmemmap::TreeDescription;

/// The flat map as page table, in the memory model of x86-64.
#[derive(Debug)]
pub enum Sim {}

impl Backend for Sim {
    const NAME: &'static str = "sim";
    const ABOUT: &'static str = "a plain map, the oracle";
    const MODEL: MemoryModel = X86_64::MODEL;
    const LAST_FRAME: Pfn = X86_64::LAST_FRAME;
    const TABLE_LEVELS: u32 = 0;
    const HUGE_LEAF: Option<Order> = X86_64::HUGE_LEAF;
    const SHARES_TABLES: bool = false;
    type Cpus = NoCpus;
    type Table<'m> = FlatTable;

    fn cpus(_memory: &SimMemory, _root: Pfn, _quiesce: bool) -> NoCpus {
        NoCpus
    }

    unsafe fn table(_machine: &Machine<Self>) -> FlatTable {
        FlatTable::new(Self::MODEL.granule(), Self::HUGE_LEAF)
    }

    fn tree(_machine: &Machine<Self>) -> Option<TreeDescription> {
        None
    }

    fn translate(_machine: &Machine<Self>, _at: VirtAddr) -> Option<Translation> {
        None
    }
}
