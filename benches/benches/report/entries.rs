//! Entries: all contenders in turn, many times.
//!
//! Machines are noisy; what runs next to each other in time is disturbed alike.

use super::contenders::{Look, Round, pattern, round};
use benches::{Arena, ENTRIES, Stopwatch, median};
use figures::{Case, Contender, Op, Row};
use std::time::Duration;

/// What memset takes by the entry, and the rows.
pub(crate) fn measure(rounds: usize) -> (f64, Vec<Row>) {
    let mut arena = Arena::new();
    let mut memset = Vec::new();
    let cases = Case::ALL.iter().flat_map(|case| {
        let contenders = Contender::ALL.iter();
        contenders.map(move |contender| (*contender, *case))
    });
    let mut all: Vec<_> = cases.map(|of| (of, Vec::<Round>::new())).collect();
    for turn in 0..=rounds {
        for ((contender, case), taken) in &mut all {
            let start = Stopwatch::start();
            arena.memset();
            let zeroed = start.elapsed();
            // The first time they are looked at, and warm up.
            let look = if turn == 0 { Look::Yes } else { Look::No };
            let round = round(*contender, &arena, pattern(*case), look);
            if turn > 0 {
                memset.push(zeroed);
                taken.push(round);
            }
        }
    }
    let memset = per_entry(memset);
    let rows = all.iter().flat_map(|((name, case), taken)| {
        let of = |op, time: fn(&Round) -> Duration| {
            let ns_per_entry = per_entry(taken.iter().map(time));
            Row {
                name: *name,
                case: *case,
                op,
                ns_per_entry,
                vs_memset: ns_per_entry / memset,
            }
        };
        [
            of(Op::Map, |round| round.map),
            of(Op::Unmap, |round| round.unmap),
        ]
    });
    (memset, rows.collect())
}

fn per_entry(times: impl IntoIterator<Item = Duration>) -> f64 {
    median(times).as_secs_f64() * 1e9 / ENTRIES as f64
}
