//! What packed heads cost whoever asks which page a frame is part of, and loads its head: `Reading::page_of`,
//! on heads in place and on packed ones, in interleaved rounds.
//!
//! Packed, it asks the same online map, loads the word of a stub, and computes order and head from it. All
//! ask about the same frames, in a random order, of 4 GiB that are online in pages of 2 MiB. What they load is
//! in a CPU's caches: in the first one, or in the second. Times are medians.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use benches::{Host, RealArray};
use comfy_table::{CellAlignment, Table, presets};
use mm_core::addr::Pfn;
use mm_core::descriptor::{Descriptor, Mask, Page};
use mm_core::pagemap::Heads;
use mm_core::readers::Reading;
use std::hint::black_box;
use std::time::Instant;

/// How many frames are asked about: their descriptors fill the first cache of a CPU, or the second.
const FRAMES: [usize; 2] = [128, 1024];

/// How many questions there are in a round, of each kind.
const QUESTIONS: usize = 1 << 14;

/// How many rounds there are; `--quick` for less.
const ROUNDS: usize = 2000;
const QUICK_ROUNDS: usize = 200;

/// The first frame and the order of the page of `frame`, and something that its head says, added up.
fn answer(reading: &Reading<'_, Page<Mask>, Host>, frame: Pfn) -> u64 {
    let page = reading.page_of(frame).unwrap();
    let of_head = u64::from(page.head().order().get());
    page.first().get() + u64::from(page.order().get()) + of_head
}

fn main() {
    let rounds = benches::rounds(QUICK_ROUNDS, ROUNDS);
    let arrays = [Heads::InPlace, Heads::Packed].map(RealArray::with_heads);
    let readings = [&arrays[0], &arrays[1]].map(|array| array.reader.enter());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut frame = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let online = arrays[0].online;
        online.start().saturating_add(state % online.frames())
    };

    let mut table = Table::new();
    let header = [
        "frames asked about",
        "in place, ns",
        "packed, ns",
        "more, ns",
    ];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for count in FRAMES {
        let frames: Vec<Pfn> = (0..count).map(|_| frame()).collect();
        for frame in &frames {
            let [one, other] = [0, 1].map(|heads| answer(&readings[heads], *frame));
            assert_eq!(one, other, "the same answer");
        }
        let asked = |reading| {
            let all = |frames: &[Pfn]| {
                let answers = frames.iter().map(|frame| answer(reading, *frame));
                answers.fold(0, u64::wrapping_add)
            };
            black_box(all(black_box(&frames)));
            let start = Instant::now();
            for _ in 0..QUESTIONS / count {
                black_box(all(black_box(&frames)));
            }
            start.elapsed().as_secs_f64() * 1e9 / QUESTIONS as f64
        };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (reading, times) in readings.iter().zip(&mut times) {
                times.push(asked(reading));
            }
        }
        let [one, other] = times.map(|mut times| {
            times.sort_unstable_by(f64::total_cmp);
            times[times.len() / 2]
        });
        table.add_row([
            count.to_string(),
            format!("{one:.2}"),
            format!("{other:.2}"),
            format!("{:.2}", other - one),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
