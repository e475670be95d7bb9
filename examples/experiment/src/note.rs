//! A page with a description of the vmemmap, and a note of the kernel's own in the dumps that the emulator makes.
//!
//! QEMU puts one note of its guest's into each dump (`-device vmcoreinfo`): the guest writes where the note lies to the file
//! `etc/vmcoreinfo` of the configuration device, by DMA (QEMU's specifications *VMCoreInfo device* and *QEMU Firmware Configuration
//! (fw_cfg) Device*). The note is read when the machine is dumped.

use core::mem::{offset_of, size_of};
use core::ptr::NonNull;
use mm_core::addr::PhysAddr;
use mm_core::vmemmap::Description;

/// Tells the configuration device that a request lies at an address.
///
/// # Safety
///
/// 1. A request lies there, and what it names is the device's until the request says that it is done.
pub type TellDevice = unsafe fn(PhysAddr);

/// The device's file with the names of all others.
const DIRECTORY: u16 = 0x19;

/// The file that says where the guest's note lies.
const FILE: &[u8] = b"etc/vmcoreinfo\0";

/// A note in ELF's format.
const FORMAT_ELF: u16 = 1;

/// What a request says.
const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// How often a request is looked at until it is done; QEMU does it at once.
const LOOKS: u32 = 1 << 20;

/// How many files there are at most.
const MOST_FILES: u32 = 1 << 12;

/// What the page has: the description, behind its magic, and the rest of what the device needs.
#[repr(C)]
struct Page {
    description: Description,
    request: Request,
    place: Place,
    count: u32,
    entry: Entry,
    note: Note,
}

const _: () = assert!(size_of::<Page>() <= 4096);

/// A request, in big-endian words.
#[repr(C)]
struct Request {
    control: u32,
    bytes: u32,
    address: u64,
}

/// Where the note lies, in little-endian words.
#[repr(C)]
struct Place {
    host_format: u16,
    guest_format: u16,
    bytes: u32,
    address: u64,
}

/// An entry of the directory, in big-endian words.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    bytes: u32,
    select: u16,
    reserved: u16,
    name: [u8; 56],
}

/// The note.
#[repr(C, packed(4))]
struct Note {
    name_bytes: u32,
    bytes: u32,
    kind: u32,
    name: [u8; NAME_BYTES],
    description: Description,
}

const NAME: &[u8] = Description::NOTE_NAME.as_bytes();

/// With the zero behind it.
const NAME_BYTES: usize = NAME.len() + 1;

const _: () = assert!(
    NAME_BYTES.is_multiple_of(4),
    "it would have to be filled up"
);

/// The page of a description.
#[derive(Debug)]
pub(crate) struct DescriptionPage {
    at: PhysAddr,
    page: NonNull<Page>,
    tell: TellDevice,
}

impl DescriptionPage {
    /// The page at the physical address `at`, which is reached at `page`. `tell` reaches the emulator's device.
    ///
    /// # Safety
    ///
    /// 1. The page is this value's for as long as it lives, and there is no other way to it.
    pub(crate) const unsafe fn new(at: PhysAddr, page: NonNull<u8>, tell: TellDevice) -> Self {
        Self {
            at,
            page: page.cast(),
            tell,
        }
    }

    /// Writes `description`, and tells the device where its note is. Says whether there will be one.
    pub(crate) fn write(&mut self, description: Description) -> bool {
        let mut name = [0; NAME_BYTES];
        name.iter_mut().zip(NAME).for_each(|(to, from)| *to = *from);
        let note = Note {
            name_bytes: NAME_BYTES as u32,
            bytes: size_of::<Description>() as u32,
            kind: Description::NOTE,
            name,
            description,
        };
        let place = Place {
            host_format: 0,
            guest_format: FORMAT_ELF.to_le(),
            bytes: (size_of::<Note>() as u32).to_le(),
            address: self.address(offset_of!(Page, note)).to_le(),
        };
        let page = self.page.as_ptr();
        // SAFETY: the page is this value's (duty 1 of `new`), large enough, and aligned as pages are. The device reads and writes it only
        // during a request.
        unsafe {
            (&raw mut (*page).description).write_volatile(description);
            (&raw mut (*page).note).write_volatile(note);
            (&raw mut (*page).place).write_volatile(place);
        }
        self.find_file().is_some_and(|file| {
            let (offset, bytes) = (offset_of!(Page, place), size_of::<Place>());
            self.ask(select(file) | WRITE, offset, bytes)
        })
    }

    /// Makes the description one that nobody finds.
    pub(crate) fn erase(&mut self) {
        // SAFETY: as for `write`.
        unsafe { (&raw mut (*self.page.as_ptr()).description.magic).write_volatile([0; 2]) };
    }

    /// The number of the file.
    fn find_file(&mut self) -> Option<u16> {
        let (count, entry) = (offset_of!(Page, count), offset_of!(Page, entry));
        if !self.ask(select(DIRECTORY) | READ, count, size_of::<u32>()) {
            return None;
        }
        let page = self.page.as_ptr();
        // SAFETY: as for `write`; any bytes are a number.
        let count = u32::from_be(unsafe { (&raw const (*page).count).read_volatile() });
        let mut entries = (0..count.min(MOST_FILES)).map_while(|_| {
            let read = self.ask(READ, entry, size_of::<Entry>());
            // SAFETY: as for `write`; any bytes are an entry.
            read.then(|| unsafe { (&raw const (*page).entry).read_volatile() })
        });
        let found = entries.find(|entry| entry.name.starts_with(FILE));
        found.map(|entry| u16::from_be(entry.select))
    }

    /// Has the device do what `control` says with `bytes` bytes of the page from `offset` on. Whether it has.
    fn ask(&mut self, control: u32, offset: usize, bytes: usize) -> bool {
        let request = Request {
            control: control.to_be(),
            bytes: (bytes as u32).to_be(),
            address: self.address(offset).to_be(),
        };
        let page = self.page.as_ptr();
        // SAFETY: as for `write`.
        unsafe { (&raw mut (*page).request).write_volatile(request) };
        let at = self.address(offset_of!(Page, request));
        // SAFETY: 1: it was written there, and names a part of the page.
        unsafe { (self.tell)(PhysAddr::new(at)) };
        let controls = (0..LOOKS).map(|_| {
            // SAFETY: as for `write`; any bytes are a number.
            u32::from_be(unsafe { (&raw const (*page).request.control).read_volatile() })
        });
        // All of it is cleared but an error.
        let done = controls.map(|left| (left & !ERROR == 0).then_some(left));
        done.flatten().next() == Some(0)
    }

    /// The physical address of what lies at `offset` in the page.
    fn address(&self, offset: usize) -> u64 {
        self.at.get() + offset as u64
    }
}

/// The control that selects `file`.
const fn select(file: u16) -> u32 {
    (file as u32) << 16 | SELECT
}
