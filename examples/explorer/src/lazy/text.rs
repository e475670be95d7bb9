//! Printing both ways beside each other for people.

use super::report::LazyReport;
use crate::size::rounded;
use crate::table::{UNKNOWN, align_right, number, time};
use comfy_table::{Table, presets};
use std::io::{self, Write};
use std::time::Duration;

/// Prints what was done, or what is left of what was not.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &LazyReport) -> io::Result<()> {
    writeln!(
        out,
        "{}: {} of RAM online in pages of {}; where a frame is handed out, {} become base pages",
        report.backend, report.ram, report.page, report.block
    )?;
    if report.eager.frames.is_some() {
        writeln!(out, "\n{}", ways_table(report))?;
    }
    writeln!(out)?;
    let lazy = &report.lazy;
    match report.error {
        Some(_) => writeln!(out, "not all was done")?,
        None => {
            let mean = lazy.all.zip(u32::try_from(lazy.changes).ok());
            let mean = mean.and_then(|(all, changes)| all.checked_div(changes));
            writeln!(
                out,
                "changes          {}, {} each; {} flushes",
                lazy.changes,
                time(mean),
                lazy.flushes
            )?;
            writeln!(
                out,
                "reserve          {} frames for a change",
                number(lazy.reserve)
            )?;
            writeln!(out, "allocator calls  {}", lazy.allocator_calls)?;
        }
    }
    writeln!(out, "still out        {}", number(report.frames_left))?;
    let audit = report.audit.as_deref().unwrap_or(UNKNOWN);
    writeln!(out, "audit            {audit}")
}

/// A row for each state, a column for each way.
fn ways_table(report: &LazyReport) -> Table {
    let (eager, lazy) = (&report.eager, &report.lazy);
    let bytes = |frames: Option<u64>| match frames {
        Some(frames) => rounded((frames * report.frame_bytes) as f64),
        None => UNKNOWN.to_owned(),
    };
    let used = format!("{} used", report.used);
    let later: [(&str, Option<u64>, Option<Duration>); 2] = [
        ("first frame used", lazy.frames_first, lazy.first),
        (&used, lazy.frames_used, lazy.all),
    ];
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["", "eager", "bytes", "time", "lazy", "bytes", "time"]);
    let (frames, none) = (number(eager.frames), String::new);
    table.add_row([
        "online".to_owned(),
        frames.clone(),
        bytes(eager.frames),
        time(eager.online),
        number(lazy.frames_online),
        bytes(lazy.frames_online),
        time(lazy.online),
    ]);
    for (state, changed, took) in later {
        table.add_row([
            state.to_owned(),
            frames.clone(),
            bytes(eager.frames),
            none(),
            number(changed),
            bytes(changed),
            time(took),
        ]);
    }
    align_right(&mut table, 1);
    table
}
