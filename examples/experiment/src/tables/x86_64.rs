//! Entries of x86-64 (SDM, volume 3A, "Paging", the formats of 4-level and 5-level paging entries).

use super::{EntryBits, Rights, Step};
use mm_core::addr::PhysAddr;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// A block, above the last level; there it is another bit, PAT.
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const EXECUTE_DISABLE: u64 = 1 << 63;

/// Bits 51 to 12.
const ADDRESS: u64 = (1 << 52) - (1 << 12);

/// PAT of a block, where its address has no bits.
const PAT_OF_BLOCK: u64 = 1 << 12;

/// Entries of 4-level and 5-level paging.
#[derive(Debug)]
pub enum X86Entries {}

impl EntryBits for X86Entries {
    const DATA: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY | GLOBAL | EXECUTE_DISABLE;

    fn link(table: PhysAddr) -> u64 {
        table.get() | PRESENT | WRITABLE
    }

    fn leaf(first: PhysAddr, attributes: u64, last: bool) -> u64 {
        first.get() | attributes | if last { 0 } else { PAGE_SIZE }
    }

    fn step(entry: u64, last: bool) -> Step {
        if entry & PRESENT == 0 {
            return Step::NotPresent;
        }
        let mut rights = Rights::empty();
        rights.set(Rights::WRITE, entry & WRITABLE != 0);
        rights.set(Rights::EXECUTE, entry & EXECUTE_DISABLE == 0);
        let address = entry & ADDRESS;
        match (last, entry & PAGE_SIZE != 0) {
            (true, _) => Step::Leaf(PhysAddr::new(address), rights),
            (false, true) => Step::Leaf(PhysAddr::new(address & !PAT_OF_BLOCK), rights),
            (false, false) => Step::Table(PhysAddr::new(address), rights),
        }
    }
}
