//! Mappings of somebody else: a boot loader's, a debugger's, those of another part of the kernel.
//!
//! Written into the tables as bytes, by nothing but the walker's idea of where entries lie, with none of the bits by which the
//! library knows its own.

use crate::{Machine, X86Backend};
use arch_sim::walker::{HoleKind, Table, Walker};
use mm_core::addr::{Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::FlushScope;
use std::cell::{Cell, RefCell};

const PRESENT_WRITABLE: u64 = 0x3;
const PAGE_SIZE: u64 = 1 << 7;
const EXECUTE_DISABLE: u64 = 1 << 63;
const INDEX_BITS: u32 = 9;
const PAGE_SHIFT: u32 = 12;

/// The level whose entries are leaves of base pages.
const LEAF_LEVEL: u8 = 1;

/// Somebody else's mappings and tables in a machine's tables.
#[derive(Debug)]
pub struct Foreign<'m, B: X86Backend> {
    machine: &'m Machine<B>,
    /// Frames for tables; backed memory of the machine that its allocator does not have.
    frames: PfnRange,
    used: Cell<u64>,
    /// Where links to these tables lie, the youngest last.
    links: RefCell<Vec<(PhysAddr, Pfn)>>,
}

impl<'m, B: X86Backend> Foreign<'m, B> {
    /// Nobody's mappings yet; tables for them will be `frames`, which have contents and are not the allocator's.
    pub fn new(machine: &'m Machine<B>, frames: PfnRange) -> Self {
        Self {
            machine,
            frames,
            used: Cell::new(0),
            links: RefCell::default(),
        }
    }

    /// Maps the block of `order` at `frame` at `at`, in tables that are there or new ones. Says whether there was a place for it.
    pub fn map(&self, at: VirtAddr, frame: Pfn, order: Order) -> bool {
        let level = match order.get() {
            0 => LEAF_LEVEL,
            9 => LEAF_LEVEL + 1,
            _ => return false,
        };
        let Some(table) = self.table_for(at, level) else {
            return false;
        };
        let size = if level > LEAF_LEVEL { PAGE_SIZE } else { 0 };
        let address = frame.get() << PAGE_SHIFT;
        let entry = address | PRESENT_WRITABLE | EXECUTE_DISABLE | size;
        self.write(entry_of(table.frame, level, at), entry)
    }

    /// Makes sure that there are tables down to that of base pages for `at`. Says whether there could be.
    pub fn link_tables(&self, at: VirtAddr) -> bool {
        self.table_for(at, LEAF_LEVEL).is_some()
    }

    /// Takes the leaf at `at` away, and makes all CPUs forget it. Tables stay.
    pub fn unmap(&self, at: VirtAddr) {
        let memory = self.machine.memory();
        let Ok(leaf) = B::WALKER.translate(memory, self.machine.root(), at) else {
            return;
        };
        self.write(leaf.entry, 0);
        self.forget(leaf.span);
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
            }
        }
        drop(links);
        let all = self.machine.cpus().all();
        all.iter()
            .for_each(|cpu| cpu.forget(FlushScope::Everything));
    }

    /// The table at `level` for `at`, whoever's it is.
    fn table_for(&self, at: VirtAddr, level: u8) -> Option<Table> {
        let memory = self.machine.memory();
        let walk = B::WALKER.walk(memory, self.machine.root(), at);
        let mut table = *walk.tables.last()?;
        match walk.end {
            Err(hole) if hole.kind == HoleKind::NotPresent && table.level >= level => {}
            _ => return None,
        }
        while table.level > level {
            let frame = self.frames.start().checked_add(self.used.get())?;
            if !self.frames.contains(frame) {
                return None;
            }
            self.used.set(self.used.get() + 1);
            let entry = entry_of(table.frame, table.level, at);
            // Something not present may be kept there.
            if memory.read_u64(entry)? != 0 {
                return None;
            }
            self.write(entry, frame.get() << PAGE_SHIFT | PRESENT_WRITABLE);
            self.links.borrow_mut().push((entry, frame));
            table = Table {
                frame,
                level: table.level - 1,
                ..table
            };
        }
        let entry = entry_of(table.frame, level, at);
        (memory.read_u64(entry)? == 0).then_some(table)
    }

    fn write(&self, entry: PhysAddr, value: u64) -> bool {
        self.machine.memory().write_u64(entry, value).is_some()
    }

    fn forget(&self, span: VirtRange) {
        let all = self.machine.cpus().all();
        all.iter()
            .for_each(|cpu| cpu.forget(FlushScope::Ranges(&[Some(span)])));
    }
}

/// Where the entry for `at` lies in the table `frame` of `level`.
fn entry_of(frame: Pfn, level: u8, at: VirtAddr) -> PhysAddr {
    let shift = PAGE_SHIFT + INDEX_BITS * u32::from(level - LEAF_LEVEL);
    let index = (at.get() >> shift) & ((1 << INDEX_BITS) - 1);
    PhysAddr::new((frame.get() << PAGE_SHIFT) + index * 8)
}
