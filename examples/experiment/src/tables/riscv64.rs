//! Entries of RISC-V (privileged manual, version 20211203, 4.3.1 and 4.4.1), in Sv39, Sv48 and Sv57.

use super::{EntryBits, Rights, Step};
use mm_core::addr::PhysAddr;

const VALID: u64 = 1 << 0;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const GLOBAL: u64 = 1 << 5;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;

/// Bits 53 to 10 are those of an address from bit 12 on.
const NUMBER: u64 = (1 << 54) - (1 << 10);
const UP: u32 = 2;

/// Entries of all modes. They are alike at every level: what allows nothing is a link.
#[derive(Debug)]
pub enum RiscVEntries {}

impl EntryBits for RiscVEntries {
    const DATA: u64 = VALID | READ | WRITE | GLOBAL | ACCESSED | DIRTY;

    fn link(table: PhysAddr) -> u64 {
        table.get() >> UP | VALID
    }

    fn leaf(first: PhysAddr, attributes: u64, _last: bool) -> u64 {
        first.get() >> UP | attributes
    }

    fn step(entry: u64, last: bool) -> Step {
        let address = PhysAddr::new((entry & NUMBER) << UP);
        let mut rights = Rights::empty();
        rights.set(Rights::WRITE, entry & WRITE != 0);
        rights.set(Rights::EXECUTE, entry & EXECUTE != 0);
        match (entry & VALID != 0, entry & (READ | WRITE | EXECUTE) != 0) {
            (true, true) => Step::Leaf(address, rights),
            (true, false) if !last => Step::Table(address, Rights::all()),
            _ => Step::NotPresent,
        }
    }
}
