//! What packed heads cost whoever asks which page a frame is part of: before they are built, by the loads
//! and the arithmetic that they take, in interleaved rounds with what is there.
//!
//! *In place* is `Reading::page_of`, and a load of the head that it gives. *Packed* asks the same online map,
//! loads word and order of a stub, and computes where the head is: `heads + ((room + pfn) >> order)`
//! descriptors. Then it loads that. All ask about the same frames, in a random order, of 4 GiB that are online
//! in pages of 2 MiB. What they load is in a CPU's caches. Times are medians.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use benches::{Host, RealArray};
use comfy_table::{CellAlignment, Table, presets};
use mm_core::addr::{NodeId, Order, Pfn};
use mm_core::descriptor::{Descriptor, Initial, Mask, Page, Part, TailEncoding};
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

/// Bits 0 and 1 of the word of a stub: it is a tail, and its head is elsewhere. A tail's has bit 0 alone.
const STUB: u64 = 3;

/// Every descriptor of the pages online is a stub, and the heads are in an array of their own.
struct Packed {
    order: Order,
    /// The first frame that has a stub here.
    first: u64,
    stubs: Vec<Page<Mask>>,
    /// Frames of the model, rounded up to a power of two.
    room: u64,
    /// The index of the first head here.
    first_head: u64,
    heads: Vec<Page<Mask>>,
}

impl Packed {
    fn new(array: &RealArray) -> Self {
        let order = Order::new(9).unwrap();
        let room = array.vmemmap.model().config().frames.next_power_of_two();
        let (first, frames) = (array.online.start().get(), array.online.frames());
        let describe = |part, word| {
            Page::initial(Initial {
                part,
                order,
                word,
                node: NodeId::default(),
            })
        };
        let stub = !((64 << order.get()) - 1) | STUB;
        Self {
            order,
            first,
            stubs: (0..frames).map(|_| describe(Part::Tail, stub)).collect(),
            room,
            first_head: (room + first) >> order.get(),
            heads: (0..frames >> order.get())
                .map(|_| describe(Part::Head, Mask::head_word()))
                .collect(),
        }
    }

    /// As addresses from where they would be if all frames and all places had a descriptor.
    fn bases(&self) -> Bases {
        let base = |of: *const Page<Mask>, index: u64| {
            (of.expose_provenance() as u64).wrapping_sub(index * 64)
        };
        Bases {
            stubs: base(self.stubs.as_ptr(), self.first),
            heads: base(self.heads.as_ptr(), self.first_head),
            room: self.room,
        }
    }
}

/// Where a reader finds both arrays.
#[derive(Clone, Copy)]
struct Bases {
    stubs: u64,
    heads: u64,
    room: u64,
}

/// The descriptor at `at`.
///
/// # Safety
///
/// 1. There is one, as long as the answer is used.
#[inline]
unsafe fn load<'d>(at: u64) -> &'d Page<Mask> {
    // SAFETY: 1: the caller's; 1 of `at_its_address`.
    unsafe { mm_core::readers::at_its_address(mm_core::addr::VirtAddr::new(at)) }
}

/// What both answer: the first frame, the order, and something that the head says.
#[inline]
fn added_up(first: u64, order: Order, head: &Page<Mask>) -> u64 {
    first + u64::from(order.get()) + u64::from(head.order().get())
}

fn in_place(reading: &Reading<'_, Page<Mask>, Host>, frame: Pfn) -> u64 {
    let page = reading.page_of(frame).unwrap();
    added_up(page.first().get(), page.order(), page.head())
}

fn packed(reading: &Reading<'_, Page<Mask>, Host>, bases: Bases, frame: Pfn) -> u64 {
    assert!(reading.is_online(frame));
    let at = bases.stubs.wrapping_add(frame.get() << 6);
    // SAFETY: 1: it is one of those that have a stub.
    let stub = unsafe { load(at) };
    let (word, order) = (stub.word(), stub.order());
    // Whoever reads both kinds has to ask which it is.
    let head = match word & STUB == STUB {
        true => bases
            .heads
            .wrapping_add(((bases.room + frame.get()) >> order.get()) << 6),
        false => at & word,
    };
    let first = frame.align_down(order).get();
    // SAFETY: 1: so does its page have a head.
    added_up(first, order, unsafe { load(head) })
}

fn main() {
    // `cargo test --benches` runs this too, with `--test`.
    let arguments: Vec<String> = std::env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let rounds = match (has("--test"), has("--quick")) {
        (true, _) => 1,
        (_, true) => QUICK_ROUNDS,
        _ => ROUNDS,
    };
    let array = RealArray::new();
    let arrays = Packed::new(&array);
    assert_eq!(arrays.order, Order::new(9).unwrap());
    let bases = arrays.bases();
    let reading = array.reader.enter();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut frame = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let online = array.online;
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
            let both = [in_place(&reading, *frame), packed(&reading, bases, *frame)];
            assert_eq!(both[0], both[1], "the same answer");
        }
        let asked = |question: &dyn Fn(&[Pfn]) -> u64| {
            black_box(question(black_box(&frames)));
            let start = Instant::now();
            for _ in 0..QUESTIONS / count {
                black_box(question(black_box(&frames)));
            }
            start.elapsed().as_secs_f64() * 1e9 / QUESTIONS as f64
        };
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            times[0].push(asked(&|frames| {
                let answers = frames.iter().map(|frame| in_place(&reading, *frame));
                answers.fold(0, u64::wrapping_add)
            }));
            times[1].push(asked(&|frames| {
                let answers = frames.iter().map(|frame| packed(&reading, bases, *frame));
                answers.fold(0, u64::wrapping_add)
            }));
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
