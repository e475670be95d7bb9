//! All cases in turn, many times, and a table of medians and of their ratios.
//!
//! Machines are noisy; what runs next to each other in time is disturbed alike, so the ratios are
//! of medians of interleaved runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

use benches::{Arena, ENTRIES, Engine, OffsetTable, Pattern, median};
use comfy_table::{CellAlignment, Table, presets};
use std::time::{Duration, Instant};

/// How often each case runs; `--quick` for less.
const ROUNDS: usize = 200;
const QUICK_ROUNDS: usize = 20;

/// Times of one pattern.
#[derive(Default)]
struct Times {
    map: Vec<Duration>,
    unmap: Vec<Duration>,
    map_to: Vec<Duration>,
    map_to_unmap: Vec<Duration>,
}

fn timed(times: &mut Vec<Duration>, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    times.push(start.elapsed());
}

fn per_entry(times: &[Duration]) -> f64 {
    median(times.iter().copied()).as_secs_f64() * 1e9 / ENTRIES as f64
}

fn main() {
    // `cargo test --benches` runs this too, with `--test`.
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = if arguments.iter().any(|argument| argument == "--test") {
        1
    } else if arguments.iter().any(|argument| argument == "--quick") {
        QUICK_ROUNDS
    } else {
        ROUNDS
    };

    let mut arena = Arena::new();
    let mut memset = Vec::new();
    let mut memset_tables = Vec::new();
    let mut times: [Times; Pattern::ALL.len()] = Default::default();
    for _ in 0..rounds {
        for ((pattern, _), times) in Pattern::ALL.into_iter().zip(&mut times) {
            timed(&mut memset, || arena.memset());
            timed(&mut memset_tables, || arena.memset_tables());
            let mut engine = Engine::new(&arena);
            timed(&mut times.map, || engine.map(pattern));
            timed(&mut times.unmap, || {
                assert_eq!(engine.unmap().0, ENTRIES);
            });
            drop(engine);
            let mut table = OffsetTable::new(&arena);
            timed(&mut times.map_to, || table.map(pattern));
            timed(&mut times.map_to_unmap, || {
                assert_eq!(table.unmap(), ENTRIES);
            });
            table.free_tables();
        }
    }

    let memset = per_entry(&memset);
    let memset_tables = per_entry(&memset_tables);
    println!(
        "{ENTRIES} entries, {rounds} rounds; per entry, memset of the leaf tables takes {memset:.3} ns \
         in one piece and {memset_tables:.3} ns table by table"
    );
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "entries",
        "map, ns",
        "of memset",
        "map_to, ns",
        "faster",
        "unmap, ns",
        "of memset",
        "x86_64 unmap, ns",
        "faster",
    ]);
    for ((_, name), times) in Pattern::ALL.into_iter().zip(&mut times) {
        let map = per_entry(&times.map);
        let unmap = per_entry(&times.unmap);
        let map_to = per_entry(&times.map_to);
        let map_to_unmap = per_entry(&times.map_to_unmap);
        table.add_row([
            name.to_owned(),
            format!("{map:.3}"),
            format!("{:.2} x", map / memset),
            format!("{map_to:.2}"),
            format!("{:.1} x", map_to / map),
            format!("{unmap:.3}"),
            format!("{:.2} x", unmap / memset),
            format!("{map_to_unmap:.2}"),
            format!("{:.1} x", map_to_unmap / unmap),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
