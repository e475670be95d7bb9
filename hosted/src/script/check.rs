//! Comparing the machine with the oracle and the model.

use super::model::{Cell, Model, PER_PAGE, SharedBy};
use super::oracle::{Oracle, OracleParts};
use super::trace::Traced;
use crate::{Machine, RadixBackend};
use arch_sim::walker::{Scanned, Translation, Walker};
use arch_sim::{SimFrames, SimMemory};
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::{Descriptor, Page, TailEncoding};
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::paging::EntryFormat;
use mm_core::vmemmap::{AuditSlot, Vmemmap};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;

/// The bytes of a descriptor that have the count of references.
const COUNT: std::ops::Range<usize> = 16..20;

/// The frame in an entry of x86-64.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The vmemmap on a machine.
type MachineVmemmap<'s, E> = Vmemmap<Page<E>, &'s Traced<'s, SimFrames>, &'s SimMemory>;

/// The machine under test.
pub(super) struct Subject<'s, B: RadixBackend, E: TailEncoding> {
    pub(super) machine: &'s Machine<B>,
    pub(super) table: B::Table<'s>,
    pub(super) vmemmap: MachineVmemmap<'s, E>,
    /// Whether tables are, or were, not as the library alone would have them.
    pub(super) foreign_tables: bool,
    /// Whether tables are, or were, linked from several places.
    pub(super) shared_tables: bool,
    pub(super) scratch: Vec<AuditSlot>,
}

impl<B: RadixBackend, E: TailEncoding> Subject<'_, B, E> {
    /// Compares everything that an operation can change.
    pub(super) fn check(
        &mut self,
        oracle: &Oracle<'_, E>,
        model: &Model,
        altmaps: [&[&dyn InspectFrames]; 2],
        window: VirtRange,
    ) -> Result<(), String> {
        let violations = self.machine.violations();
        if !violations.is_empty() {
            return Err(format!("rules were broken: {violations}"));
        }
        let pages = self.pages(window);
        let frames: BTreeMap<u64, u64> = pages.iter().map(|(at, page)| (*at, page.0)).collect();
        if let Some(difference) = first_difference(&frames, &oracle.pages()) {
            return Err(format!("machine and oracle differ: {difference}"));
        }
        self.check_pages(&pages, model)?;

        let [ours, theirs] = altmaps;
        let mut allocators = ours.to_vec();
        allocators.push(self.machine.frames());
        let ours = self
            .vmemmap
            .audit(&self.table, &allocators, &mut self.scratch)
            .map_err(|finding| finding.to_string())?;
        let theirs = oracle.audit(theirs, &mut self.scratch)?;
        let own = |cell: &&Cell| !matches!(cell, Cell::Foreign { .. });
        let mapped = model.pages.values().filter(own).count() as u64;
        let leaf_tables = model.leaf_tables();
        let upper_tables = self.upper_tables(model);
        let exact = !self.foreign_tables && !self.shared_tables;
        let no_more = ours.leaf_tables <= leaf_tables || self.foreign_tables;
        let alike = (ours.mapped_pages, ours.descriptor_frames)
            == (theirs.mapped_pages, theirs.descriptor_frames)
            && ours.mapped_pages == mapped
            && no_more
            && (!exact || (ours.leaf_tables, ours.upper_tables) == (leaf_tables, upper_tables));
        match alike {
            true => Ok(()),
            false => Err(format!(
                "machine {ours:?}, oracle {theirs:?}, expected {mapped} pages, {leaf_tables} and {upper_tables} tables"
            )),
        }
    }

    /// Every page that is mapped in `window` or next to it, by its address: the frame, and the leaf
    /// that it is part of.
    fn pages(&self, window: VirtRange) -> BTreeMap<u64, (u64, Translation)> {
        let border = 512 * PAGE;
        let start = VirtAddr::new(window.start().get().saturating_sub(border));
        let last = VirtAddr::new(window.last().get().saturating_add(border));
        let around = VirtRange::between(start, last).unwrap_or(window);
        let mut pages = BTreeMap::new();
        let (memory, root) = (self.machine.memory(), self.machine.root());
        B::walker().scan(memory, root, around, &mut |scanned| {
            if let Scanned::Leaf(leaf) = scanned {
                for index in 0..leaf.span.pages(B::MODEL.granule()) {
                    let at = leaf.span.start().get() + index * PAGE;
                    pages.insert(at, (leaf.frame.get() + index, leaf));
                }
            }
        });
        pages
    }

    /// Compares what is mapped with what should be.
    fn check_pages(
        &self,
        pages: &BTreeMap<u64, (u64, Translation)>,
        model: &Model,
    ) -> Result<(), String> {
        let base = B::MODEL.config().vmemmap_base.get();
        if pages.len() != model.pages.len() {
            let (found, expected) = (pages.len(), model.pages.len());
            return Err(format!("{found} pages are mapped, expected {expected}"));
        }
        // Who has which frame, and the other way round.
        let mut owners: BTreeMap<u64, Cell> = BTreeMap::new();
        let mut tails: BTreeMap<(SharedBy, u8), u64> = BTreeMap::new();
        for (number, cell) in &model.pages {
            let at = base + number * PAGE;
            let wrong = |what: &str| Err(format!("page {at:#x}, {cell:?}: {what}"));
            let Some((frame, leaf)) = pages.get(&at) else {
                return wrong("nothing is mapped");
            };
            let huge = leaf.order(B::MODEL.granule()) != Order::BASE;
            let order = match *cell {
                Cell::Foreign {
                    frame: expected,
                    huge: expected_huge,
                } => {
                    if *frame != expected || huge != expected_huge || leaf.global {
                        return wrong("the foreign leaf has changed");
                    }
                    continue;
                }
                Cell::Own {
                    order,
                    huge: expected,
                } => {
                    if huge != expected {
                        return wrong("the leaf has another size");
                    }
                    order
                }
                Cell::Tail { shared_by, order } => {
                    if huge || *tails.entry((shared_by, order)).or_insert(*frame) != *frame {
                        return wrong("there is another tail for it");
                    }
                    order
                }
            };
            if leaf.writable != cell.is_writable() || leaf.executable || !leaf.global {
                return wrong("rights are not those of data");
            }
            match owners.insert(*frame, *cell) {
                Some(other) if other != *cell || matches!(cell, Cell::Own { .. }) => {
                    return wrong("the frame is also somebody else's");
                }
                _ => {}
            }
            self.check_descriptors(*number, *frame, order)
                .or_else(|what| wrong(&what))?;
        }
        Ok(())
    }

    /// Checks the first and the last descriptor of a page.
    fn check_descriptors(&self, number: u64, frame: u64, order: u8) -> Result<(), String> {
        let config = B::MODEL.config();
        let address = |pfn: u64| config.vmemmap_base.get() + pfn * config.descriptor_bytes;
        let frame = Pfn::new(frame).ok_or("no such frame")?;
        let page = self.machine.memory().frame_pointer(frame).cast::<Page<E>>();
        for index in [0, PER_PAGE - 1] {
            let pfn = number * PER_PAGE + index;
            let head = pfn & !((1 << order) - 1);
            // SAFETY: the library has mapped the frame as a page of descriptors, 64 of them, which
            // are only shared.
            let descriptor = unsafe { page.add(index as usize).as_ref() };
            let found = E::head_of(VirtAddr::new(address(pfn)), descriptor.word());
            if descriptor.order().get() != order || found.get() != address(head) {
                return Err(format!(
                    "the descriptor of {pfn:#x} has order {} and the head at {found}",
                    descriptor.order()
                ));
            }
            if descriptor.is_tail() != (pfn != head) {
                return Err(format!("the descriptor of {pfn:#x} is no such part"));
            }
        }
        Ok(())
    }

    /// How many tables between the root and the leaf tables the library's pages need.
    fn upper_tables(&self, model: &Model) -> u64 {
        let levels = B::Format::LEVELS.len().saturating_sub(2) as u32;
        let per_level = (1..=levels).map(|level| {
            let mut tables = 0;
            let mut last = None;
            for page in model.pages.keys() {
                let span = page >> (9 * (level + 1));
                if last != Some(span) {
                    last = Some(span);
                    tables += 1;
                }
            }
            tables
        });
        per_level.sum()
    }

    /// Compares every byte of the frames that the library has mapped with those of the oracle,
    /// which does not count in the descriptors of `reserved`: there, but for the counts.
    pub(super) fn compare_contents(
        &self,
        oracle: &OracleParts,
        model: &Model,
        reserved: &[PfnRange],
    ) -> Result<(), String> {
        let base = B::MODEL.config().vmemmap_base.get();
        for (number, cell) in &model.pages {
            let at = VirtAddr::new(base + number * PAGE);
            if matches!(cell, Cell::Foreign { .. }) {
                continue;
            }
            let leaf = B::translate(self.machine, at).ok_or("nothing is mapped")?;
            let frame = leaf.address(at, B::MODEL.granule());
            let frame = frame.frame(B::MODEL.granule()).ok_or("no such frame")?;
            let described = Pfn::new(number * PER_PAGE).ok_or("no such frame")?;
            let counts = reserved.iter().any(|part| part.contains(described));
            let contents = |memory: &SimMemory| {
                let mut bytes = memory.page_bytes(frame)?;
                if counts {
                    let descriptors = bytes.chunks_mut(PAGE as usize / PER_PAGE as usize);
                    descriptors.for_each(|descriptor| descriptor[COUNT].fill(0));
                }
                Some(bytes)
            };
            let ours = contents(self.machine.memory());
            if ours.is_none() || ours != contents(&oracle.memory) {
                return Err(format!("the contents at {at} differ from the oracle's"));
            }
        }
        Ok(())
    }

    /// Checks that nothing is left of anything.
    pub(super) fn is_empty(&self) -> Result<(), String> {
        let violations = self.machine.violations();
        if !violations.is_empty() {
            return Err(format!("rules were broken at the end: {violations}"));
        }
        let left = self.machine.frames().outstanding();
        if left != 0 {
            return Err(format!("{left} frames are left at the end"));
        }
        let root = self.machine.memory().page_bytes(self.machine.root());
        match root {
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(()),
            _ => Err("something is left in the root table".into()),
        }
    }
}

/// Everything that a failure must leave as it was.
pub(super) struct Snapshot {
    tables: BTreeMap<u64, Vec<u8>>,
    outstanding: u64,
    /// Frames out of altmaps.
    pub(super) altmap: u64,
}

impl Snapshot {
    pub(super) fn take<B: RadixBackend, E: TailEncoding>(
        subject: &Subject<'_, B, E>,
        altmap: u64,
        window: VirtRange,
    ) -> Self {
        Self {
            tables: tables(subject.machine, window),
            outstanding: subject.machine.frames().outstanding(),
            altmap,
        }
    }

    /// Whether `after` is the same, but for hollow tables where there are any: tables of the
    /// library's that foreign leaves kept in place, and in which there is nothing any more.
    /// Those go with whatever comes and goes there next.
    pub(super) fn same_as(&self, after: &Self, hollow: bool) -> Result<(), String> {
        let gone = match hollow {
            true => (self.tables.len() as u64).saturating_sub(after.tables.len() as u64),
            false => 0,
        };
        let before = (self.outstanding.saturating_sub(gone), self.altmap);
        let after_counts = (after.outstanding, after.altmap);
        if before != after_counts {
            return Err(format!("frames out: {before:?}, then {after_counts:?}"));
        }
        let difference = match hollow {
            true => first_difference(
                &without_hollow(&self.tables),
                &without_hollow(&after.tables),
            ),
            false => first_difference(&self.tables, &after.tables),
        };
        match difference {
            Some(_) => Err("the bytes of tables have changed".into()),
            None => Ok(()),
        }
    }
}

/// The tables without those that lead nowhere, and without the entries that link these.
fn without_hollow(tables: &BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, Vec<u8>> {
    let mut tables = tables.clone();
    loop {
        let empty = |bytes: &Vec<u8>| bytes.iter().all(|byte| *byte == 0);
        let hollow = tables.iter().find(|(_, bytes)| empty(bytes));
        let Some(frame) = hollow.map(|(frame, _)| *frame) else {
            return tables;
        };
        tables.remove(&frame);
        for bytes in tables.values_mut() {
            let (entries, _) = bytes.as_chunks_mut::<8>();
            for entry in entries {
                let value = u64::from_le_bytes(*entry);
                if value & 1 != 0 && (value & ADDRESS) >> 12 == frame {
                    *entry = [0; 8];
                }
            }
        }
    }
}

/// The contents of the root and of every table below it for `range`.
pub fn tables<B: RadixBackend>(machine: &Machine<B>, range: VirtRange) -> BTreeMap<u64, Vec<u8>> {
    let memory = machine.memory();
    let root = machine.root();
    let mut tables = BTreeMap::new();
    tables.insert(root.get(), memory.page_bytes(root).unwrap_or_default());
    B::walker().scan(memory, root, range, &mut |scanned| {
        if let Scanned::Table(table) = scanned {
            let bytes = memory.page_bytes(table.frame);
            tables.insert(table.frame.get(), bytes.unwrap_or_default());
        }
    });
    tables
}

/// The first key that the two maps do not agree on.
fn first_difference<V: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<u64, V>,
    other: &BTreeMap<u64, V>,
) -> Option<String> {
    let mut keys = one.keys().chain(other.keys());
    keys.find(|key| one.get(key) != other.get(key))
        .map(|key| format!("{key:#x}: {:x?}, {:x?}", one.get(key), other.get(key)))
}
