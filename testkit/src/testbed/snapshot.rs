//! Everything that a failure must leave as it was.

use super::Testbed;
use super::stats::Stats;
use hosted::inspect::{SeenEntry, SeenLeaf};
use mm_core::addr::Pfn;
use mm_core::frame::InspectFrames;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of all tables and of all frames that hold descriptors, the counts of all of them, what
/// the allocators have out, marks and stats.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    tables: BTreeMap<Pfn, Content>,
    leaves: Vec<SeenLeaf>,
    frames: BTreeMap<Pfn, Content>,
    outstanding: u64,
    altmaps: Vec<(u64, bool)>,
    marked: BTreeSet<Pfn>,
    stats: Stats,
}

/// The references of a frame, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Content {
    references: Option<u64>,
    /// A digest.
    bytes: u64,
}

impl Content {
    fn of(bed: &dyn Testbed<'_>, frame: Pfn) -> Self {
        let altmaps = bed.altmaps();
        let altmap = altmaps.iter().find(|one| one.contains(frame));
        let references = match altmap {
            Some(altmap) => altmap.references(frame),
            None => bed.frames().references(frame),
        };
        let words = bed.memory().words(frame).unwrap_or_default();
        Self {
            references,
            bytes: digest(words),
        }
    }
}

/// Every step is reversible, so no two pages that differ in one word only are taken for the same.
///
/// A word goes to one of several sums, by turns, since a CPU computes those side by side.
fn digest(words: &[AtomicU64]) -> u64 {
    const SUMS: usize = 4;
    let (whole, rest) = words.as_chunks::<SUMS>();
    let mut sums = [0; SUMS];
    for words in whole {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = mix(*sum, word.load(Ordering::Relaxed));
        }
    }
    let rest = rest.iter().map(|word| word.load(Ordering::Relaxed));
    sums.into_iter().chain(rest).fold(0, mix)
}

fn mix(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(ODD).rotate_left(23)
}

/// Spreads the bits of a word.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Snapshot {
    pub(super) fn take(bed: &dyn Testbed<'_>) -> Self {
        let model = bed.model();
        let vmemmap = model.descriptors(model.all_frames());
        let mut tables = BTreeMap::new();
        let mut frames = BTreeMap::new();
        let mut leaves: Vec<SeenLeaf> = Vec::new();
        let mut see = |entry| match entry {
            SeenEntry::Table(table) => {
                let content = || Content::of(bed, table.frame);
                tables.entry(table.frame).or_insert_with(content);
            }
            SeenEntry::Leaf(leaf) => {
                if leaf.owned {
                    for index in 0..leaf.order.frames() {
                        let frame = leaf.frame.saturating_add(index);
                        let content = || Content::of(bed, frame);
                        frames.entry(frame).or_insert_with(content);
                    }
                }
                leaves.push(leaf);
            }
        };
        for range in [vmemmap, model.heads()].into_iter().flatten() {
            bed.scan(range, &mut see);
        }
        let altmaps = bed.altmaps().into_iter();
        Self {
            tables,
            leaves,
            frames,
            outstanding: bed.frames().outstanding(),
            altmaps: altmaps
                .map(|altmap| (altmap.in_use(), bed.is_reserved(altmap.reserved().start())))
                .collect(),
            marked: bed.marked(model.all_frames()),
            stats: bed.stats(),
        }
    }

    /// The first thing that `after` has otherwise.
    pub(super) fn difference(&self, after: &Self) -> Option<String> {
        let parts: [(&str, bool); 7] = [
            ("leaves", self.leaves == after.leaves),
            ("tables", self.tables == after.tables),
            (
                "descriptors or their references",
                self.frames == after.frames,
            ),
            ("frames of RAM", self.outstanding == after.outstanding),
            ("altmaps", self.altmaps == after.altmaps),
            ("marks", self.marked == after.marked),
            ("stats", self.stats == after.stats),
        ];
        let (what, _) = parts.into_iter().find(|(_, same)| !same)?;
        let counts = |one: &Self| {
            let (leaves, tables, frames) = (one.leaves.len(), one.tables.len(), one.frames.len());
            format!(
                "{leaves} leaves, {tables} tables, {frames} descriptor frames, {} frames out, altmaps {:?}",
                one.outstanding, one.altmaps
            )
        };
        Some(format!("{what}: {}; then {}", counts(self), counts(after)))
    }
}
