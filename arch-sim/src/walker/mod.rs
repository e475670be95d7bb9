//! Reading page tables as the hardware does: from bytes in memory, one entry at a time.
//!
//! A [`Walker`] knows one architecture's table format and nothing of who wrote the tables. Tests
//! read with it what an engine has written; [`SimTlb`](crate::SimTlb) translates by it. Each
//! architecture has a module of its own, written from that architecture's manual and from nothing
//! else.

mod aarch64;
mod riscv64;
mod x86_64;

pub use crate::translation::{Hole, HoleKind, Table, Translation};
pub use aarch64::AArch64Walker;
pub use riscv64::RiscV64Walker;
pub use x86_64::X86_64Walker;

use crate::memory::{ReadMemory, SimMemory};
use mm_core::addr::{Granule, Pfn, VirtAddr, VirtRange};

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The walk goes on in another table.
    Table(Table),
    /// The walk has come to a leaf.
    Leaf(Translation),
    /// The walk has come to nothing.
    Hole(Hole),
}

/// A walk from the root to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The tables, root first.
    pub tables: Vec<Table>,
    /// The leaf, or why there is none.
    pub end: Result<Translation, Hole>,
}

/// What [`Walker::scan`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A table.
    Table(Table),
    /// A leaf.
    Leaf(Translation),
    /// Addresses that nothing translates.
    Hole(Hole),
}

/// One architecture's way of translating addresses, read from bytes.
///
/// Implementers give the first table and one step; all walks follow from these. Memory is that of a
/// simulated machine, or whatever else can be [read](ReadMemory), like a dump.
pub trait Walker<M: ReadMemory + ?Sized = SimMemory> {
    /// The page size.
    fn granule(&self) -> Granule;

    /// The table that the walk for `at` starts with, when the root register names `root`. Its span
    /// has translatable addresses only.
    ///
    /// # Errors
    ///
    /// The [`Hole`] that `at` lies in, if such addresses are never translated.
    fn start(&self, root: Pfn, at: VirtAddr) -> Result<Table, Hole>;

    /// Reads the entry of `table` for `at`, an address that the table translates. A table that the
    /// entry links is of a lower level.
    fn step(&self, memory: &M, table: Table, at: VirtAddr) -> Step;

    /// Walks on from `table` to the leaf for `at`, and shows every table below it.
    ///
    /// # Errors
    ///
    /// The [`Hole`] that `at` lies in.
    fn walk_from(
        &self,
        memory: &M,
        table: Table,
        at: VirtAddr,
        visit: &mut dyn FnMut(Table),
    ) -> Result<Translation, Hole> {
        let mut table = table;
        loop {
            match self.step(memory, table, at) {
                Step::Table(next) => {
                    visit(next);
                    table = next;
                }
                Step::Leaf(leaf) => return Ok(leaf),
                Step::Hole(hole) => return Err(hole),
            }
        }
    }

    /// Walks from `root` to the leaf for `at`.
    ///
    /// # Errors
    ///
    /// The [`Hole`] that `at` lies in.
    fn translate(&self, memory: &M, root: Pfn, at: VirtAddr) -> Result<Translation, Hole> {
        let table = self.start(root, at)?;
        self.walk_from(memory, table, at, &mut |_| {})
    }

    /// Walks from `root` to the leaf for `at` and keeps the tables on the way.
    fn walk(&self, memory: &M, root: Pfn, at: VirtAddr) -> Walk {
        let mut tables = Vec::new();
        let end = self.start(root, at).and_then(|table| {
            tables.push(table);
            self.walk_from(memory, table, at, &mut |table| tables.push(table))
        });
        Walk { tables, end }
    }

    /// Shows every table below `root`, every leaf and every hole for addresses of `range`, in the order of
    /// addresses, a table before what it holds. A hole is one step, whatever its size.
    fn scan(&self, memory: &M, root: Pfn, range: VirtRange, visit: &mut dyn FnMut(Scanned)) {
        self.scan_some(memory, root, range, &mut |scanned| {
            visit(scanned);
            true
        });
    }

    /// Shows what [`scan`](Self::scan) does, but of what a table holds nothing where `visit` says of the
    /// table that it is not to be read.
    fn scan_some(
        &self,
        memory: &M,
        root: Pfn,
        range: VirtRange,
        visit: &mut dyn FnMut(Scanned) -> bool,
    ) {
        let mut path: Vec<Table> = Vec::new();
        let mut at = range.start();
        loop {
            while path.pop_if(|table| !table.span.contains(at)).is_some() {}
            let step = match path.last() {
                Some(table) => self.step(memory, *table, at),
                None => match self.start(root, at) {
                    Ok(table) => {
                        path.push(table);
                        continue;
                    }
                    Err(hole) => Step::Hole(hole),
                },
            };
            let passed = match step {
                Step::Table(table) => {
                    if visit(Scanned::Table(table)) {
                        path.push(table);
                        continue;
                    }
                    table.span
                }
                Step::Leaf(leaf) => {
                    visit(Scanned::Leaf(leaf));
                    leaf.span
                }
                Step::Hole(hole) => {
                    visit(Scanned::Hole(hole));
                    hole.span
                }
            };
            match passed.last().checked_add(1) {
                Some(next) if next <= range.last() => at = next,
                _ => return,
            }
        }
    }
}

// So that what walks can be chosen at run time: `&dyn Walker`.
impl<M: ReadMemory + ?Sized, W: Walker<M> + ?Sized> Walker<M> for &W {
    fn granule(&self) -> Granule {
        (**self).granule()
    }

    fn start(&self, root: Pfn, at: VirtAddr) -> Result<Table, Hole> {
        (**self).start(root, at)
    }

    fn step(&self, memory: &M, table: Table, at: VirtAddr) -> Step {
        (**self).step(memory, table, at)
    }
}
