//! A vmemmap seen from outside: by its description and the bytes of memory, with none of the library's own
//! look-ups. The same for a simulated machine and for a dump.
//!
//! ```text
//!   memory ─▶ description ─▶ walk ─▶ links, leaves ─▶ pages ─▶ Look ─▶ picture, report
//!                                            └─▶ rules ─▶ findings
//! ```
//!
//! - [`description`]: what the kernel says of its vmemmap;
//! - [`walk`]: its tables, by the walkers of `arch-sim`;
//! - [`pages`]: what its descriptors say, page by page;
//! - [`rules`]: whether everything is there once, as the rule of ownership demands;
//! - [`marks`]: single frames that are marked.

pub mod description;
pub mod marks;
pub mod pages;
pub mod rules;
pub mod walk;

use crate::report::Frames;
use arch_sim::ReadMemory;
use description::Described;
use marks::Marked;
use pages::{PageRun, Pages};
use std::collections::BTreeMap;
use std::fmt;
use walk::{LeafRun, Link, Walked};

/// How much is looked at of what may be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Entries of tables.
    pub entries: u64,
    /// Runs of entries that are kept, and links.
    pub runs: usize,
}

impl Budget {
    /// More than 64 TiB in pages of 1 GiB have.
    pub const USUAL: Self = Self {
        entries: 1 << 29,
        runs: 1 << 23,
    };
}

/// Why there is nothing to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// How many findings are told; of more, how many there are.
const TOLD: usize = 40;

/// What was found that should not be.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    told: Vec<String>,
    more: u64,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, what: impl fmt::Display) {
        match self.told.len() < TOLD {
            true => self.told.push(what.to_string()),
            false => self.more += 1,
        }
    }

    /// All of them, or the first and how many more there are.
    pub fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        self.told
    }
}

/// All that was seen.
#[derive(Debug)]
pub struct Look {
    /// What the kernel says.
    pub described: Described,
    /// Links to tables below the root, in the order of addresses; in the vmemmap, then in the array of packed heads.
    pub links: Vec<Link>,
    /// Leaves, likewise.
    pub leaves: Vec<LeafRun>,
    /// From which of the leaves on they map packed heads.
    pub first_of_heads: usize,
    /// Pages of memory that are alike, by their first frames.
    pub pages: Vec<PageRun>,
    /// How often each table is linked.
    pub tables: BTreeMap<u64, walk::TableUse>,
    /// What all of that takes.
    pub frames: Frames,
    /// Vmemmap pages that are mapped.
    pub mapped_pages: u64,
    /// What is marked.
    pub marked: Marked,
    /// What should not be.
    pub findings: Vec<String>,
}

impl Look {
    /// Looks at the vmemmap that is `described`, in the `memory` of a machine of the ELF number `machine`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] where no walker reads such tables, or there is more than `budget` allows.
    pub fn new<M: ReadMemory>(
        memory: &M,
        machine: u16,
        described: Described,
        budget: Budget,
    ) -> Result<Self, Unreadable> {
        let walked = Walked::new(memory, machine, &described, budget)?;
        let mut findings = Findings::default();
        let Walked {
            links,
            leaves,
            first_of_heads,
            tables,
        } = walked;
        let (vmemmap, heads) = leaves.split_at(first_of_heads);
        let frames = rules::check(&described, vmemmap, heads, &links, &tables, &mut findings);
        let pages = Pages::new(memory, &described, vmemmap, heads).read(&mut findings);
        let marked = Marked::read(memory, &described, &pages, &mut findings);
        Ok(Self {
            mapped_pages: vmemmap.iter().map(|run| run.pages).sum(),
            frames,
            pages,
            marked,
            findings: findings.into_lines(),
            described,
            links,
            first_of_heads,
            tables,
            leaves,
        })
    }

    /// The leaves that map the vmemmap.
    pub fn vmemmap(&self) -> &[LeafRun] {
        self.leaves.get(..self.first_of_heads).unwrap_or_default()
    }

    /// The leaves that map packed heads.
    pub fn heads(&self) -> &[LeafRun] {
        self.leaves.get(self.first_of_heads..).unwrap_or_default()
    }
}
