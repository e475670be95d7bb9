//! Changing the order of 1 GiB: directly and through base pages, whole and in part, side by side in
//! interleaved rounds.
//!
//! Simulated memory has been touched before anything is measured; times are medians. Where `valgrind` is
//! installed, instructions are counted: for each direct case the program runs twice more, with its number
//! in `COUNTED`, and does nothing but that case.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use arch_sim::{SimFrames, SimMemory};
use benches::{instructions, median};
use comfy_table::{CellAlignment, Table, presets};
use hosted::{Backend, Machine, MachineConfig, X86_64};
use mm_core::addr::{NodeId, Order, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::{Reserve, Vmemmap};
use std::hint::black_box;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 101;
/// Names the case whose instructions are counted.
const COUNTED: &str = "COUNTED";

type Array<'m> = Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory>;
type Paging<'m> = <X86_64 as Backend>::Table<'m>;

/// What changes, and how.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    to: u64,
    part: u64,
    tails: Tails,
    directly: bool,
}

const CASES: [Case; 6] = [
    case("1G to 512 × 2M, per order", 2 << 20, GIB, Tails::PerOrder),
    Case {
        directly: false,
        ..case("  through base pages", 2 << 20, GIB, Tails::PerOrder)
    },
    case(
        "1G to 512 × 2M, per compound",
        2 << 20,
        GIB,
        Tails::PerCompound,
    ),
    case("1G to 4K", 4 << 10, GIB, Tails::PerOrder),
    case("2M out of 1G, per order", 2 << 20, 2 << 20, Tails::PerOrder),
    case("4K out of 1G, per order", 4 << 10, 4 << 10, Tails::PerOrder),
];

const fn case(name: &'static str, to: u64, part: u64, tails: Tails) -> Case {
    Case {
        name,
        to,
        part,
        tails,
        directly: true,
    }
}

/// What a round took.
#[derive(Clone, Copy)]
struct Round {
    there: Duration,
    back: Duration,
    frames: [u64; 2],
    flushes: u64,
}

struct Bed<'m> {
    table: Paging<'m>,
    vmemmap: Array<'m>,
}

#[inline(never)]
fn directly(bed: &mut Bed<'_>, to: &DevPagemap<'_>, part: PfnRange) -> u64 {
    bed.vmemmap
        .reorder(&mut bed.table, to, part)
        .unwrap()
        .flushes
}

#[inline(never)]
fn back(bed: &mut Bed<'_>, to: &DevPagemap<'_>, all: PfnRange) -> u64 {
    bed.vmemmap
        .reorder(&mut bed.table, to, all)
        .unwrap()
        .flushes
}

/// By an unfold, a reshape to base pages, one to the other order, and a fold.
fn through_base_pages(
    bed: &mut Bed<'_>,
    (from, to): (&DevPagemap<'_>, &DevPagemap<'_>),
    all: PfnRange,
) -> u64 {
    let unfolded = bed.vmemmap.unfold(&mut bed.table, from, all).unwrap();
    bed.vmemmap.reshape(&bed.table, to, all).unwrap();
    let folded = bed.vmemmap.fold(&mut bed.table, to, all).unwrap();
    unfolded.flushes + folded.flushes
}

fn one_round(case: &Case, bed: &mut Bed<'_>, frames: &SimFrames) -> Round {
    let granule = X86_64::MODEL.granule();
    let range = |bytes| PfnRange::from_bytes(PhysAddr::new(24 * GIB), bytes, granule).unwrap();
    let ranges = [range(GIB)];
    let of = |bytes| {
        DevPagemap::new(
            &X86_64::MODEL,
            &ranges,
            Geometry::from_bytes(bytes, granule).unwrap(),
        )
        .unwrap()
        .with_tails(case.tails)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Range)
        .with_huge_leaves(false)
    };
    let (from, to) = (of(GIB), of(case.to));
    let region = bed.vmemmap.online(&mut bed.table, &from).unwrap();
    let largest = Order::from_bytes(GIB, granule).unwrap();
    let (part, all) = (range(case.part), ranges[0]);
    if case.directly {
        let there = bed.vmemmap.reserve_needed(&bed.table, &to, part, largest);
        let back = bed.vmemmap.reserve_needed(&bed.table, &from, all, largest);
        let both = Reserve {
            frames: there.frames + back.frames,
            tables: there.tables + back.tables,
            huge_leaves: 0,
        };
        bed.vmemmap
            .fill_reserve(&mut bed.table, NodeId::new(0), both)
            .map(drop)
            .unwrap();
    }
    let out = |bed: &Bed<'_>| frames.outstanding() - bed.vmemmap.stats().reserve_frames;
    let before = out(bed);
    let start = Instant::now();
    let flushes = black_box(match case.directly {
        true => directly(bed, &to, part),
        false => through_base_pages(bed, (&from, &to), all),
    });
    let there = start.elapsed();
    let after = out(bed);
    let start = Instant::now();
    black_box(match case.directly {
        true => back(bed, &from, all),
        false => through_base_pages(bed, (&to, &from), all),
    });
    let back = start.elapsed();
    assert_eq!(out(bed), before, "{}", case.name);
    bed.vmemmap.empty_reserve(&mut bed.table);
    bed.vmemmap.offline(&mut bed.table, region).unwrap();
    Round {
        there,
        back,
        frames: [before, after],
        flushes,
    }
}

fn main() {
    let machine = Machine::<X86_64>::new(&MachineConfig {
        devices: vec![X86_64::MODEL.all_frames()],
        ..MachineConfig::default()
    })
    .unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap = unsafe { Vmemmap::new(X86_64::MODEL, machine.frames(), machine.memory()) };
    let mut bed = Bed {
        table: machine.take_table().unwrap(),
        vmemmap: vmemmap.unwrap(),
    };
    if let Ok(counted) = std::env::var(COUNTED) {
        let case = &CASES[counted.parse::<usize>().unwrap()];
        black_box(one_round(case, &mut bed, machine.frames()));
        return;
    }
    let mut all: Vec<Vec<Round>> = CASES.iter().map(|_| Vec::new()).collect();
    for turn in 0..=ROUNDS {
        for (case, rounds) in CASES.iter().zip(&mut all) {
            let round = one_round(case, &mut bed, machine.frames());
            // The first one touches the memory.
            if turn > 0 {
                rounds.push(round);
            }
        }
    }

    let mut output = Table::new();
    output.load_style(presets::UTF8_FULL).set_header([
        "1 GiB, shared tables",
        "frames",
        "flushes there",
        "there",
        "back",
        "instructions there",
        "back",
    ]);
    let mut is_counted = true;
    for (index, (case, rounds)) in CASES.iter().zip(&all).enumerate() {
        let of = |time: fn(&Round) -> Duration| {
            let time = median(rounds.iter().map(time));
            format!("{:.3} ms", time.as_secs_f64() * 1e3)
        };
        let mut count = |function| {
            let function = format!("reorder_summary*{function}");
            match instructions(&function, COUNTED, &index.to_string()) {
                _ if !case.directly => String::new(),
                Some(count) => format!("{} k", count / 1000),
                None => {
                    is_counted = false;
                    "-".to_owned()
                }
            }
        };
        let [before, after] = rounds[0].frames;
        output.add_row([
            case.name.to_owned(),
            format!("{before} → {after}"),
            rounds[0].flushes.to_string(),
            of(|round| round.there),
            of(|round| round.back),
            count("directly"),
            count("back"),
        ]);
    }
    for column in 1..7 {
        if let Some(column) = output.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{output}");
    if !is_counted {
        println!("Instructions were not counted: `valgrind` is not installed.");
    }
}
