//! Where memory lies in an ELF core. Nothing that it says is believed without a look at the file's length.

use crate::failure::Failure;
use arch_sim::ReadMemory;
use mm_core::addr::PhysAddr;
use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, EM_AARCH64, EM_RISCV, EM_X86_64, FileHeader64, PN_XNUM, PT_LOAD,
    PT_NOTE, ProgramHeader64, SectionHeader64,
};
use object::pod::{from_bytes, slice_from_bytes};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of the file is read at a time.
const BLOCK: u64 = 4096;

/// How many such blocks are kept.
const KEPT: usize = 256;

/// How many program headers are read; a machine has a few ranges of memory.
const MOST_HEADERS: u64 = 1 << 16;

/// How large a part with notes is read.
const MOST_NOTES: u64 = 16 << 20;

/// What a dump lies in.
#[derive(Debug)]
enum Source {
    File(File),
    Bytes(Vec<u8>),
}

impl Source {
    /// Fills `buffer` from `offset` on.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = start
                    .checked_add(buffer.len())
                    .and_then(|end| bytes.get(start..end))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

/// Physical memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its first address.
    pub physical: u64,
    /// Where it lies in the file.
    pub offset: u64,
    /// How much of it.
    pub bytes: u64,
}

/// A block of the file that was read.
#[derive(Debug)]
struct Block {
    number: u64,
    bytes: Box<[u8]>,
}

/// A dump of a machine's memory.
#[derive(Debug)]
pub struct Dump {
    source: Source,
    length: u64,
    machine: u16,
    loads: Vec<Load>,
    notes: Vec<u8>,
    kept: RefCell<Vec<Option<Block>>>,
}

impl Dump {
    /// The dump in `file`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says what it is instead, or what is missing.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let no = |error: io::Error| unreadable(format!("{name}: {error}"));
        let file = File::open(path).map_err(no)?;
        let metadata = file.metadata().map_err(no)?;
        if !metadata.is_file() {
            return Err(unreadable(format!("{name} is no file")));
        }
        Self::new(Source::File(file), metadata.len())
            .map_err(|what| unreadable(format!("{name} {what}")))
    }

    /// The dump in `bytes`.
    ///
    /// # Errors
    ///
    /// A [`Failure`], as for [`open`](Self::open).
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, Failure> {
        let length = bytes.len() as u64;
        Self::new(Source::Bytes(bytes), length)
            .map_err(|what| unreadable(format!("the dump {what}")))
    }

    fn new(source: Source, length: u64) -> Result<Self, String> {
        let headers = Headers {
            source: &source,
            length,
        };
        let elf: FileHeader64<LE> = headers
            .one(0)
            .map_err(|_| "is no ELF file: it is too short".to_owned())?;
        if elf.e_ident.magic != object::elf::ELFMAG {
            return Err("is no ELF file".to_owned());
        }
        if elf.e_ident.class != ELFCLASS64 || elf.e_ident.data != ELFDATA2LSB {
            return Err("is no dump of a 64-bit little-endian machine".to_owned());
        }
        let machine = elf.e_machine.get(LE);
        let mut loads = Vec::new();
        let mut notes = Vec::new();
        for header in headers.program_headers(&elf)? {
            let part = Load {
                physical: header.p_paddr.get(LE),
                offset: header.p_offset.get(LE),
                bytes: header.p_filesz.get(LE),
            };
            let end = part.offset.checked_add(part.bytes);
            if end.is_none_or(|end| end > length) {
                return Err(format!(
                    "is cut off: {:#x} bytes from {:#x} on are beyond its end, {length:#x}",
                    part.bytes, part.offset
                ));
            }
            match header.p_type.get(LE) {
                PT_LOAD if part.bytes > 0 => {
                    if part.physical.checked_add(part.bytes).is_none() {
                        return Err(format!(
                            "has memory beyond all addresses, at {:#x}",
                            part.physical
                        ));
                    }
                    loads.push(part);
                }
                PT_NOTE if part.bytes <= MOST_NOTES => {
                    notes.extend(headers.bytes(part.offset, part.bytes)?)
                }
                _ => {}
            }
        }
        if loads.is_empty() {
            return Err(
                "has no memory in it; a dump has program headers of the type LOAD".to_owned(),
            );
        }
        loads.sort_unstable_by_key(|load| load.physical);
        Ok(Self {
            length,
            machine,
            loads,
            notes,
            kept: RefCell::new((0..KEPT).map(|_| None).collect()),
            source,
        })
    }

    /// The number of the architecture.
    pub const fn machine(&self) -> u16 {
        self.machine
    }

    /// The name of the architecture.
    pub const fn machine_name(&self) -> &'static str {
        match self.machine {
            EM_X86_64 => "x86-64",
            EM_AARCH64 => "AArch64",
            EM_RISCV => "RISC-V",
            _ => "an unknown machine",
        }
    }

    /// Memory, by its addresses.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// All notes, one behind the other.
    pub fn notes(&self) -> &[u8] {
        &self.notes
    }

    /// Fills `buffer` with what lies at the physical address `at`; `None` where not all of it is in the dump.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Option<()> {
        let index = self
            .loads
            .partition_point(|load| load.physical <= at)
            .checked_sub(1)?;
        let load = self.loads.get(index)?;
        let within = at - load.physical;
        let left = load.bytes.checked_sub(within)?;
        if left < buffer.len() as u64 {
            return None;
        }
        self.read_file(load.offset + within, buffer)
    }

    /// Fills `buffer` from `offset` of the file on.
    fn read_file(&self, mut offset: u64, mut buffer: &mut [u8]) -> Option<()> {
        let mut kept = self.kept.borrow_mut();
        while !buffer.is_empty() {
            let number = offset / BLOCK;
            let place = kept.get_mut(number as usize % KEPT)?;
            if place.as_ref().is_none_or(|block| block.number != number) {
                let start = number * BLOCK;
                let bytes = BLOCK.min(self.length.checked_sub(start)?);
                let mut block = vec![0; bytes as usize].into_boxed_slice();
                self.source.read(start, &mut block).ok()?;
                *place = Some(Block {
                    number,
                    bytes: block,
                });
            }
            let block = place.as_ref()?;
            let rest = block.bytes.get((offset % BLOCK) as usize..)?;
            let count = rest.len().min(buffer.len());
            if count == 0 {
                return None;
            }
            let (now, later) = buffer.split_at_mut(count);
            now.copy_from_slice(rest.get(..count)?);
            buffer = later;
            offset += count as u64;
        }
        Some(())
    }
}

impl ReadMemory for Dump {
    fn read_u64(&self, at: PhysAddr) -> Option<u64> {
        if !at.get().is_multiple_of(8) {
            return None;
        }
        let mut bytes = [0; 8];
        self.read(at.get(), &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }
}

fn unreadable(message: String) -> Failure {
    Failure {
        kind: "unreadable",
        message,
    }
}

/// The headers of a file.
struct Headers<'s> {
    source: &'s Source,
    length: u64,
}

impl Headers<'_> {
    fn bytes(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
        let beyond = || {
            format!(
                "is cut off: {bytes:#x} bytes from {offset:#x} on are beyond its end, {:#x}",
                self.length
            )
        };
        let end = offset.checked_add(bytes).ok_or_else(beyond)?;
        if end > self.length {
            return Err(beyond());
        }
        let mut read = vec![0; usize::try_from(bytes).map_err(|_| beyond())?];
        let failed = |error: io::Error| format!("cannot be read: {error}");
        self.source.read(offset, &mut read).map_err(failed)?;
        Ok(read)
    }

    fn one<T: object::pod::Pod + Copy>(&self, offset: u64) -> Result<T, String> {
        let bytes = self.bytes(offset, size_of::<T>() as u64)?;
        let (value, _) =
            from_bytes::<T>(&bytes).map_err(|()| "has a header that is too short".to_owned())?;
        Ok(*value)
    }

    fn program_headers(&self, elf: &FileHeader64<LE>) -> Result<Vec<ProgramHeader64<LE>>, String> {
        let count = match elf.e_phnum.get(LE) {
            // As many as the first section says.
            PN_XNUM => self
                .one::<SectionHeader64<LE>>(elf.e_shoff.get(LE))?
                .sh_info
                .get(LE)
                .into(),
            count => u64::from(count),
        };
        let size = size_of::<ProgramHeader64<LE>>() as u64;
        if count > 0 && u64::from(elf.e_phentsize.get(LE)) != size {
            return Err("has program headers of a size that there is not".to_owned());
        }
        if count > MOST_HEADERS {
            return Err(format!(
                "has {count} program headers, more than any machine has ranges of memory"
            ));
        }
        let bytes = self.bytes(elf.e_phoff.get(LE), count * size)?;
        let headers = slice_from_bytes::<ProgramHeader64<LE>>(&bytes, count as usize);
        let (headers, _) =
            headers.map_err(|()| "has program headers that are too short".to_owned())?;
        Ok(headers.to_vec())
    }
}
