//! What is told of a dump.

use super::find::Place;
use crate::look::Look;
use crate::look::pages::{HeadsAt, TailsShare};
use crate::notes::counted;
use crate::report::{Frames, saved_percent};
use crate::size::{ByteSize, rounded};
use crate::table::{align_right, number};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Pages that follow each other and are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PagesAlike {
    /// Where the first one starts, in bytes.
    pub start: u64,
    /// How large each is, in bytes.
    pub size: u64,
    /// How many there are.
    pub count: u64,
    /// Where their heads are; nothing of base pages.
    pub heads: Option<HeadsAt>,
    /// What their tails share.
    pub tails: TailsShare,
    /// The first one's first frame.
    #[serde(skip)]
    pub frame: u64,
    /// Frames behind their descriptors.
    #[serde(skip)]
    pub frames: u64,
    /// Frames of theirs that are marked.
    #[serde(skip)]
    pub marked: u64,
}

/// What was found in a dump.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The pages, by their addresses.
    pub pages: Vec<PagesAlike>,
    /// What their descriptors and tables take.
    pub frames: Frames,
    /// What should not be.
    pub findings: Vec<String>,
    #[serde(skip)]
    machine: &'static str,
    #[serde(skip)]
    place: Place,
    #[serde(skip)]
    page_bytes: u64,
    #[serde(skip)]
    levels: u64,
    #[serde(skip)]
    mapped_pages: u64,
    #[serde(skip)]
    marked: u64,
}

impl Report {
    /// What is told of `look` at the dump of a `machine`, whose description was at `place`.
    pub fn new(look: &Look, machine: &'static str, place: Place) -> Self {
        let page_bytes = look.described.granule().bytes();
        let pages = look
            .pages
            .iter()
            .zip(&look.marked.in_runs)
            .map(|(run, marked)| PagesAlike {
                start: run.start.get().saturating_mul(page_bytes),
                size: run.order.frames().saturating_mul(page_bytes),
                count: run.count,
                heads: run.heads,
                tails: run.tails,
                frame: run.start.get(),
                frames: run.frames,
                marked: *marked,
            });
        Self {
            pages: pages.collect(),
            frames: look.frames,
            findings: look.findings.clone(),
            machine,
            place,
            page_bytes,
            levels: look.described.levels,
            mapped_pages: look.mapped_pages,
            marked: look.marked.frames,
        }
    }
}

/// Prints `report` for people.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "{}, pages of {}, {} levels of tables, described in {}\n",
        report.machine,
        ByteSize(report.page_bytes),
        report.levels,
        report.place
    )?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "first frame",
        "address",
        "pages",
        "of",
        "heads",
        "tails",
        "frames",
        "marked",
    ]);
    for run in &report.pages {
        table.add_row([
            format!("{:#x}", run.frame),
            ByteSize(run.start).to_string(),
            number(Some(run.count)),
            ByteSize(run.size).to_string(),
            match run.heads {
                Some(HeadsAt::InPlace) => "in place",
                Some(HeadsAt::Packed) => "packed",
                None => "-",
            }
            .to_owned(),
            match run.tails {
                TailsShare::None => "none",
                TailsShare::PerCompound => "per-compound",
                TailsShare::PerOrder => "per-order",
            }
            .to_owned(),
            number(Some(run.frames)),
            number(Some(run.marked)),
        ]);
    }
    align_right(&mut table, 6);
    writeln!(out, "{table}\n")?;
    let frames = &report.frames;
    let total = frames.total.unwrap_or(0);
    writeln!(
        out,
        "frames        {} with descriptors, {} leaf tables, {} upper tables: {}",
        number(frames.descriptors),
        number(frames.leaf_tables),
        number(frames.upper_tables),
        rounded((total * report.page_bytes) as f64),
    )?;
    if let Some(saved) = saved_percent(frames.total, Some(report.mapped_pages)) {
        writeln!(
            out,
            "saved         {saved} % of the flat array, {}",
            counted(report.mapped_pages, "frame")
        )?;
    }
    writeln!(out, "marked        {}", counted(report.marked, "frame"))?;
    if report.findings.is_empty() {
        return writeln!(out, "findings      none");
    }
    for finding in &report.findings {
        writeln!(out, "finding       {finding}")?;
    }
    Ok(())
}
