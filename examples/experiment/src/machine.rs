//! What the experiment runs on.

use crate::memory::Frames;
use crate::mmu::MmuRecord;
use crate::tables::{RawTables, TableShape};
use mm_core::model::MemoryModel;

/// What the experiment runs on, apart from the page table: a CPU, memory, and ways to look at both
/// from outside.
#[derive(Debug)]
pub struct Machine<'m, P, M> {
    /// The CPU.
    pub probe: &'m P,
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// What the page table's tables translate.
    pub shape: TableShape,
    /// The allocator.
    pub frames: &'m Frames<'m>,
    /// The direct map.
    pub direct_map: &'m M,
    /// The page table's tables, read by hand.
    pub raw_tables: &'m dyn RawTables,
    /// What the page table's MMU was told.
    pub record: &'m MmuRecord,
}

impl<P, M> Clone for Machine<'_, P, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, M> Copy for Machine<'_, P, M> {}
