//! The kernel's own page tables: those that the CPU walks, with memory mapped where it is. Nothing here is
//! about the library.

use core::ptr::with_exposed_provenance;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::Cr3;

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const ACCESSED: u64 = 1 << 5;
pub const DIRTY: u64 = 1 << 6;
pub const NO_EXECUTE: u64 = 1 << 63;
/// Above the last level: a leaf.
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The level of the root; pages are at level 0.
const ROOT_LEVEL: u32 = 3;

/// An entry, and the level of its table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    word: &'static AtomicU64,
    level: u32,
}

impl Entry {
    pub fn get(self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    /// One store, visible to the CPU's walks after all that was stored before.
    pub fn set(self, value: u64) {
        self.word.store(value, Ordering::Release);
    }

    /// Whether it translates addresses by itself.
    pub fn is_leaf(self) -> bool {
        let value = self.get();
        value & PRESENT != 0 && (self.level == 0 || value & LARGE != 0)
    }

    /// The first frame that it leads to.
    pub fn frame(self) -> u64 {
        (self.get() & ADDRESS) >> self.shift() << (self.shift() - 12)
    }

    /// How many bits of an address it leaves to a page.
    pub const fn shift(self) -> u32 {
        12 + 9 * self.level
    }

    /// The table that it leads to.
    fn table(self) -> Option<u64> {
        let value = self.get();
        (value & PRESENT != 0 && !self.is_leaf()).then_some(value & ADDRESS)
    }
}

/// Why there is no entry for a page.
#[derive(Clone, Copy, Debug)]
pub enum NoEntry {
    /// Something else is on the way to it.
    InUse,
    /// There is no frame for a table.
    OutOfFrames,
}

/// A root and all below it.
#[derive(Debug)]
pub struct PageTables {
    root: u64,
}

impl PageTables {
    /// Those that the CPU walks.
    ///
    /// # Safety
    ///
    /// 1. They have 4 levels and are mapped where they are, and so is every frame that becomes a table.
    /// 2. Nobody else changes them.
    pub unsafe fn current() -> Self {
        Self {
            root: Cr3::read().0.start_address().as_u64(),
        }
    }

    /// The entry for `at` in `table`.
    fn entry(&self, table: u64, at: u64, level: u32) -> Entry {
        let index = at >> (12 + 9 * level) & 0x1ff;
        let word = with_exposed_provenance::<AtomicU64>((table + 8 * index) as usize);
        // SAFETY: a word of a table, which is mapped where it is (duty 1 of `current`) and never freed.
        let word = unsafe { &*word };
        Entry { word, level }
    }

    /// The last entry on the way to `at`: a leaf, or one that leads nowhere.
    pub fn walk(&self, at: u64) -> Entry {
        let mut entry = self.entry(self.root, at, ROOT_LEVEL);
        while let Some(table) = entry.table() {
            entry = self.entry(table, at, entry.level - 1);
        }
        entry
    }

    /// The entry for the page at `at`, with new tables of zeroed frames on the way to it.
    ///
    /// # Errors
    ///
    /// [`NoEntry`]; tables that were made stay.
    pub fn page_entry(
        &mut self,
        at: u64,
        mut zeroed_frame: impl FnMut() -> Option<u64>,
    ) -> Result<Entry, NoEntry> {
        loop {
            let entry = self.walk(at);
            if entry.level == 0 {
                return Ok(entry);
            }
            if entry.get() != 0 {
                return Err(NoEntry::InUse);
            }
            let table = zeroed_frame().ok_or(NoEntry::OutOfFrames)? << 12;
            entry.set(table | PRESENT | WRITABLE | ACCESSED);
        }
    }
}
