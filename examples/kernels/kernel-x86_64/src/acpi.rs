//! Finding persistent memory and CPUs in ACPI's tables.
//!
//! RSDP ▶ XSDT or RSDT ▶ NFIT ▶ System Physical Address Range structures (ACPI 6.5, sections 5.2.5 to 5.2.8 and 5.2.26.2),
//! or ▶ MADT ▶ Processor Local APIC structures (5.2.12.2). Two tables, each one list: the `acpi` crate wants a mapping for
//! each table and a handler with much that is not needed.

use boot_x86_64::{Fields, FirmwareMemory, Processors};
use experiment::RangeList;
use mm_core::addr::{Granule, PfnRange, PhysAddr};

const RSDP_BYTES: u64 = 36;
const HEADER_BYTES: u64 = 36;

/// NFIT's structures start behind the header and four reserved bytes.
const NFIT_STRUCTURES: usize = 40;

/// The type of a System Physical Address Range structure.
const ADDRESS_RANGE: u16 = 0;

/// 66f0d379-b4f3-4074-ac43-0d3318b78cdb, byte-addressable persistent memory, as it lies in memory.
const PERSISTENT_MEMORY: [u8; 16] = [
    0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb,
];

/// MADT's structures start behind the header, the local APIC's address and four bytes of flags.
const MADT_STRUCTURES: usize = 44;

/// The type of a Processor Local APIC structure, and the flag of one that can be started.
const LOCAL_APIC: u8 = 0;
const ENABLED: u32 = 1;

/// All CPUs that can be started, with numbers of 8 bits; `None` where no table lists them.
pub fn processors(memory: &FirmwareMemory, rsdp: u64) -> Option<Processors> {
    let madt = find_table(memory, rsdp, *b"APIC")?;
    let local_apic = madt.u32_at(HEADER_BYTES as usize)?;
    let mut found = Processors::new(PhysAddr::new(local_apic.into()));
    let mut rest = madt.get(MADT_STRUCTURES..)?;
    while let Some([kind, length]) = rest.field::<2>(0).filter(|[_, length]| *length >= 2) {
        let (structure, after) = rest.split_at_checked(length.into())?;
        rest = after;
        if kind == LOCAL_APIC
            && let (Some([id]), Some(flags)) = (structure.field(3), structure.u32_at(4))
            && flags & ENABLED != 0
        {
            found.add(id);
        }
    }
    Some(found)
}

/// All persistent memory; empty where there are no tables, or none that say so.
pub fn persistent_memory(memory: &FirmwareMemory, rsdp: u64) -> RangeList {
    let mut found = RangeList::default();
    if let Some(nfit) = find_table(memory, rsdp, *b"NFIT") {
        add_ranges(nfit, &mut found);
    }
    found
}

fn sum_is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The table at `address`, whatever it is, if its checksum is right.
fn table(memory: &FirmwareMemory, address: u64) -> Option<&[u8]> {
    let length = memory.bytes(address, HEADER_BYTES)?.u32_at(4)?;
    memory
        .bytes(address, u64::from(length))
        .filter(|table| sum_is_zero(table))
}

fn find_table(memory: &FirmwareMemory, rsdp: u64, signature: [u8; 4]) -> Option<&[u8]> {
    let root = memory.bytes(rsdp, RSDP_BYTES)?;
    if root.field(0)? != *b"RSD PTR " || !sum_is_zero(root.get(..20)?) {
        return None;
    }
    let extended = if root.field::<1>(15)? >= [2] {
        root.u64_at(24).filter(|address| *address != 0)
    } else {
        None
    };
    let (list, wide) = match extended {
        Some(address) => (address, true),
        None => (u64::from(root.u32_at(16)?), false),
    };
    let entries = table(memory, list)?.get(HEADER_BYTES as usize..)?;
    entries
        .chunks_exact(if wide { 8 } else { 4 })
        .find_map(|entry| {
            let address = if wide {
                entry.u64_at(0)?
            } else {
                u64::from(entry.u32_at(0)?)
            };
            table(memory, address).filter(|table| table.field(0) == Some(signature))
        })
}

fn add_ranges(nfit: &[u8], found: &mut RangeList) {
    let mut rest = nfit.get(NFIT_STRUCTURES..).unwrap_or_default();
    while let Some(length) = rest.u16_at(2).filter(|length| *length >= 4) {
        let Some((structure, after)) = rest.split_at_checked(usize::from(length)) else {
            return;
        };
        rest = after;
        let is_persistent = structure.u16_at(0) == Some(ADDRESS_RANGE)
            && structure.field(16) == Some(PERSISTENT_MEMORY);
        if let (true, Some(base), Some(size)) =
            (is_persistent, structure.u64_at(32), structure.u64_at(40))
            && let Some(range) = PfnRange::whole_frames(PhysAddr::new(base), size, Granule::Size4K)
        {
            // A device too many for the list is not used.
            let _ = found.add(range);
        }
    }
}
