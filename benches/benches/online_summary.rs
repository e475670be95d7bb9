//! Bringing whole regions online: policies, sizes and a walk per page side by side, in interleaved
//! rounds.
//!
//! Simulated memory has been touched before anything is measured; times are medians.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use arch_sim::{SimFrames, SimMemory};
use benches::{PageAtATime, median};
use comfy_table::{CellAlignment, Table, presets};
use hosted::{Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::Vmemmap;
use std::hint::black_box;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A region, and how it is brought online.
struct Case {
    name: &'static str,
    bytes: u64,
    tails: Tails,
    tables: Tables,
    piece: Piece,
    page_at_a_time: bool,
    rounds: usize,
}

const CASES: [Case; 7] = [
    case(
        "per order, shared tables",
        TIB,
        Tails::PerOrder,
        Tables::Shared,
        Piece::Range,
    ),
    case(
        "  section by section",
        TIB,
        Tails::PerOrder,
        Tables::Shared,
        Piece::Section,
    ),
    case(
        "per order, private tables",
        TIB,
        Tails::PerOrder,
        Tables::Private,
        Piece::Section,
    ),
    case(
        "per compound, private tables",
        TIB,
        Tails::PerCompound,
        Tables::Private,
        Piece::Section,
    ),
    Case {
        page_at_a_time: true,
        ..case(
            "  a walk per page",
            TIB,
            Tails::PerOrder,
            Tables::Private,
            Piece::Section,
        )
    },
    case(
        "per order, shared tables",
        8 * TIB,
        Tails::PerOrder,
        Tables::Shared,
        Piece::Range,
    ),
    case(
        "per order, shared tables",
        64 * TIB,
        Tails::PerOrder,
        Tables::Shared,
        Piece::Range,
    ),
];

const fn case(name: &'static str, bytes: u64, tails: Tails, tables: Tables, piece: Piece) -> Case {
    Case {
        name,
        bytes,
        tails,
        tables,
        piece,
        page_at_a_time: false,
        rounds: 9,
    }
}

/// What a round took.
struct Round {
    online: Duration,
    offline: Duration,
    frames: u64,
}

fn one_round<P: PageTable>(
    case: &Case,
    table: &mut P,
    vmemmap: &mut Vmemmap<Page<Mask>, &SimFrames, &SimMemory>,
    frames: &SimFrames,
) -> Round {
    let granule = X86_64::MODEL.granule();
    let ranges = [PfnRange::from_bytes(PhysAddr::new(0), case.bytes, granule).unwrap()];
    let geometry = Geometry::from_bytes(GIB, granule).unwrap();
    let pagemap = DevPagemap::new(&X86_64::MODEL, &ranges, geometry)
        .unwrap()
        .with_tails(case.tails)
        .with_tables(case.tables)
        .with_piece(case.piece);
    let start = Instant::now();
    let region = black_box(vmemmap.online(table, &pagemap).unwrap());
    let online = start.elapsed();
    let out = frames.outstanding();
    let start = Instant::now();
    vmemmap.offline(table, region).unwrap();
    Round {
        online,
        offline: start.elapsed(),
        frames: out,
    }
}

fn main() {
    let machine = Machine::<X86_64>::new(&MachineConfig {
        devices: vec![X86_64::MODEL.all_frames()],
        ..MachineConfig::default()
    })
    .unwrap();
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(X86_64::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap = vmemmap.unwrap();
    let mut round = |case: &Case| {
        if case.page_at_a_time {
            // SAFETY: 1: the other one is not used meanwhile.
            let mut pages = PageAtATime(unsafe { X86_64::table(&machine) });
            let round = one_round(case, &mut pages, &mut vmemmap, machine.frames());
            // The per-page primitives leave empty tables, which a region in their place takes away.
            one_round(&CASES[2], &mut table, &mut vmemmap, machine.frames());
            round
        } else {
            one_round(case, &mut table, &mut vmemmap, machine.frames())
        }
    };

    for case in &CASES {
        round(case);
    }
    let mut rounds: Vec<Vec<Round>> = CASES.iter().map(|_| Vec::new()).collect();
    for turn in 0..9 {
        for (case, rounds) in CASES.iter().zip(&mut rounds) {
            if turn < case.rounds {
                rounds.push(round(case));
            }
        }
    }

    let mut output = Table::new();
    output.load_style(presets::UTF8_FULL).set_header([
        "region at 1 GiB align",
        "size",
        "frames per GiB",
        "online",
        "offline",
        "online per GiB",
        "/ first",
    ]);
    let first = median(rounds[0].iter().map(|round| round.online));
    let per_gib = |time: Duration, bytes: u64| time.as_secs_f64() * 1e9 / (bytes / GIB) as f64;
    for (case, rounds) in CASES.iter().zip(&rounds) {
        let online = median(rounds.iter().map(|round| round.online));
        let offline = median(rounds.iter().map(|round| round.offline));
        let frames = rounds[0].frames as f64 / (case.bytes / GIB) as f64;
        output.add_row([
            case.name.to_owned(),
            format!("{} TiB", case.bytes / TIB),
            format!("{frames:.3}"),
            format!("{:.2} ms", online.as_secs_f64() * 1e3),
            format!("{:.2} ms", offline.as_secs_f64() * 1e3),
            format!("{:.0} ns", per_gib(online, case.bytes)),
            format!("{:.2}", per_gib(online, case.bytes) / per_gib(first, TIB)),
        ]);
    }
    for column in 1..7 {
        if let Some(column) = output.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{output}");
}
