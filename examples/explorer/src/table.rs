//! Printing a report for people.

use crate::notes::counted;
use crate::report::{AfterOffline, Report};
use crate::request::policies;
use crate::size::{ByteSize, rounded};
use crate::stats;
use comfy_table::{CellAlignment, Table, presets};
use std::io::{self, Write};
use std::time::Duration;

/// Prints what was done, with what each node has if `stats` are wanted, or what is left of what was
/// not.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &Report, stats: bool) -> io::Result<()> {
    let ranges: Vec<String> = report.ranges.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "{}: {} in pages of {}, {} in all",
        report.backend,
        ranges.join(", "),
        report.align,
        ByteSize(report.bytes()),
    )?;
    match &report.after_error {
        Some(left) => writeln!(
            out,
            "not online; frames still out: {}, audit: {}",
            left.frames, left.audit
        ),
        None => print_success(out, report, stats),
    }
}

fn print_success(out: &mut dyn Write, report: &Report, stats: bool) -> io::Result<()> {
    let [tails, tables] = [report.tails, report.tables].map(|policy| policy.unwrap_or(UNKNOWN));
    writeln!(out, "{}\n", policies(report.heads, tails, tables))?;
    writeln!(out, "{}\n", frames_table(report))?;
    let rows = report.stats.as_deref().unwrap_or_default();
    if let Some(nodes) = stats::table(rows, stats) {
        writeln!(out, "{nodes}\n")?;
    }
    if let Some(saved) = report.saved_percent {
        writeln!(out, "saved         {saved} % of the flat array")?;
    }
    writeln!(
        out,
        "reused        {}",
        match report.reused_entries {
            Some(entries) => counted(entries, "entry"),
            None => UNKNOWN.to_owned(),
        }
    )?;
    if let Some(counts) = report.counts {
        writeln!(out, "counts        {counts}")?;
    }
    if let (Some(bytes), Some(first)) = (report.altmap_reserved_bytes, report.ranges.first()) {
        let size = ByteSize(bytes);
        writeln!(
            out,
            "altmap        {size} is reserved at the start of {first}"
        )?;
    }
    writeln!(out, "online in     {}", time(report.online))?;
    writeln!(out, "offline in    {}", time(report.offline))?;
    let left = left_after_offline(report.after_offline);
    writeln!(out, "still out     {left}")?;
    let audit = report.audit.as_deref();
    writeln!(out, "audit         {}", audit.unwrap_or(UNKNOWN))?;
    for note in report.notes.iter().flatten() {
        writeln!(out, "note          {note}")?;
    }
    Ok(())
}

fn frames_table(report: &Report) -> Table {
    let frames = &report.frames;
    let mut rows = vec![("descriptors", frames.descriptors)];
    if frames.heads.is_some_and(|heads| heads > 0) {
        rows.push(("  packed heads", frames.heads));
    }
    if frames.altmap.is_some_and(|altmap| altmap > 0) {
        rows.push(("  of the altmap", frames.altmap));
    }
    rows.extend([
        ("leaf tables", frames.leaf_tables),
        ("upper tables", frames.upper_tables),
        ("total", frames.total),
        ("flat array", report.flat_frames),
    ]);
    let gib = report.bytes() as f64 / (1_u64 << 30) as f64;
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["", "frames", "bytes", "per GiB"]);
    for (name, frames) in rows {
        let bytes = frames.map(|frames| (frames * report.frame_bytes) as f64);
        let bytes_of = |part: f64| bytes.map_or(UNKNOWN.to_owned(), |bytes| rounded(bytes / part));
        table.add_row([
            name.to_owned(),
            number(frames),
            bytes_of(1.0),
            bytes_of(gib),
        ]);
    }
    align_right(&mut table, 1);
    table
}

/// What is out after offline.
pub fn left_after_offline(left: AfterOffline) -> String {
    let frames = left.frames.map(|frames| counted(frames, "frame"));
    let frames = frames.unwrap_or_else(|| UNKNOWN.to_owned());
    format!("{frames} after offline")
}

/// What stands for what is not known.
pub(crate) const UNKNOWN: &str = "-";

/// Aligns all columns of `table` from the column `first` on at their right ends.
pub fn align_right(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// A number with its digits in groups of three.
pub fn number(number: Option<u64>) -> String {
    let Some(number) = number else {
        return UNKNOWN.to_owned();
    };
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time, in the unit that it is some of.
pub fn time(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return UNKNOWN.to_owned();
    };
    let seconds = time.as_secs_f64();
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        1e-3.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_in_groups_of_three() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1 << 20, "1,048,576"),
        ];
        for (value, text) in cases {
            assert_eq!(number(Some(value)), text);
        }
    }
}
