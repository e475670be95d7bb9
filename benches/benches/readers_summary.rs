//! What it costs to ask about a frame: by arithmetic, by `LiveDescriptors`, and by a `Reader`, in
//! interleaved rounds.
//!
//! All ask about the same frames, in a random order: 1024 of 4 GiB that are online in pages of 2 MiB. What
//! is asked for is in the caches of a CPU, so it is the instructions that differ. Times are medians.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use benches::RealArray;
use comfy_table::{CellAlignment, Table, presets};
use mm_core::addr::Pfn;
use mm_core::descriptor::{Mask, Page};
use mm_core::readers::{CountedReaders, GracePeriod};
use mm_core::vmemmap::LiveDescriptors;
use std::hint::black_box;
use std::time::Instant;

const FRAMES: usize = 1024;

/// How often each of them is asked about in a round.
const REPEATS: usize = 16;

/// How many rounds there are; `--quick` for less.
const ROUNDS: usize = 2000;
const QUICK_ROUNDS: usize = 200;

/// A way to ask: its name, and what it says of some frames, added up.
type Case<'c> = (&'static str, Box<dyn Fn(&[Pfn]) -> u64 + 'c>);

/// Asks about each frame, and adds up the answers.
fn each<'c>(name: &'static str, question: impl Fn(Pfn) -> u64 + 'c) -> Case<'c> {
    let ask = move |frames: &[Pfn]| {
        let answers = frames.iter().map(|frame| question(*frame));
        answers.fold(0, u64::wrapping_add)
    };
    (name, Box::new(ask))
}

/// Frames of what is online, in a random order.
fn frames_of(array: &RealArray) -> Vec<Pfn> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        array
            .online
            .start()
            .saturating_add(state % array.online.frames())
    };
    (0..FRAMES).map(|_| next()).collect()
}

fn cases(array: &RealArray) -> Vec<Case<'_>> {
    let model = array.vmemmap.model();
    let live = LiveDescriptors::<Page<Mask>>::new(model).unwrap();
    let reader = array.reader;
    let counted = CountedReaders::default();
    vec![
        each("address of the descriptor", |frame| {
            model.descriptor_address(frame).unwrap().get()
        }),
        each("LiveDescriptors::descriptor, its word", move |frame| {
            // SAFETY: 1 to 4: it is online and stays so, and nobody stores to it.
            unsafe { live.descriptor(frame) }.unwrap().word()
        }),
        each("Vmemmap::live_descriptor, its word", |frame| {
            // SAFETY: 1 to 4: as above.
            unsafe { array.vmemmap.live_descriptor(frame) }
                .unwrap()
                .word()
        }),
        each("LiveDescriptors::head_of", move |frame| {
            // SAFETY: 1: as above.
            unsafe { live.head_of(frame) }.unwrap().get()
        }),
        (
            "Reading::is_online",
            Box::new(move |frames| {
                let reading = reader.enter();
                let is_online = |frame: &Pfn| u64::from(reading.is_online(*frame));
                frames.iter().map(is_online).sum()
            }),
        ),
        (
            "Reading::page_of, first frame and order",
            Box::new(move |frames| {
                let reading = reader.enter();
                let answer = |frame: &Pfn| {
                    let page = reading.page_of(*frame).unwrap();
                    page.first().get() + u64::from(page.order().get())
                };
                frames.iter().map(answer).sum()
            }),
        ),
        each("enter, is_online, leave; no guard", move |frame| {
            u64::from(reader.enter().is_online(frame))
        }),
        each("a guard of CountedReaders, alone", move |frame| {
            let _guard = black_box(counted.enter());
            frame.get()
        }),
        each("enter, reference, put, leave; no guard", move |frame| {
            let reference = reader.enter().reference(frame).unwrap();
            let first = reference.first().get();
            let _ = reference.put();
            first
        }),
        each("Vmemmap::head_of, a walk", |frame| {
            array.vmemmap.head_of(&array.table, frame).unwrap().get()
        }),
    ]
}

fn main() {
    let rounds = benches::rounds(QUICK_ROUNDS, ROUNDS);
    let array = RealArray::new();
    let frames = frames_of(&array);
    let cases = cases(&array);
    let mut times: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((_, ask), times) in cases.iter().zip(&mut times) {
            black_box(ask(black_box(&frames)));
            let start = Instant::now();
            for _ in 0..REPEATS {
                black_box(ask(black_box(&frames)));
            }
            let asked = (FRAMES * REPEATS) as f64;
            times.push(start.elapsed().as_secs_f64() * 1e9 / asked);
        }
    }

    let mut table = Table::new();
    let header = ["question", "ns", "beyond the address, ns"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut address = None;
    for ((name, _), times) in cases.iter().zip(&mut times) {
        times.sort_unstable_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let address = *address.get_or_insert(median);
        table.add_row([
            (*name).to_owned(),
            format!("{median:.2}"),
            format!("{:.2}", median - address),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
