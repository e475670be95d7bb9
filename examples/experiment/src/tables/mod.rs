//! Page tables that are read and written entry by entry. No code of the engine under test is used,
//! nor of a backend.
//!
//! - [`TableShape`]: how many levels there are, and what a table of each translates;
//! - [`EntryBits`]: what an architecture's entries look like, [`X86Entries`], [`ArmDescriptors`] and
//!   [`RiscVEntries`];
//! - [`Tables`]: a kernel's own tables, from before it has anything else, and what an address
//!   translates to;
//! - [`RawTables`]: the same tables in use, with foreign mappings added and removed.

mod aarch64;
mod raw;
mod riscv64;
mod shape;
mod x86_64;

pub use aarch64::ArmDescriptors;
pub use raw::{FOREIGN_TABLES, ForeignTables, RawTables};
pub use riscv64::RiscVEntries;
pub use shape::TableShape;
pub use x86_64::X86Entries;

use conformance::Seen;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::{Pfn, PhysAddr, VirtAddr};
use mm_core::frame::DirectMap;

bitflags::bitflags! {
    /// What a present entry allows the kernel, besides loads.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Stores.
        const WRITE = 1 << 0;
        /// Instruction fetches.
        const EXECUTE = 1 << 1;
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that the MMU would use.
    NotPresent,
    /// Go on in the table at an address. What it does not allow, nothing below it does.
    Table(PhysAddr, Rights),
    /// A page or block at an address.
    Leaf(PhysAddr, Rights),
}

/// What an architecture's entries look like.
pub trait EntryBits {
    /// The attributes of data of the kernel's: read and written, not executed.
    const DATA: u64;

    /// The entry that links the table at `table`.
    fn link(table: PhysAddr) -> u64;

    /// The entry for the page (in the `last` level) or the block at `first`.
    fn leaf(first: PhysAddr, attributes: u64, last: bool) -> u64;

    /// What `entry` says.
    fn step(entry: u64, last: bool) -> Step;
}

/// There was no frame for a table, or something is mapped in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable {
    /// The address that was to be mapped.
    pub at: VirtAddr,
}

impl fmt::Display for NoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no table for {}", self.at)
    }
}

/// Where an entry lies, and what it translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: Pfn,
    index: usize,
    /// It translates 2^`shift` bytes.
    shift: u32,
}

/// Tables below a root, in the format `B`, reached through `M`.
#[derive(Debug)]
pub struct Tables<B, M> {
    root: Pfn,
    shape: TableShape,
    memory: M,
    bits: PhantomData<B>,
}

impl<B: EntryBits, M: DirectMap> Tables<B, M> {
    /// The tables below `root`.
    ///
    /// # Safety
    ///
    /// 1. `root` and the tables below it have the format `B` and this shape, and nobody frees them
    ///    while the value is used.
    /// 2. `memory` reaches all of them, and what [`map`](Self::map) is given for others.
    pub const unsafe fn new(root: Pfn, shape: TableShape, memory: M) -> Self {
        Self {
            root,
            shape,
            memory,
            bits: PhantomData,
        }
    }

    /// The frame of the root.
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// Makes the table `frame` empty.
    fn clear(&self, frame: Pfn) {
        for index in 0..self.shape.granule.entries_per_table() {
            self.entry(frame, index).store(0, Ordering::Relaxed);
        }
    }

    /// A new root from `frames`, and nothing below it. `None` where there is no frame.
    ///
    /// # Safety
    ///
    /// 1. `memory` reaches the frames of `frames`, which are nobody's.
    pub unsafe fn empty(
        shape: TableShape,
        memory: M,
        frames: &mut dyn FnMut() -> Option<Pfn>,
    ) -> Option<Self> {
        // SAFETY: 1: below an empty root is nothing. 2: duty 1.
        let tables = unsafe { Self::new(frames()?, shape, memory) };
        tables.clear(tables.root);
        Some(tables)
    }

    /// Maps `bytes` bytes at `at` to those at `physical`, all of them multiples of the page, by
    /// blocks of at most 2^`largest` bytes. Nothing is mapped there. Tables are taken from
    /// `frames`.
    ///
    /// # Errors
    ///
    /// [`NoTable`].
    ///
    /// # Safety
    ///
    /// 1. The frames of `frames` are nobody's.
    /// 2. The kernel may map that memory there, with these attributes.
    pub unsafe fn map(
        &self,
        frames: &mut dyn FnMut() -> Option<Pfn>,
        (at, physical, bytes): (VirtAddr, PhysAddr, u64),
        largest: u32,
        attributes: u64,
    ) -> Result<(), NoTable> {
        let mut done = 0;
        while done < bytes {
            let refused = NoTable { at };
            let at = at.checked_add(done).ok_or(refused)?;
            let physical = PhysAddr::new(physical.get() + done);
            let fits = |shift: u32| {
                (at.get() | physical.get()) & ((1 << shift) - 1) == 0 && bytes - done >= 1 << shift
            };
            let shift = self.shape.leaf_shifts(largest).find(|shift| fits(*shift));
            let shift = shift.ok_or(refused)?;
            let mut link = |tables: &Self, place| {
                let frame = frames()?;
                tables.link(place, frame);
                Some(frame)
            };
            let place = self.descend(at, shift, &mut link).ok_or(refused)?;
            self.write(place, B::leaf(physical, attributes, self.is_last(place)));
            done += 1 << shift;
        }
        Ok(())
    }

    /// What `at` translates to.
    pub fn translate(&self, at: VirtAddr) -> Option<Seen> {
        let (place, first, rights) = self.walk(at)?;
        let offset = at.get() & ((1 << place.shift) - 1);
        let granule = self.shape.granule;
        Some(Seen {
            frame: first
                .frame(granule)?
                .checked_add(offset >> granule.shift())?,
            writable: rights.contains(Rights::WRITE),
            executable: rights.contains(Rights::EXECUTE),
        })
    }

    /// The leaf that translates `at`: where its entry lies, the address of its first byte, and what
    /// it allows together with the tables above it.
    fn walk(&self, at: VirtAddr) -> Option<(Place, PhysAddr, Rights)> {
        let mut place = self.place(self.root, self.shape.root_shift(), at);
        let mut above = Rights::all();
        loop {
            match B::step(self.read(place), self.is_last(place)) {
                Step::NotPresent => return None,
                Step::Leaf(address, rights) => return Some((place, address, above & rights)),
                Step::Table(address, rights) => {
                    above &= rights;
                    let table = address.frame(self.shape.granule)?;
                    place = self.place(table, self.shape.below(place.shift)?, at);
                }
            }
        }
    }

    /// The free place of the leaf of 2^`shift` bytes for `at`. `None` where something is there, or
    /// `link` has no table for the way down.
    fn descend(
        &self,
        at: VirtAddr,
        shift: u32,
        link: &mut dyn FnMut(&Self, Place) -> Option<Pfn>,
    ) -> Option<Place> {
        let mut place = self.place(self.root, self.shape.root_shift(), at);
        while place.shift > shift {
            let table = match self.read(place) {
                0 => link(self, place)?,
                entry => match B::step(entry, false) {
                    Step::Table(address, _) => address.frame(self.shape.granule)?,
                    _ => return None,
                },
            };
            place = self.place(table, self.shape.below(place.shift)?, at);
        }
        (self.read(place) == 0).then_some(place)
    }

    /// Links the table `frame`, empty, at `place`.
    fn link(&self, place: Place, frame: Pfn) {
        self.clear(frame);
        self.write(place, B::link(frame.base(self.shape.granule)));
    }

    fn place(&self, table: Pfn, shift: u32, at: VirtAddr) -> Place {
        Place {
            table,
            index: self.shape.index(shift, at),
            shift,
        }
    }

    fn is_last(&self, place: Place) -> bool {
        place.shift == self.shape.granule.shift()
    }

    fn read(&self, place: Place) -> u64 {
        self.entry(place.table, place.index).load(Ordering::Relaxed)
    }

    fn write(&self, place: Place, entry: u64) {
        let at = self.entry(place.table, place.index);
        at.store(entry, Ordering::Release);
    }

    fn entry(&self, table: Pfn, index: usize) -> &AtomicU64 {
        let first = self.memory.frame_pointer(table).cast::<AtomicU64>();
        // SAFETY: a table that is linked, or about to be (duties of `new` and `map`), so that the
        // memory reaches all of it; an index is smaller than the number of its entries.
        // Entries are only used by atomics, here and in the engine.
        unsafe { first.add(index).as_ref() }
    }
}
