//! An ELF core of a simulated machine: what a dump of a real one has, of memory that holds something.

use arch_sim::SimMemory;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::vmemmap::Description;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_CORE, EV_CURRENT, FileHeader64, Ident, PT_LOAD, PT_NOTE,
    ProgramHeader64,
};
use object::endian::{LittleEndian as LE, U16, U32, U64};
use object::pod::bytes_of;
use std::sync::atomic::Ordering;

/// Where the description of the vmemmap is.
#[derive(Clone, Copy, Debug)]
pub enum Told<'t> {
    /// In a note.
    Note(&'t [u8]),
    /// At the start of a frame behind all others.
    Page(&'t [u8]),
    /// Nowhere.
    Nowhere,
}

/// A core of `memory` on a machine of this number: all frames that are not zero, and what is `told`.
pub fn of_memory(memory: &SimMemory, machine: u16, told: Told<'_>) -> Vec<u8> {
    let page = memory.granule().bytes();
    let mut parts: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut end = 0;
    for chunk in memory.chunks() {
        end = end.max(chunk.last().get() + 1);
        for run in used(memory, chunk) {
            let bytes = (0..run.frames())
                .filter_map(|index| memory.page_bytes(run.start().checked_add(index)?))
                .flatten();
            parts.push((run.start().get() * page, bytes.collect()));
        }
    }
    parts.sort_unstable_by_key(|part| part.0);
    let note = match told {
        Told::Note(bytes) => note(bytes),
        Told::Page(bytes) => {
            parts.push((end * page, bytes.to_vec()));
            Vec::new()
        }
        Told::Nowhere => Vec::new(),
    };
    file(machine, &note, &parts)
}

/// Frames of `chunk` that hold something, as runs.
fn used(memory: &SimMemory, chunk: PfnRange) -> Vec<PfnRange> {
    let is_used = |frame: Pfn| {
        let words = memory.words(frame).unwrap_or_default();
        words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    };
    let mut runs: Vec<PfnRange> = Vec::new();
    // Frames are handed out from the lowest on, so behind many that are empty there is nothing.
    let mut empty = 0_u64;
    for index in 0..chunk.frames() {
        let Some(frame) = chunk.start().checked_add(index) else {
            break;
        };
        if !is_used(frame) {
            empty += 1;
            if empty > 4096 {
                break;
            }
            continue;
        }
        empty = 0;
        let single = PfnRange::single(frame);
        let longer = runs.last().and_then(|last| {
            let follows = last.last().checked_add(1) == Some(frame);
            follows.then(|| PfnRange::new(last.start(), last.frames() + 1).ok())?
        });
        match (longer, runs.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => runs.push(single),
        }
    }
    runs
}

/// A note with the description `bytes`.
pub fn note(bytes: &[u8]) -> Vec<u8> {
    let name = Description::NOTE_NAME.as_bytes();
    let head = [name.len() as u32 + 1, bytes.len() as u32, Description::NOTE];
    let mut note: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(name);
    note.push(0);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(bytes);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// An ELF core with `note` and the `parts` of memory, by their addresses.
pub fn file(machine: u16, note: &[u8], parts: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let count = parts.len() + usize::from(!note.is_empty());
    let header_bytes = size_of::<FileHeader64<LE>>();
    let each = size_of::<ProgramHeader64<LE>>();
    let elf = FileHeader64::<LE> {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: 0,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_CORE),
        e_machine: U16::new(LE, machine),
        e_version: U32::new(LE, EV_CURRENT.into()),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, header_bytes as u64),
        e_shoff: U64::new(LE, 0),
        e_flags: U32::new(LE, 0),
        e_ehsize: U16::new(LE, header_bytes as u16),
        e_phentsize: U16::new(LE, each as u16),
        e_phnum: U16::new(LE, u16::try_from(count).unwrap_or(u16::MAX - 1)),
        e_shentsize: U16::new(LE, 0),
        e_shnum: U16::new(LE, 0),
        e_shstrndx: U16::new(LE, 0),
    };
    let mut bytes = bytes_of(&elf).to_vec();
    let mut offset = (header_bytes + count * each) as u64;
    let mut header = |kind: u32, physical: u64, size: usize| {
        let header = ProgramHeader64::<LE> {
            p_type: U32::new(LE, kind),
            p_flags: U32::new(LE, 0),
            p_offset: U64::new(LE, offset),
            p_vaddr: U64::new(LE, 0),
            p_paddr: U64::new(LE, physical),
            p_filesz: U64::new(LE, size as u64),
            p_memsz: U64::new(LE, size as u64),
            p_align: U64::new(LE, 0),
        };
        offset += size as u64;
        bytes.extend(bytes_of(&header));
    };
    if !note.is_empty() {
        header(PT_NOTE, 0, note.len());
    }
    for (physical, part) in parts {
        header(PT_LOAD, *physical, part.len());
    }
    bytes.extend(note);
    parts.iter().for_each(|(_, part)| bytes.extend(part));
    bytes
}
