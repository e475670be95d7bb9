//! Printing what came of changing orders for people.

use super::report::ReorderReport;
use crate::request::policies;
use crate::size::rounded;
use crate::table::{UNKNOWN, align_right, number, time};
use comfy_table::{Table, presets};
use std::io::{self, Write};

/// Prints what was done, or what is left of what was not.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &ReorderReport) -> io::Result<()> {
    let ranges: Vec<String> = report.ranges.iter().map(ToString::to_string).collect();
    let what = match report.part {
        Some(part) => format!("{part} of {}", ranges.join(", ")),
        None => ranges.join(", "),
    };
    writeln!(
        out,
        "{}: {what} from pages of {} to pages of {}, and back",
        report.backend, report.from, report.to
    )?;
    if let (Some(tails), Some(tables)) = (report.tails, report.tables) {
        writeln!(out, "{}", policies(report.heads, tails, tables))?;
    }
    if report.frames_before.is_some() {
        writeln!(out, "\n{}", steps_table(report))?;
    }
    writeln!(out)?;
    match report.error {
        Some(_) => writeln!(out, "not all was done; offline again")?,
        None => {
            let (needed, used) = (number(report.reserve.needed), number(report.reserve.used));
            writeln!(
                out,
                "reserve          {needed} frames needed at most, {used} used"
            )?;
            writeln!(out, "flushes          {}", number(report.flushes))?;
            writeln!(out, "allocator calls  {}", number(report.allocator_calls))?;
        }
    }
    writeln!(out, "still out        {}", number(report.frames_left))?;
    let audit = report.audit.as_deref().unwrap_or(UNKNOWN);
    writeln!(out, "audit            {audit}")?;
    for note in &report.notes {
        writeln!(out, "note             {note}")?;
    }
    Ok(())
}

/// A column for each step.
fn steps_table(report: &ReorderReport) -> Table {
    let steps = [
        report.frames_before,
        report.frames_after,
        report.frames_back,
    ];
    let mut table = Table::new();
    let row = |name: &str, cells: [String; 3]| std::iter::once(name.to_owned()).chain(cells);
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["", "before", "after", "back"]);
    table.add_row(row("frames", steps.map(number)));
    let bytes = steps.map(|frames| match frames {
        Some(frames) => rounded((frames * report.frame_bytes) as f64),
        None => UNKNOWN.to_owned(),
    });
    table.add_row(row("bytes", bytes));
    let times = [String::new(), time(report.there), time(report.back)];
    table.add_row(row("time", times));
    align_right(&mut table, 1);
    table
}
