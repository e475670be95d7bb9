//! The bytes of page tables: all of them, or as much as tells whether they have changed.

use crate::{Machine, RadixBackend};
use arch_sim::walker::{Scanned, Table, Walker};
use mm_core::addr::{Pfn, VirtRange};
use mm_core::paging::EntryFormat;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The contents of the root and of every table below it for `range`.
pub fn table_bytes<B: RadixBackend>(
    machine: &Machine<B>,
    range: VirtRange,
) -> BTreeMap<u64, Vec<u8>> {
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

/// Stands for the bytes of tables, in the order of addresses, but for hollow ones: tables of the
/// library's that foreign leaves kept in place, and in which there is nothing any more. Those go
/// with whatever comes and goes there next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<[u64; 3]>);

impl Fingerprint {
    /// Adds a table or a leaf.
    pub(super) fn add(&mut self, at: u64, frame: u64, contents: u64) {
        self.0.push([at, frame, contents]);
    }

    /// The address of the first table that is not the same in `other`.
    pub fn difference(&self, other: &Self) -> Option<u64> {
        let mut both = self.0.iter().zip(&other.0);
        let differs = both.find(|(one, other)| one != other);
        let longer = || match self.0.len() > other.0.len() {
            true => self.0.get(other.0.len()),
            false => other.0.get(self.0.len()),
        };
        differs
            .map(|(one, _)| one)
            .or_else(longer)
            .map(|[at, ..]| *at)
    }
}

/// A table, with what its entries come to.
struct Summary {
    table: Table,
    /// Entries that are not zero.
    entries: u64,
    hash: u64,
}

/// The fingerprint of the root and of every table below it for `range`.
pub(super) fn of<B: RadixBackend>(machine: &Machine<B>, range: VirtRange) -> Fingerprint {
    let walker = B::walker();
    let mut tables = Vec::new();
    tables.extend(walker.start(machine.root(), range.start()));
    walker.scan(machine.memory(), machine.root(), range, &mut |scanned| {
        if let Scanned::Table(table) = scanned {
            tables.push(table);
        }
    });
    let mut summaries: Vec<Summary> = tables
        .into_iter()
        .map(|table| summary(machine, table))
        .collect();
    let mut print = Fingerprint::default();
    // A table comes before those that it links.
    while let Some(last) = summaries.pop() {
        let Table {
            span, frame, level, ..
        } = last.table;
        if last.entries > 0 || summaries.is_empty() {
            print.add(span.start().get(), frame.get(), last.hash);
            continue;
        }
        let links = |above: &&mut Summary| {
            above.table.level == level + 1 && above.table.span.contains(span.start())
        };
        if let Some(above) = summaries.iter_mut().rev().find(links) {
            let index = index_of::<B>(above.table.level, span.start().get());
            let entry = entry(machine, above.table.frame, index);
            above.entries -= 1;
            above.hash = above.hash.wrapping_sub(mix(index as u64, entry));
        }
    }
    print.0.reverse();
    print
}

fn summary<B: RadixBackend>(machine: &Machine<B>, table: Table) -> Summary {
    let words = machine.memory().words(table.frame).unwrap_or_default();
    let words = words.iter().map(|word| word.load(Ordering::Relaxed));
    let mut summary = Summary {
        table,
        entries: 0,
        hash: 0,
    };
    for (index, word) in words.enumerate().filter(|(_, word)| *word != 0) {
        summary.entries += 1;
        summary.hash = summary.hash.wrapping_add(mix(index as u64, word));
    }
    summary
}

fn entry<B: RadixBackend>(machine: &Machine<B>, table: Pfn, index: usize) -> u64 {
    let words = machine.memory().words(table).unwrap_or_default();
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Which entry of a table of `level` translates `at`.
fn index_of<B: RadixBackend>(level: u8, at: u64) -> usize {
    let level = B::Format::LEVELS.iter().rev().nth(usize::from(level) - 1);
    level.map_or(0, |level| {
        (at >> level.shift) as usize & ((1 << level.index_bits) - 1)
    })
}

/// Different for an entry at each other place.
const fn mix(index: u64, entry: u64) -> u64 {
    let mixed =
        (entry ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
}
