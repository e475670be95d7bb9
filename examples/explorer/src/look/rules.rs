//! Whether everything is there once: the library's rule of ownership, as far as it shows without its counts.
//!
//! Every entry owns a reference on what it points at. So a table that is linked twice is shared, and every link says
//! so; a frame that is mapped twice holds tails, and every leaf says so; and nothing is both a table and a frame with descriptors.

use super::Findings;
use super::description::Described;
use super::walk::{LeafRun, Link, TableUse};
use crate::report::Frames;
use std::collections::BTreeMap;

/// Frames behind leaves that follow each other, or one behind all of them.
struct Mapped<'l> {
    first: u64,
    frames: u64,
    by: &'l LeafRun,
}

/// Checks all of it, and counts what it takes.
pub fn check(
    described: &Described,
    vmemmap: &[LeafRun],
    heads: &[LeafRun],
    links: &[Link],
    tables: &BTreeMap<u64, TableUse>,
    findings: &mut Findings,
) -> Frames {
    let mut mapped: Vec<Mapped<'_>> = vmemmap
        .iter()
        .chain(heads)
        .map(|run| Mapped {
            first: run.frame.get(),
            frames: run.frames(),
            by: run,
        })
        .collect();
    mapped.sort_unstable_by_key(|run| run.first);
    let mut descriptors = 0;
    let mut end = 0;
    let mut last: Option<&Mapped<'_>> = None;
    for run in &mapped {
        let run_end = run.first.saturating_add(run.frames);
        let twice = match last.filter(|_| run.first < end) {
            Some(last) => !(last.by.tail && run.by.tail),
            // The same frame, again and again.
            None => run.by.same && !run.by.tail,
        };
        // Where nothing says what an entry is, tails may be.
        if twice && described.tail != 0 {
            findings.add(format_args!(
                "frame {:#x} is mapped more than once and not as a tail, at {}",
                run.first, run.by.at
            ));
        }
        descriptors += run_end.saturating_sub(run.first.max(end));
        if run_end > end {
            end = run_end;
            last = Some(run);
        }
        if let Some((table, _)) = tables.range(run.first..run_end).next() {
            findings.add(format_args!(
                "frame {table:#x} is a table, and is mapped with descriptors at {}",
                run.by.at
            ));
        }
    }
    for (frame, table) in tables {
        if table.links > 1 && table.shared < table.links && described.tail != 0 {
            findings.add(format_args!(
                "table {frame:#x} is linked {} times, and {} of these links say that it is shared",
                table.links, table.shared
            ));
        }
    }
    for run in vmemmap
        .iter()
        .filter(|run| run.level == 1 && !(run.same && run.tail))
    {
        if tables
            .get(&run.table.get())
            .is_some_and(|table| table.shared > 0)
        {
            findings.add(format_args!(
                "the shared table {} has more than one tail, at {}",
                run.table, run.at
            ));
        }
    }
    let mut levels: Vec<_> = links.iter().map(|link| (link.frame, link.level)).collect();
    levels.sort_unstable();
    levels.dedup();
    if let Some([(table, _), ..]) = levels
        .windows(2)
        .find(|pair| matches!(pair, [a, b] if a.0 == b.0))
    {
        findings.add(format_args!("table {table} is linked on several levels"));
    }
    let leaf_tables = tables.values().filter(|table| table.level == 1).count() as u64;
    let upper_tables = tables.len() as u64 - leaf_tables;
    Frames {
        descriptors: Some(descriptors),
        heads: Some(heads.iter().map(LeafRun::frames).sum()),
        leaf_tables: Some(leaf_tables),
        upper_tables: Some(upper_tables),
        altmap: None,
        total: Some(descriptors + leaf_tables + upper_tables),
    }
}
