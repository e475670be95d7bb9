//! Descriptors of AArch64 (Arm ARM, "VMSAv8-64 translation table format descriptors"), with 48-bit addresses.

use super::{EntryBits, Rights, Step};
use mm_core::addr::PhysAddr;

const VALID: u64 = 1 << 0;
/// A table, or a page in the last level. Without it, a block above the last level, and nothing in it.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// AP[2].
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
/// Not executable at EL1, and at EL0.
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;

/// What a table descriptor denies all below it: PXNTable and APTable[1].
const PXN_BELOW: u64 = 1 << 59;
const READ_ONLY_BELOW: u64 = 1 << 62;

/// Bits 47 to 12. Those of them that are below the page or block are zero.
const ADDRESS: u64 = (1 << 48) - (1 << 12);

/// Descriptors of stage 1 at EL1, with any granule. Data is normal memory by index 0 of MAIR_EL1.
#[derive(Debug)]
pub enum ArmDescriptors {}

impl EntryBits for ArmDescriptors {
    const DATA: u64 = VALID | INNER_SHAREABLE | ACCESSED | PXN | UXN;

    fn link(table: PhysAddr) -> u64 {
        table.get() | VALID | TABLE_OR_PAGE
    }

    fn leaf(first: PhysAddr, attributes: u64, last: bool) -> u64 {
        first.get() | attributes | if last { TABLE_OR_PAGE } else { 0 }
    }

    fn step(entry: u64, last: bool) -> Step {
        let has = |bits: u64| entry & bits != 0;
        let rights = |read_only, execute_never| {
            let mut rights = Rights::empty();
            rights.set(Rights::WRITE, !has(read_only));
            rights.set(Rights::EXECUTE, !has(execute_never));
            rights
        };
        let address = PhysAddr::new(entry & ADDRESS);
        match (has(VALID), has(TABLE_OR_PAGE), last) {
            (true, true, false) => Step::Table(address, rights(READ_ONLY_BELOW, PXN_BELOW)),
            (true, true, true) | (true, false, false) => {
                Step::Leaf(address, rights(READ_ONLY, PXN))
            }
            _ => Step::NotPresent,
        }
    }
}
