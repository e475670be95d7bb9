//! The tables of a vmemmap, read by the walkers of `arch-sim`.

use super::description::Described;
use super::{Budget, Unreadable};
use arch_sim::ReadMemory;
use arch_sim::walker::{AArch64Walker, RiscV64Walker, Step, Table, Walker, X86_64Walker};
use mm_core::addr::{Granule, Pfn, PhysAddr, VirtAddr, VirtRange};
use object::elf::{EM_AARCH64, EM_RISCV, EM_X86_64};
use std::collections::{BTreeMap, HashSet};

/// A link to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The addresses that it translates.
    pub span: VirtRange,
    /// The table that the link is in.
    pub parent: Pfn,
    /// The table that it leads to.
    pub frame: Pfn,
    /// The level of that: 1 for a leaf table.
    pub level: u8,
    /// Whether it is the library's.
    pub owned: bool,
    /// Whether it says that the table is shared.
    pub shared: bool,
}

/// Leaves that follow each other in one table and map the same frame, or one frame after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRun {
    /// The first address.
    pub at: VirtAddr,
    /// How many base pages they map.
    pub pages: u64,
    /// The frame behind the first.
    pub frame: Pfn,
    /// Whether all have that frame.
    pub same: bool,
    /// Whether they say that they are tails.
    pub tail: bool,
    /// Whether stores are allowed.
    pub writable: bool,
    /// The level of the table: above 1 for huge leaves.
    pub level: u8,
    /// The table.
    pub table: Pfn,
}

impl LeafRun {
    /// The frame behind the page number `index`.
    pub fn frame_of(&self, index: u64) -> Option<Pfn> {
        self.frame.checked_add(if self.same { 0 } else { index })
    }

    /// How many frames they map.
    pub const fn frames(&self) -> u64 {
        if self.same { 1 } else { self.pages }
    }

    /// The first address behind it; `None` at the end of the address space.
    pub fn end(&self, granule: Granule) -> Option<VirtAddr> {
        self.at
            .checked_add(self.pages.checked_mul(granule.bytes())?)
    }
}

/// What a table is, and how often it is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// Its level.
    pub level: u8,
    /// Links to it.
    pub links: u64,
    /// Those of them that say that it is shared.
    pub shared: u64,
}

/// What a walk has come to.
#[derive(Debug)]
pub struct Walked {
    /// Links below the root.
    pub links: Vec<Link>,
    /// Leaves of the vmemmap, then those of packed heads.
    pub leaves: Vec<LeafRun>,
    /// From which on they are those of packed heads.
    pub first_of_heads: usize,
    /// All tables of the library's.
    pub tables: BTreeMap<u64, TableUse>,
}

impl Walked {
    /// Walks all tables of the vmemmap that is `described`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] where no walker reads such tables, or there is more than `budget` allows.
    pub fn new<M: ReadMemory>(
        memory: &M,
        machine: u16,
        described: &Described,
        budget: Budget,
    ) -> Result<Self, Unreadable> {
        let walker = walker::<M>(machine, described)?;
        let model = &described.model;
        let vmemmap = model.descriptors(model.all_frames());
        let mut walk = Walk {
            memory,
            walker: &*walker,
            described,
            budget,
            bits: match machine {
                EM_AARCH64 => 48,
                // There is a walker for so many levels.
                _ => 12 + 9 * described.levels,
            },
            links: Vec::new(),
            leaves: Vec::new(),
        };
        if let Some(vmemmap) = vmemmap {
            walk.scan(vmemmap)?;
        }
        let first_of_heads = walk.leaves.len();
        if let Some(heads) = model.heads() {
            walk.scan(heads)?;
        }
        let Walk {
            mut links, leaves, ..
        } = walk;
        // Where a table is above both arrays, the entries above it are met twice.
        let mut met = HashSet::new();
        links.retain(|link| met.insert((link.parent, link.span.start())));
        let mut tables = BTreeMap::new();
        for link in links.iter().filter(|link| link.owned) {
            let level = link.level;
            let new = TableUse {
                level,
                links: 0,
                shared: 0,
            };
            let table = tables.entry(link.frame.get()).or_insert(new);
            table.links += 1;
            table.shared += u64::from(link.shared);
        }
        Ok(Self {
            links,
            leaves,
            first_of_heads,
            tables,
        })
    }
}

/// Who reads the tables of a machine.
fn walker<M: ReadMemory>(
    machine: u16,
    described: &Described,
) -> Result<Box<dyn Walker<M>>, Unreadable> {
    let granule = described.granule();
    let levels = described.levels;
    Ok(match (machine, granule, levels) {
        (EM_X86_64, Granule::Size4K, 4) => Box::new(X86_64Walker::four_level()),
        (EM_X86_64, Granule::Size4K, 5) => Box::new(X86_64Walker::five_level()),
        (EM_AARCH64, Granule::Size4K | Granule::Size16K, 4) | (EM_AARCH64, Granule::Size64K, 3) => {
            Box::new(AArch64Walker::new(granule))
        }
        (EM_RISCV, Granule::Size4K, 3) => Box::new(RiscV64Walker::sv39()),
        (EM_RISCV, Granule::Size4K, 4) => Box::new(RiscV64Walker::sv48()),
        (EM_RISCV, Granule::Size4K, 5) => Box::new(RiscV64Walker::sv57()),
        _ => {
            return Err(Unreadable(format!(
                "no tables of {levels} levels with pages of {} KiB are known on a machine of the ELF number {machine}",
                granule.bytes() >> 10
            )));
        }
    })
}

struct Walk<'w, M> {
    memory: &'w M,
    walker: &'w dyn Walker<M>,
    described: &'w Described,
    budget: Budget,
    /// How many bits of an address are translated.
    bits: u64,
    links: Vec<Link>,
    leaves: Vec<LeafRun>,
}

impl<M: ReadMemory> Walk<'_, M> {
    /// Goes through all entries for `range`, in the order of addresses.
    fn scan(&mut self, range: VirtRange) -> Result<(), Unreadable> {
        let first = self.leaves.len();
        let mut path: Vec<Table> = Vec::new();
        let mut at = range.start();
        loop {
            while path.pop_if(|table| !table.span.contains(at)).is_some() {}
            let passed = match path.last().copied() {
                None => match self.walker.start(self.described.root, at) {
                    Ok(table) => {
                        path.push(table);
                        continue;
                    }
                    Err(hole) => hole.span,
                },
                Some(table) => {
                    self.count()?;
                    match self.walker.step(self.memory, table, at) {
                        Step::Table(next) => {
                            self.link(table, next);
                            path.push(next);
                            continue;
                        }
                        Step::Leaf(leaf) => {
                            let entry = self.memory.read_u64(leaf.entry).unwrap_or(0);
                            if self.is_owned(entry) {
                                let pages = leaf.span.pages(self.described.granule());
                                self.leaf(
                                    first,
                                    LeafRun {
                                        at: leaf.span.start(),
                                        pages,
                                        frame: leaf.frame,
                                        same: false,
                                        tail: entry & self.described.tail != 0,
                                        writable: leaf.writable,
                                        level: table.level,
                                        table: table.frame,
                                    },
                                );
                            }
                            leaf.span
                        }
                        Step::Hole(hole) => hole.span,
                    }
                }
            };
            match passed.last().checked_add(1) {
                Some(next) if next <= range.last() && next > at => at = next,
                _ => return Ok(()),
            }
        }
    }

    fn count(&mut self) -> Result<(), Unreadable> {
        let left = self.budget.entries.checked_sub(1);
        let kept = self.leaves.len() + self.links.len();
        match left {
            Some(left) if kept < self.budget.runs => {
                self.budget.entries = left;
                Ok(())
            }
            _ => Err(Unreadable(
                "the page tables have more entries than any vmemmap needs; they are damaged, or the root is wrong".to_owned(),
            )),
        }
    }

    fn is_owned(&self, entry: u64) -> bool {
        let owned = self.described.owned;
        owned == 0 || entry & owned != 0
    }

    fn link(&mut self, parent: Table, table: Table) {
        let granule = self.described.granule();
        // Where the entry lies, by what it translates.
        let bytes = table
            .span
            .last()
            .get()
            .wrapping_sub(table.span.start().get())
            .wrapping_add(1);
        let translated = table.span.start().get() & ((1 << self.bits) - 1);
        let index = (translated >> bytes.trailing_zeros().min(63)) & (granule.bytes() / 8 - 1);
        let at = PhysAddr::new(parent.frame.base(granule).get().wrapping_add(index * 8));
        let entry = self.memory.read_u64(at).unwrap_or(0);
        self.links.push(Link {
            span: table.span,
            parent: parent.frame,
            frame: table.frame,
            level: table.level,
            owned: self.is_owned(entry),
            shared: entry & self.described.tail != 0,
        });
    }

    /// Adds `leaf` to the last run of those from `first` on, or begins another.
    fn leaf(&mut self, first: usize, leaf: LeafRun) {
        let granule = self.described.granule();
        let begun = self.leaves.len() > first;
        if let Some(last) = self.leaves.last_mut().filter(|_| begun) {
            let next = last.frame.checked_add(last.pages);
            let alike = last.table == leaf.table
                && last.level == leaf.level
                && last.tail == leaf.tail
                && last.writable == leaf.writable
                && last.end(granule) == Some(leaf.at);
            // One page alone may be followed by itself or by the next.
            let one = last.pages == 1 && leaf.pages == 1;
            if alike && leaf.frame == last.frame && (last.same || one) {
                last.same = true;
                last.pages += leaf.pages;
                return;
            }
            if alike && !last.same && next == Some(leaf.frame) && !leaf.tail {
                last.pages += leaf.pages;
                return;
            }
        }
        self.leaves.push(leaf);
    }
}
