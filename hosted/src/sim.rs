//! The backend without tables: the oracle.

use crate::{Backend, Machine, X86_64};
use arch_sim::walker::Translation;
use arch_sim::{FlatTable, SimMemory};
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::model::MemoryModel;

/// The flat map as page table, in the memory model of x86-64.
#[derive(Debug)]
pub enum Sim {}

impl Backend for Sim {
    const NAME: &'static str = "sim";
    const MODEL: MemoryModel = X86_64::MODEL;
    const LAST_FRAME: Pfn = X86_64::LAST_FRAME;
    const HAS_TABLES: bool = false;
    type Cpus = ();
    type Table<'m> = FlatTable;

    fn cpus(_memory: &SimMemory, _root: Pfn) {}

    unsafe fn table(_machine: &Machine<Self>) -> FlatTable {
        FlatTable::new(Self::MODEL.granule(), Order::new(9))
    }

    fn translate(_machine: &Machine<Self>, _at: VirtAddr) -> Option<Translation> {
        None
    }
}
