//! Every backend, geometry and policy side by side: what the program does when nothing is said.

use crate::need::{Limits, Need};
use crate::online::online;
use crate::report::{CLEAN, Report};
use crate::request::Request;
use crate::size::{ByteRange, ByteSize, rounded};
use crate::table::{align_right, number, time};
use comfy_table::{LineStyle, Table, presets};
use hosted::{Backend, BackendKind, WithBackend};
use mm_core::addr::NodeId;
use mm_core::pagemap::{Piece, Tables, Tails};
use std::io::{self, Write};

const GIB: u64 = 1 << 30;

/// Where the memory is, and how much of it there would be.
const WHOLE: ByteRange = ByteRange {
    start: 1024 * GIB,
    size: 1024 * GIB,
};

/// How much host memory the descriptors of a region may take; it is halved until they do. Base pages cost the same per GiB
/// whatever their number, so less of them is enough.
const fn descriptor_bytes(tails: Tails) -> u64 {
    match tails {
        Tails::None => GIB / 2,
        _ => GIB,
    }
}

/// A geometry with policies.
#[derive(Clone, Copy, Debug)]
struct Case {
    align: u64,
    tails: Tails,
    tables: Tables,
    huge_leaves: bool,
}

impl Case {
    const fn base_pages(align: u64, huge_leaves: bool) -> Self {
        Self {
            align,
            tails: Tails::None,
            tables: Tables::Private,
            huge_leaves,
        }
    }

    const fn shared(align: u64, tails: Tails, tables: Tables) -> Self {
        Self {
            align,
            tails,
            tables,
            huge_leaves: true,
        }
    }

    /// What base pages are mapped by.
    const fn leaves(self) -> &'static str {
        match (self.tails, self.huge_leaves) {
            (Tails::None, true) => "2M",
            _ => "4K",
        }
    }

    fn request(self, backend: BackendKind, range: ByteRange) -> Request {
        Request {
            backend,
            ranges: vec![range],
            align: ByteSize(self.align),
            tails: Some(self.tails),
            tables: self.tables,
            piece: Piece::Section,
            huge_leaves: self.huge_leaves,
            altmap: None,
            node: NodeId::new(0),
            fail_after: None,
        }
    }
}

/// All that there is.
const CASES: [Case; 10] = [
    Case::base_pages(4 << 10, false),
    Case::base_pages(4 << 10, true),
    Case::base_pages(2 << 20, true),
    Case::shared(2 << 20, Tails::PerCompound, Tables::Private),
    Case::shared(2 << 20, Tails::PerOrder, Tables::Private),
    Case::base_pages(1 << 30, true),
    Case::shared(1 << 30, Tails::PerCompound, Tables::Private),
    Case::shared(1 << 30, Tails::PerCompound, Tables::Shared),
    Case::shared(1 << 30, Tails::PerOrder, Tables::Private),
    Case::shared(1 << 30, Tails::PerOrder, Tables::Shared),
];

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
    let all = BackendKind::ALL
        .into_iter()
        .flat_map(|backend| CASES.map(|case| (backend, case)));
    let count = BackendKind::ALL.len() * CASES.len();
    let (mut good, mut smaller) = (true, false);
    let mut above = None;
    for (index, (backend, case)) in all.enumerate() {
        let what = format!("{} at {}", backend.name(), ByteSize(case.align));
        progress(&what, index, count);
        let range = backend.run(LargestRange(case));
        smaller |= range != WHOLE;
        let report = online(&case.request(backend, range), limits);
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
        table.add_row(row(case, &report, above != Some(backend)));
        above = Some(backend);
    }
    progress("", count, count);
    align_right(&mut table, 5);
    writeln!(out, "{}", table.trim_fmt())?;
    print_notes(out, smaller)?;
    Ok(good)
}

fn print_notes(out: &mut dyn Write, smaller: bool) -> io::Result<()> {
    let whole = ByteSize(WHOLE.size);
    writeln!(
        out,
        "\nThe flat array costs 16.0 MiB per GiB; saved is against that, with all tables below the root."
    )?;
    writeln!(
        out,
        "Memory comes online section by section. Times include the host's zeroing of simulated RAM."
    )?;
    if smaller {
        let limit = |tails| rounded(descriptor_bytes(tails) as f64);
        writeln!(
            out,
            "Ranges below {whole} are the largest whose descriptors take at most {} of host memory ({} where tails are shared).",
            limit(Tails::None),
            limit(Tails::PerCompound),
        )?;
    }
    Ok(())
}

fn row(case: Case, report: &Report, first: bool) -> [String; 14] {
    let text = str::to_owned;
    let frames = &report.frames;
    let gib = report.bytes() as f64 / GIB as f64;
    let per_gib = frames
        .total
        .map(|total| rounded(total as f64 * 4096.0 / gib));
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
        text(case.leaves()),
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

/// The largest part of [`WHOLE`] whose descriptors fit.
struct LargestRange(Case);

impl WithBackend for LargestRange {
    type Output = ByteRange;

    fn with<B: Backend>(self) -> ByteRange {
        let fits = |range: &ByteRange| {
            let request = self.0.request(BackendKind::Sim, *range);
            let frames = request.in_frames(B::MODEL.granule()).ok();
            let need = frames.and_then(|frames| {
                let pagemap = frames.pagemap(&B::MODEL, None).ok()?;
                Some(Need::of::<B>(&pagemap, None))
            });
            // What is no range fails, and is reported, when it is brought online.
            need.is_none_or(|need| {
                need.descriptor_frames * B::MODEL.granule().bytes()
                    <= descriptor_bytes(self.0.tails)
            })
        };
        let halves = std::iter::successors(Some(WHOLE), |range| {
            Some(ByteRange {
                size: range.size / 2,
                ..*range
            })
            .filter(|half| half.size >= GIB)
        });
        halves.into_iter().find(fits).unwrap_or(WHOLE)
    }
}
