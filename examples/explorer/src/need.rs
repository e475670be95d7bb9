//! What bringing a region online will take, before it is done: how much RAM the machine gets, and
//! whether the host can hold it.

use crate::failure::Failure;
use crate::notes::counted;
use crate::packed;
use crate::size::rounded_apart;
use hosted::BackendFacts;
use mm_core::addr::PfnRange;
use mm_core::pagemap::{DevPagemap, Heads, Tails};

/// The simulation's own memory for each frame that is out: its count.
const HOST_BYTES_PER_FRAME: u64 = 8;

/// The memory of a table without tables for each leaf, about: a node of its map has up to 11.
const HOST_BYTES_PER_LEAF: u64 = 64;

/// Runs at the ends of the reserved part and of the gap behind it.
const BASE_RUNS: u64 = 2;

/// How much the explorer may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of host memory for a simulated machine.
    pub host_bytes: u64,
    /// Bytes of memory that the host has to spare, if that is known.
    pub available_bytes: Option<u64>,
    /// Runs of a plan.
    pub planned_runs: u64,
}

impl Limits {
    /// The most that a simulated machine takes of its host, whatever the host has.
    pub const HOST_BYTES: u64 = 8 << 30;
}

impl Default for Limits {
    /// 8 GiB, whatever the host has to spare, and plans without limit.
    fn default() -> Self {
        Self {
            host_bytes: Self::HOST_BYTES,
            available_bytes: None,
            planned_runs: u64::MAX,
        }
    }
}

/// An upper bound of what bringing a region online takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Frames that hold descriptors. Exact, but for a tail frame that several ranges share.
    pub descriptor_frames: u64,
    /// Of these, what comes from the altmap if there is one: all but the tail frame of an order.
    pub from_altmap: u64,
    /// Tables below the root.
    pub tables: u64,
    /// Bytes of host memory, with the simulation's own.
    pub host_bytes: u64,
    /// Whether half of that is for unfolding into huge leaves.
    pub unfolds: bool,
    /// Runs of the plan.
    pub runs: u64,
}

impl Need {
    /// What `pagemap` needs on the backend of `facts`.
    pub fn of(facts: &BackendFacts, pagemap: &DevPagemap<'_>) -> Self {
        let mut need = Self::default();
        let mut leaves = 0;
        let described = pagemap.ranges().iter().map(|range| {
            need.add_range(pagemap, *range);
            range.frames() / facts.model.descriptors_per_page()
        });
        let heads = packed::pages(pagemap).into_iter().map(packed::frames);
        let described: Vec<u64> = described.chain(heads).collect();
        for pages in described {
            if facts.has_tables {
                need.tables += tables_over(pages, facts.model.granule().entries_per_table() as u64);
            } else {
                leaves += pages;
            }
        }
        need.descriptor_frames += packed::head_frames(pagemap);
        need.from_altmap += packed::altmap_frames(pagemap);
        let page = facts.model.granule().bytes() + HOST_BYTES_PER_FRAME;
        need.host_bytes =
            (need.descriptor_frames + need.tables) * page + leaves * HOST_BYTES_PER_LEAF;
        need
    }

    /// What both take together.
    pub fn plus(self, other: &Self) -> Self {
        Self {
            descriptor_frames: self.descriptor_frames + other.descriptor_frames,
            from_altmap: self.from_altmap + other.from_altmap,
            tables: self.tables + other.tables,
            host_bytes: self.host_bytes + other.host_bytes,
            unfolds: self.unfolds || other.unfolds,
            runs: self.runs + other.runs,
        }
    }

    /// The same with the host's memory for unfolding into huge leaves, if there are any: their blocks
    /// are taken while what was folded is out, so it is at most as much again. For that much a node
    /// has RAM anyway.
    pub fn with_unfolding(self, into_huge_leaves: bool) -> Self {
        let times = if into_huge_leaves { 2 } else { 1 };
        Self {
            host_bytes: self.host_bytes * times,
            unfolds: into_huge_leaves,
            ..self
        }
    }

    fn add_range(&mut self, pagemap: &DevPagemap<'_>, range: PfnRange) {
        let model = pagemap.model();
        let pieces = range.frames() / model.subsection().frames();
        let order = pagemap.geometry().order();
        let base_pages = pagemap
            .base_pages()
            .filter(|part| range.contains_range(*part))
            .map_or(0, PfnRange::frames);
        let pages = (range.frames() - base_pages) / order.frames();
        let own = base_pages / model.descriptors_per_page();
        match pagemap.tails().0 {
            Tails::PerOrder if pagemap.heads().0 == Heads::Packed => {
                self.take(own);
                self.descriptor_frames += 1;
                self.runs += pieces + BASE_RUNS;
            }
            Tails::PerCompound => {
                self.take(own + 2 * pages);
                self.runs += 2 * pages + pieces + BASE_RUNS;
            }
            Tails::PerOrder => {
                self.take(own + pages);
                self.descriptor_frames += 1;
                self.runs += 2 * pages + pieces + BASE_RUNS;
            }
            _ => {
                self.take(range.frames() / model.descriptors_per_page());
                self.runs += 3 * pieces;
            }
        }
    }

    fn take(&mut self, frames: u64) {
        self.descriptor_frames += frames;
        self.from_altmap += frames;
    }

    /// Frames of RAM with which each node of a machine has enough, in blocks too.
    pub fn ram_frames(&self) -> u64 {
        // Twice as much, so that tables among the blocks of huge leaves do no harm.
        ((self.descriptor_frames + self.tables) * 2 + 4096).next_multiple_of(1024)
    }

    /// Refuses what is more than `limits` allow. `instead` says how less can be asked for.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says how much it is.
    pub fn check(&self, limits: &Limits, instead: &str) -> Result<(), Failure> {
        let free = limits.available_bytes;
        let free = free.filter(|free| *free < limits.host_bytes);
        let most = free.unwrap_or(limits.host_bytes);
        if self.host_bytes <= most {
            return Ok(());
        }
        let mut what = counted(self.descriptor_frames, "descriptor frame");
        if self.tables > 0 {
            what = format!("{what} and up to {}", counted(self.tables, "table"));
        }
        let (twice, or) = match self.unfolds {
            true => (
                " (half of it for unfolding into huge leaves, which may take as much again)",
                match self.host_bytes / 2 <= most {
                    true => ", or take --huge-leaves no",
                    false => "",
                },
            ),
            false => ("", ""),
        };
        let [needed, most] = rounded_apart(self.host_bytes, most);
        let there = match free {
            Some(_) => format!("the {most} that this host has free"),
            None => format!("the limit of {most}"),
        };
        Err(Failure::too_large(format!(
            "simulating {what} takes {needed} of host memory{twice}, more than {there}; {instead}{or}",
        )))
    }
}

/// How many tables of `entries` entries, on all levels below the root, map `pages` pages at most,
/// wherever they start.
fn tables_over(pages: u64, entries: u64) -> u64 {
    let mut tables = 0;
    let mut below = pages;
    // Five levels at most, so four below the root.
    for _ in 0..4 {
        below = below / entries + 2;
        tables += below;
    }
    tables
}
