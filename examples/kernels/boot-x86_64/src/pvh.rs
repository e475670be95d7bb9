//! The start information of a PVH entry: where RAM is, and where ACPI's tables start.
//!
//! Layout: `struct hvm_start_info`, version 1, and `struct hvm_memmap_table_entry` (Xen's public header
//! `arch-x86/hvm/start_info.h`).

use crate::firmware::{Fields, FirmwareMemory};
use experiment::RangeList;
use mm_core::addr::{Granule, PfnRange, PhysAddr};

const MAGIC: u32 = 0x336e_c578;
const START_INFO_BYTES: u64 = 56;
const ENTRY_BYTES: usize = 24;

/// The type of a memory map entry that is RAM. Other types are left alone, however large.
const RAM: u32 = 1;

/// What is needed of the start information.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo {
    /// The physical address of ACPI's root pointer; 0 for none.
    pub rsdp: u64,
    /// RAM, in whole frames.
    pub ram: RangeList,
    /// Whether the kernel's arguments have the word `dump`.
    pub dump: bool,
}

/// How long the kernel's arguments are at most.
const ARGUMENTS_BYTES: u64 = 256;

/// Whether the arguments at `address`, which end with a zero, have the word `dump`.
fn asks_for_a_dump(memory: &FirmwareMemory, address: u64) -> bool {
    let arguments = memory.bytes(address, ARGUMENTS_BYTES).unwrap_or_default();
    let arguments = arguments
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    arguments
        .split(|byte| *byte == b' ')
        .any(|word| word == b"dump")
}

impl StartInfo {
    /// Reads it at the physical address `at`; `None` where it is none, or has no memory map.
    pub fn read(memory: &FirmwareMemory, at: u64) -> Option<Self> {
        let info = memory.bytes(at, START_INFO_BYTES)?;
        if info.u32_at(0)? != MAGIC || info.u32_at(4)? < 1 {
            return None;
        }
        let entries = u64::from(info.u32_at(48)?);
        let map = memory.bytes(info.u64_at(40)?, entries * ENTRY_BYTES as u64)?;
        let mut ram = RangeList::default();
        for entry in map.chunks_exact(ENTRY_BYTES) {
            let (address, size, kind) = (entry.u64_at(0)?, entry.u64_at(8)?, entry.u32_at(16)?);
            if kind == RAM
                && let Some(range) =
                    PfnRange::whole_frames(PhysAddr::new(address), size, Granule::Size4K)
                && !ram.add(range)
            {
                return None;
            }
        }
        Some(Self {
            dump: asks_for_a_dump(memory, info.u64_at(24)?),
            rsdp: info.u64_at(32)?,
            ram,
        })
    }
}
