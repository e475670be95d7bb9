//! Printing what came of folding and unfolding for people.

use super::report::{FoldReport, Step};
use crate::notes::counted;
use crate::report::{AfterError, CLEAN, Frames};
use crate::request::policies;
use crate::size::{ByteSize, rounded};
use crate::stats;
use crate::table::{UNKNOWN, align_right, left_after_offline, number, time};
use comfy_table::{Table, presets};
use std::io::{self, Write};

/// Prints what was done, with what each node has if `stats` are wanted, or what is left of what was
/// not.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &FoldReport, stats: bool) -> io::Result<()> {
    let ranges: Vec<String> = report.ranges.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "{}: fold of {} in pages of {}, {} in all",
        report.backend,
        ranges.join(", "),
        report.align,
        ByteSize(report.bytes()),
    )?;
    if let (Some(tails), Some(tables)) = (report.tails, report.tables) {
        writeln!(out, "{}", policies(report.heads, tails, tables))?;
    }
    if report.frames_base.is_some() {
        writeln!(out, "\n{}", steps_table(report))?;
        if let Some(nodes) = stats::table(&report.stats, stats) {
            writeln!(out, "\n{nodes}")?;
        }
    }
    if report.tails.is_some() {
        writeln!(out)?;
    }
    match &report.after_error {
        Some(left) => print_error(out, report.failed_step, left)?,
        None => print_success(out, report)?,
    }
    for note in &report.notes {
        writeln!(out, "note          {note}")?;
    }
    Ok(())
}

fn print_success(out: &mut dyn Write, report: &FoldReport) -> io::Result<()> {
    let pages = match report.compound_pages {
        Some(pages) => counted(pages, "compound page"),
        None => UNKNOWN.to_owned(),
    };
    writeln!(out, "folded        {pages}")?;
    if let Some(saved) = report.saved_percent {
        writeln!(out, "saved         {saved} % of the frames of base pages")?;
    }
    writeln!(
        out,
        "flushes       {}: {} folding, {} unfolding",
        number(report.flushes),
        number(report.flushes_fold),
        number(report.flushes_unfold),
    )?;
    let same = match report.unfolded == report.base {
        true => "the frames of the start",
        false => "not the frames of the start",
    };
    writeln!(out, "unfolded to   {same}")?;
    let left = left_after_offline(report.after_offline);
    writeln!(out, "still out     {left}")?;
    let audit = report.audit.as_deref().unwrap_or(UNKNOWN);
    writeln!(out, "audit         {audit}")
}

/// What is left, as `online` says it.
fn print_error(out: &mut dyn Write, failed: Option<Step>, left: &AfterError) -> io::Result<()> {
    let what = match failed {
        None => "nothing done".to_owned(),
        Some(Step::Online) => "not online".to_owned(),
        Some(step) => {
            let unchanged = match left.audit == CLEAN {
                true => " and has changed nothing",
                false => "",
            };
            format!("the {} failed{unchanged}; offline again", step.name())
        }
    };
    let (frames, audit) = (left.frames, &left.audit);
    writeln!(out, "{what}; frames still out: {frames}, audit: {audit}")
}

/// A column for each step.
fn steps_table(report: &FoldReport) -> Table {
    let steps = [report.base, report.folded, report.unfolded];
    let row = |name: &str, of: fn(&Frames) -> Option<u64>| {
        let cells = steps.map(|frames| number(of(&frames)));
        std::iter::once(name.to_owned()).chain(cells)
    };
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "frames",
        "base pages",
        "folded",
        "unfolded",
    ]);
    table.add_row(row("descriptors", |frames| frames.descriptors));
    if report.folded.heads.is_some_and(|heads| heads > 0) {
        table.add_row(row("  packed heads", |frames| frames.heads));
    }
    if report.base.altmap.is_some_and(|altmap| altmap > 0) {
        table.add_row(row("  of the altmap", |frames| frames.altmap));
    }
    table.add_row(row("leaf tables", |frames| frames.leaf_tables));
    table.add_row(row("upper tables", |frames| frames.upper_tables));
    table.add_row(row("total", |frames| frames.total));
    let bytes = steps.map(|frames| match frames.total {
        Some(total) => rounded((total * report.frame_bytes) as f64),
        None => UNKNOWN.to_owned(),
    });
    table.add_row(std::iter::once("bytes".to_owned()).chain(bytes));
    let times = [report.online, report.fold, report.unfold].map(time);
    table.add_row(std::iter::once("done in".to_owned()).chain(times));
    align_right(&mut table, 1);
    table
}
