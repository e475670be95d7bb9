//! Every backend, geometry and policy side by side: what the program does when nothing is said.

use crate::geometry::natural;
use crate::need::{Limits, Need};
use crate::online::online;
use crate::report::{CLEAN, Report};
use crate::request::Request;
use crate::size::{ByteRange, ByteSize, rounded};
use crate::table::{align_right, number, time};
use comfy_table::{LineStyle, Table, presets};
use hosted::{Backend, BackendKind, WithBackend};
use mm_core::addr::{NodeId, Order};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::Notes;
use std::io::{self, Write};

const GIB: u64 = 1 << 30;

/// Where the memory is, and how much of it there would be.
const WHOLE: ByteRange = ByteRange {
    start: 1024 * GIB,
    size: 1024 * GIB,
};

/// How much host memory the descriptors of a region may take; it is halved until they do. Base
/// pages cost the same per GiB whatever their number, so less of them is enough.
const fn descriptor_bytes(tails: Tails) -> u64 {
    match tails {
        Tails::None => GIB / 4,
        _ => GIB / 2,
    }
}

/// A geometry with policies.
#[derive(Clone, Copy, Debug)]
struct Case {
    align: u64,
    tails: Tails,
    tables: Tables,
    piece: Piece,
    huge_leaves: bool,
}

impl Case {
    fn request(self, backend: BackendKind, range: ByteRange) -> Request {
        Request {
            backend,
            ranges: vec![range],
            align: ByteSize(self.align),
            tails: Some(self.tails),
            tables: self.tables,
            piece: self.piece,
            huge_leaves: self.huge_leaves,
            altmap: None,
            node: NodeId::new(0),
            fail_after: None,
        }
    }

    /// Whether `B` does all of it as asked.
    fn exists_on<B: Backend>(self) -> bool {
        let request = self.request(BackendKind::Sim, WHOLE);
        let Ok(frames) = request.in_frames(B::MODEL.granule()) else {
            return false;
        };
        frames.pagemap(&B::MODEL, None).is_ok_and(|pagemap| {
            Notes::known_ahead(&pagemap, B::HUGE_LEAF, B::SHARES_TABLES).is_empty()
        })
    }

    /// What the vmemmap is mapped by.
    fn leaf<B: Backend>(self) -> ByteSize {
        let order = match (self.tails, self.huge_leaves) {
            (Tails::None, true) => B::HUGE_LEAF.unwrap_or(Order::BASE),
            _ => Order::BASE,
        };
        ByteSize(order.frames() * B::MODEL.granule().bytes())
    }

    /// The largest part of [`WHOLE`] whose descriptors fit, but no less than what one leaf of
    /// vmemmap describes.
    fn largest_range<B: Backend>(self) -> ByteRange {
        let least = self.leaf::<B>().0 / B::MODEL.descriptor_bytes() * B::MODEL.granule().bytes();
        let least = least.max(self.align);
        let fits = |range: &ByteRange| {
            let request = self.request(BackendKind::Sim, *range);
            let frames = request.in_frames(B::MODEL.granule()).ok();
            let need = frames.and_then(|frames| {
                let pagemap = frames.pagemap(&B::MODEL, None).ok()?;
                Some(Need::of::<B>(&pagemap))
            });
            // What is no range fails, and is reported, when it is brought online.
            need.is_none_or(|need| {
                need.descriptor_frames * B::MODEL.granule().bytes() <= descriptor_bytes(self.tails)
            })
        };
        let half = |range: ByteRange| ByteRange {
            size: range.size / 2,
            ..range
        };
        let mut range = WHOLE;
        while !fits(&range) && range.size > least {
            range = half(range);
        }
        range
    }
}

/// A case, where it is run, and what leaves it is mapped by.
#[derive(Clone, Copy, Debug)]
struct Row {
    case: Case,
    range: ByteRange,
    leaf: ByteSize,
}

/// All that there is on a backend.
struct Rows;

impl WithBackend for Rows {
    type Output = Vec<Row>;

    fn with<B: Backend>(self) -> Vec<Row> {
        let granule = B::MODEL.granule();
        let base_pages = |huge_leaves| Case {
            align: granule.bytes(),
            tails: Tails::None,
            tables: Tables::Private,
            piece: Piece::Section,
            huge_leaves,
        };
        let mut cases = Vec::new();
        // Without tables it makes no difference what the leaves are.
        if B::HAS_TABLES {
            cases.push(base_pages(false));
        }
        cases.push(base_pages(true));
        for align in natural(granule) {
            for tails in [Tails::None, Tails::PerCompound, Tails::PerOrder] {
                for tables in [Tables::Private, Tables::Shared] {
                    cases.push(Case {
                        align,
                        tails,
                        tables,
                        ..base_pages(true)
                    });
                }
            }
        }
        let rows = cases.into_iter().filter_map(|case| {
            // Section by section where that leaves a place for huge leaves.
            let pieces = [Piece::Section, Piece::Range];
            let mut cases = pieces.map(|piece| Case { piece, ..case }).into_iter();
            let case = cases.find(|case| case.exists_on::<B>())?;
            Some(Row {
                case,
                range: case.largest_range::<B>(),
                leaf: case.leaf::<B>(),
            })
        });
        rows.collect()
    }
}

/// Hears of what is being done: what, how much of it is done, and how much there is.
pub type Progress<'p> = &'p dyn Fn(&str, usize, usize);

/// Runs all cases and prints one table to `out`. Says whether all were done with clean audits.
///
/// # Errors
///
/// Those of `out`.
pub fn survey(
    limits: &Limits,
    progress: Progress<'_>,
    out: &mut dyn Write,
    stderr: &mut dyn Write,
) -> io::Result<bool> {
    let mut table = Table::new();
    let style = presets::UTF8_NO_BORDERS.row_separator(LineStyle::none());
    table.load_style(style).set_header([
        "backend",
        "align",
        "tails",
        "tables",
        "leaves",
        "range",
        "descr.\nframes",
        "leaf\ntables",
        "upper\ntables",
        "bytes\nper GiB",
        "saved",
        "online",
        "offline",
        "audit",
    ]);
    let all: Vec<(BackendKind, Row)> = BackendKind::ALL
        .into_iter()
        .flat_map(|backend| backend.run(Rows).into_iter().map(move |row| (backend, row)))
        .collect();
    let mut good = true;
    let mut above = None;
    for (index, &(backend, row)) in all.iter().enumerate() {
        let what = format!("{} at {}", backend.name(), ByteSize(row.case.align));
        progress(&what, index, all.len());
        let report = online(&row.case.request(backend, row.range), limits);
        good &= report.is_good();
        if let Some(failure) = &report.error {
            writeln!(stderr, "error: {what}: {failure}")?;
        }
        if let Some(found) = report.audit.as_deref().filter(|audit| *audit != CLEAN) {
            writeln!(stderr, "error: {what}: {found}")?;
        }
        if above.is_some_and(|above| above != backend) {
            table.add_row([""; 14]);
        }
        table.add_row(cells(row, &report, above != Some(backend)));
        above = Some(backend);
    }
    progress("", all.len(), all.len());
    align_right(&mut table, 5);
    writeln!(out, "{}", table.trim_fmt())?;
    print_notes(out, &all)?;
    Ok(good)
}

fn print_notes(out: &mut dyn Write, all: &[(BackendKind, Row)]) -> io::Result<()> {
    let mut flat = Vec::new();
    for (backend, _) in all {
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
        "\nThe flat array costs, per GiB, {}; saved is against that, with all tables below the root.",
        flat.join(", ")
    )?;
    writeln!(
        out,
        "Tables are shared where the tails of one compound page fill a whole leaf table; elsewhere there is no such row."
    )?;
    let in_one_go = all.iter().filter(|(_, row)| row.case.piece == Piece::Range);
    let mut leaves: Vec<String> = in_one_go.map(|(_, row)| row.leaf.to_string()).collect();
    leaves.dedup();
    writeln!(
        out,
        "Memory comes online section by section, with leaves of {} in one go. Times include the host's zeroing of simulated RAM.",
        leaves.join(" and ")
    )?;
    if all.iter().any(|(_, row)| row.range != WHOLE) {
        let limit = |tails| rounded(descriptor_bytes(tails) as f64);
        writeln!(
            out,
            "Ranges below {} are the largest whose descriptors take at most {} of host memory ({} where tails are shared), or one leaf.",
            ByteSize(WHOLE.size),
            limit(Tails::None),
            limit(Tails::PerCompound),
        )?;
    }
    Ok(())
}

fn cells(row: Row, report: &Report, first: bool) -> [String; 14] {
    let text = str::to_owned;
    let frames = &report.frames;
    let gib = report.bytes() as f64 / GIB as f64;
    let per_gib = frames
        .total
        .map(|total| rounded((total * report.frame_bytes) as f64 / gib));
    let saved = report.saved_percent.map(percent);
    let audit = report.audit.as_deref().map(|audit| match audit {
        CLEAN => CLEAN.to_owned(),
        _ => "FAILED".to_owned(),
    });
    let failed = report.error.as_ref().map(|failure| failure.kind.to_owned());
    [
        text(if first { report.backend } else { "" }),
        report.align.clone(),
        text(report.tails.unwrap_or_default()),
        text(report.tables.unwrap_or_default()),
        row.leaf.to_string(),
        ByteSize(report.bytes()).to_string(),
        number(frames.descriptors),
        number(frames.leaf_tables),
        number(frames.upper_tables),
        per_gib.unwrap_or_default(),
        saved.unwrap_or_default(),
        time(report.online),
        time(report.offline),
        audit.or(failed).unwrap_or_default(),
    ]
}

/// Two digits; what rounds to zero has no sign.
fn percent(saved: f64) -> String {
    format!("{:.2} %", (saved * 100.0).round() / 100.0 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Align, tails, tables and leaves of each row.
    fn rows(backend: BackendKind) -> Vec<String> {
        let rows = backend.run(Rows).into_iter();
        let text = |row: Row| {
            let tails = match row.case.tails {
                Tails::PerCompound => "C",
                Tails::PerOrder => "O",
                _ => "-",
            };
            let shared = match row.case.tables {
                Tables::Shared => "+",
                _ => "",
            };
            format!("{} {tails}{shared} {}", ByteSize(row.case.align), row.leaf)
        };
        rows.map(text).collect()
    }

    #[test]
    fn every_geometry_has_a_row_for_each_policy_that_its_backend_applies() {
        let small = [
            "4K - 4K", "4K - 2M", "2M - 2M", "2M C 4K", "2M O 4K", "1G - 2M", "1G C 4K",
            "1G C+ 4K", "1G O 4K", "1G O+ 4K",
        ];
        for backend in [
            BackendKind::X86_64,
            BackendKind::X86_64La57,
            BackendKind::AArch64_4K,
        ] {
            assert_eq!(rows(backend), small, "{}", backend.name());
        }
        // Neither leaves nor tables make a difference where there are no tables.
        let mut plain = small.to_vec();
        plain.retain(|row| *row != "4K - 4K" && !row.contains('+'));
        assert_eq!(rows(BackendKind::Sim), plain);
        assert_eq!(
            rows(BackendKind::AArch64_16K),
            [
                "16K - 16K",
                "16K - 32M",
                "32M - 32M",
                "32M C 16K",
                "32M O 16K",
                "1G - 32M",
                "1G C 16K",
                "1G O 16K",
            ]
        );
        assert_eq!(
            rows(BackendKind::AArch64_64K),
            [
                "64K - 64K",
                "64K - 512M",
                "512M - 512M",
                "512M C 64K",
                "512M O 64K",
                "16G - 512M",
                "16G C 64K",
                "16G O 64K",
            ]
        );
    }

    #[test]
    fn ranges_are_as_large_as_their_descriptors_allow() {
        let size = |backend: BackendKind, index: usize| {
            let rows = backend.run(Rows);
            ByteSize(rows[index].range.size).to_string()
        };
        // A flat 16 MiB per GiB; 2 of 8 frames and 1 of 8 of that; 2 frames per GiB.
        assert_eq!(size(BackendKind::X86_64, 0), "16G");
        assert_eq!(size(BackendKind::X86_64, 3), "128G");
        assert_eq!(size(BackendKind::X86_64, 4), "128G");
        assert_eq!(size(BackendKind::X86_64, 6), "1T");
        // One huge leaf describes more than the limit.
        assert_eq!(size(BackendKind::AArch64_64K, 0), "256G");
        assert_eq!(size(BackendKind::AArch64_64K, 1), "512G");
    }
}
