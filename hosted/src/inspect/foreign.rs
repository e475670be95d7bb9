//! Mappings of somebody else: a boot loader's, a debugger's, those of another part of the kernel.
//!
//! Written into the tables as bytes, with none of the bits by which the library knows its own.

use crate::{Machine, RadixBackend, SimCpus};
use arch_sim::walker::{HoleKind, Table, Walker};
use mm_core::addr::{Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, FlushScope};
use std::cell::{Cell, RefCell};

/// The level whose entries are leaves of base pages.
const LEAF_LEVEL: u8 = 1;

/// Somebody else's mappings and tables in a machine's tables.
#[derive(Debug)]
pub struct Foreign<'m, B: RadixBackend> {
    machine: &'m Machine<B>,
    /// Frames for tables; backed memory of the machine that its allocator does not have.
    frames: PfnRange,
    used: Cell<u64>,
    /// Those that were tables and are none any more.
    empty: RefCell<Vec<Pfn>>,
    /// Where links to these tables lie, the youngest last.
    links: RefCell<Vec<(PhysAddr, Pfn)>>,
    /// Entries that are in use without being present, and what is in them.
    reserved: RefCell<Vec<(PhysAddr, u64)>>,
}

impl<'m, B: RadixBackend> Foreign<'m, B> {
    /// Nobody's mappings yet; tables for them will be `frames`, which have contents and are not the
    /// allocator's.
    pub fn new(machine: &'m Machine<B>, frames: PfnRange) -> Self {
        Self {
            machine,
            frames,
            used: Cell::new(0),
            empty: RefCell::default(),
            links: RefCell::default(),
            reserved: RefCell::default(),
        }
    }

    /// Maps the block of `order` at `frame` at `at`, in tables that are there or new ones. Says
    /// whether there was a place for it.
    pub fn map(&self, at: VirtAddr, frame: Pfn, order: Order) -> bool {
        let huge = order != Order::BASE;
        let mapped = self
            .free_entry(at, order)
            .is_some_and(|entry| self.write(entry, B::foreign_leaf(frame, huge)));
        self.made_visible(at);
        mapped
    }

    /// Makes sure that there are tables down to that of base pages for `at`. Says whether there
    /// could be.
    pub fn link_tables(&self, at: VirtAddr) -> bool {
        let linked = self.table_for(at, LEAF_LEVEL).is_some();
        self.made_visible(at);
        linked
    }

    /// Takes the leaf at `at` away, and makes all CPUs forget it. Tables stay.
    pub fn unmap(&self, at: VirtAddr) {
        let memory = self.machine.memory();
        let Ok(leaf) = B::walker().translate(memory, self.machine.root(), at) else {
            return;
        };
        self.write(leaf.entry, 0);
        self.forget(leaf.span);
    }

    /// Whether all tables that were linked are so still.
    pub fn tables_are_linked(&self) -> bool {
        let links = self.links.borrow();
        links.iter().all(|(entry, frame)| {
            self.machine.memory().read_u64(*entry) == Some(B::foreign_table(*frame))
        })
    }

    /// Keeps something that is not present in the entry for `at` of a leaf of `order`. Says whether
    /// it was free.
    pub fn reserve(&self, at: VirtAddr, order: Order) -> bool {
        let Some(entry) = self.free_entry(at, order) else {
            return false;
        };
        // By the lowest bit all formats say "present".
        let value = B::foreign_leaf(self.frames.start(), order != Order::BASE) & !1;
        self.reserved.borrow_mut().push((entry, value));
        self.write(entry, value)
    }

    /// Takes out what is kept in entries that are not present. Says whether all of it was there.
    pub fn take_reserved(&self) -> bool {
        let mut whole = true;
        for (entry, value) in self.reserved.borrow_mut().drain(..) {
            if self.machine.memory().read_u64(entry) == Some(value) {
                self.write(entry, 0);
            } else {
                whole = false;
            }
        }
        whole
    }

    /// Unlinks the tables that nothing is in any more.
    pub fn prune(&self) {
        let memory = self.machine.memory();
        let mut links = self.links.borrow_mut();
        let empty = |frame| {
            let bytes = memory.page_bytes(frame);
            bytes.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0))
        };
        // Tables were linked from the top down.
        for index in (0..links.len()).rev() {
            if let Some(&(entry, frame)) = links.get(index)
                && empty(frame)
            {
                self.write(entry, 0);
                links.remove(index);
                self.empty.borrow_mut().push(frame);
            }
        }
        drop(links);
        let all = self.machine.cpus().all();
        all.iter()
            .for_each(|cpu| cpu.forget(FlushScope::Everything));
    }

    /// The entry for a leaf of `order` at `at`, if it is free, in tables that are there or new ones.
    fn free_entry(&self, at: VirtAddr, order: Order) -> Option<PhysAddr> {
        let level = match order {
            Order::BASE => LEAF_LEVEL,
            order if order.frames() == B::MODEL.granule().entries_per_table() as u64 => {
                LEAF_LEVEL + 1
            }
            _ => return None,
        };
        let table = self.table_for(at, level)?;
        entry_of::<B>(table.frame, level, at)
    }

    /// The table at `level` for `at`, whoever's it is.
    fn table_for(&self, at: VirtAddr, level: u8) -> Option<Table> {
        let memory = self.machine.memory();
        let walk = B::walker().walk(memory, self.machine.root(), at);
        let mut table = *walk.tables.last()?;
        match walk.end {
            Err(hole) if hole.kind == HoleKind::NotPresent && table.level >= level => {}
            _ => return None,
        }
        while table.level > level {
            let entry = entry_of::<B>(table.frame, table.level, at)?;
            // Something not present may be kept there.
            if memory.read_u64(entry)? != 0 {
                return None;
            }
            let frame = self.take_frame()?;
            self.write(entry, B::foreign_table(frame));
            self.links.borrow_mut().push((entry, frame));
            table = Table {
                frame,
                level: table.level - 1,
                ..table
            };
        }
        let entry = entry_of::<B>(table.frame, level, at)?;
        (memory.read_u64(entry)? == 0).then_some(table)
    }

    /// A frame of zeros.
    fn take_frame(&self) -> Option<Pfn> {
        if let Some(frame) = self.empty.borrow_mut().pop() {
            return Some(frame);
        }
        let frame = self.frames.start().checked_add(self.used.get())?;
        self.used.set(self.used.get() + 1);
        Some(frame).filter(|frame| self.frames.contains(*frame))
    }

    fn write(&self, entry: PhysAddr, value: u64) -> bool {
        self.machine.memory().write_u64(entry, value).is_some()
    }

    /// Entries on the way to `at` have become present.
    fn made_visible(&self, at: VirtAddr) {
        let all = self.machine.cpus().all();
        all.iter()
            .for_each(|cpu| cpu.forget_holes(VirtRange::single(at)));
    }

    fn forget(&self, span: VirtRange) {
        let all = self.machine.cpus().all();
        all.iter()
            .for_each(|cpu| cpu.forget(FlushScope::Ranges(&[span])));
    }
}

/// Where the entry for `at` lies in the table `frame` of `level`.
fn entry_of<B: RadixBackend>(frame: Pfn, level: u8, at: VirtAddr) -> Option<PhysAddr> {
    let above = usize::from(level - LEAF_LEVEL);
    let level = B::Format::LEVELS.iter().rev().nth(above)?;
    let index = (at.get() >> level.shift) & ((1 << level.index_bits) - 1);
    let table = frame.base(B::MODEL.granule()).get();
    Some(PhysAddr::new(table + index * 8))
}
