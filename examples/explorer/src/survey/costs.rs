//! What memory costs online, case by case.

use super::cases::{GIB, MOST, Row, descriptor_bytes, whole};
use super::{BackendRow, Survey, add_row, name_of, percent, plain_table};
use crate::online::online;
use crate::report::Report;
use crate::size::{ByteSize, rounded};
use crate::table::{align_right, number, time};
use comfy_table::Table;
use mm_core::pagemap::{Piece, Tails};
use std::io::{self, Write};

/// Brings `rows` online, one after the other.
pub(super) fn table(survey: &mut Survey<'_>, rows: &[BackendRow]) -> io::Result<Table> {
    let mut table = plain_table([
        "backend",
        "align",
        "tails",
        "tables",
        "leaves",
        "range",
        "descr.\nframes",
        "of the\naltmap",
        "leaf\ntables",
        "upper\ntables",
        "bytes\nper GiB",
        "saved",
        "online",
        "offline",
        "audit",
    ]);
    let mut above = None;
    for row in rows {
        let what = name_of(row);
        survey.begin(&what);
        let &(backend, row) = row;
        let report = online(&row.case.request(backend, row.range), survey.limits);
        let verdict = survey.end(&what, report.error.as_ref(), report.audit.as_deref())?;
        add_row(
            &mut table,
            &mut above,
            backend,
            cells(row, &report, verdict),
        );
    }
    align_right(&mut table, 5);
    Ok(table)
}

fn cells(row: Row, report: &Report, verdict: String) -> [String; 15] {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let frames = &report.frames;
    let gib = report.bytes() as f64 / GIB as f64;
    let per_gib = frames
        .total
        .map(|total| rounded((total * report.frame_bytes) as f64 / gib));
    [
        String::new(),
        report.align.clone(),
        text(report.tails),
        text(report.tables),
        row.leaf.to_string(),
        ByteSize(report.bytes()).to_string(),
        number(frames.descriptors),
        number(frames.altmap.filter(|_| row.case.altmap)),
        number(frames.leaf_tables),
        number(frames.upper_tables),
        per_gib.unwrap_or_default(),
        report.saved_percent.map(percent).unwrap_or_default(),
        time(report.online),
        time(report.offline),
        verdict,
    ]
}

/// Says what the figures of `rows` mean.
pub(super) fn print_notes(out: &mut dyn Write, rows: &[BackendRow]) -> io::Result<()> {
    let mut flat = Vec::new();
    for (backend, _) in rows {
        let model = backend.model();
        let page = model.granule().bytes();
        let cost = rounded((GIB / page * model.descriptor_bytes()) as f64);
        let cost = format!("{cost} with {} pages", ByteSize(page));
        if !flat.contains(&cost) {
            flat.push(cost);
        }
    }
    writeln!(
        out,
        "The flat array costs, per GiB, {}; saved is against that, with all tables below the root.",
        flat.join(", ")
    )?;
    writeln!(
        out,
        "Frames of an altmap are the device's own, of a part reserved in base pages; what else there is, is RAM: tables, and the tail frame that is for all of an order."
    )?;
    writeln!(
        out,
        "Tables are shared where the tails of one compound page fill a whole leaf table; elsewhere there is no such row."
    )?;
    let in_one_go = rows
        .iter()
        .filter(|(_, row)| row.case.piece == Piece::Range);
    let mut leaves: Vec<String> = in_one_go.map(|(_, row)| row.leaf.to_string()).collect();
    leaves.dedup();
    writeln!(
        out,
        "Memory comes online section by section, with leaves of {} in one go. Times include the host's zeroing of simulated RAM.",
        leaves.join(" and ")
    )?;
    let all = |(backend, row): &&BackendRow| row.range == whole(&backend.model());
    if rows
        .iter()
        .filter(all)
        .any(|(_, row)| row.range.size < MOST)
    {
        writeln!(
            out,
            "Where a backend describes less than twice {}, ranges are at most half of what it describes.",
            ByteSize(MOST),
        )?;
    }
    if rows.iter().any(|row| !all(&row)) {
        let limit = |tails| rounded(descriptor_bytes(tails) as f64);
        writeln!(
            out,
            "Ranges below {} are the largest whose descriptors take at most {} of host memory ({} where tails are shared), or one leaf.",
            ByteSize(MOST),
            limit(Tails::None),
            limit(Tails::PerCompound),
        )?;
    }
    Ok(())
}
