//! A kernel on the `x86_64` crate that embeds the library, as small as an honest one is.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ descriptors of RAM ▶ heap, frame allocator ▶ first steps ▶ a device online, offline ▶ base pages folded ▶ exit
//! ```
//!
//! What it writes to embed the library is `glue.rs`, and `first_steps.rs` shows how that is used. The rest here
//! checks that it works.
#![no_std]
#![no_main]

mod allocator;
mod first_steps;
mod glue;

use boot_x86_64::{Booted, IDENTITY_END, Serial, exit, image_end, println};
use core::fmt;
use core::sync::atomic::Ordering;
use experiment::{Probe, RangeList, Report};
use glue::{Descriptors, Embedded, Engine, Frames, LIVE};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{InspectFrames, PlainAllocator};
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::vmemmap::Described;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{OffsetPageTable, PageTable};

/// Where physical memory is mapped: where it is, by the boot code's tables.
const OFFSET: VirtAddr = VirtAddr::new(0);

/// The heap is a block of 2 MiB.
const HEAP_ORDER: u8 = 9;

/// Memory of a device, of which nothing is there: only its descriptors are.
const DEVICE: (u64, u64) = (24 << 30, 1 << 30);

/// Memory that comes online in base pages.
const HOTPLUGGED: (u64, u64) = (32 << 30, 128 << 20);

boot_x86_64::entry!(main);

fn main(booted: Booted) -> ! {
    println!("embed-x86_64-crate");
    let out = &mut Serial::new();
    let mut report = Report::new(out);
    static FREE_RAM: Once<RangeList> = Once::new();
    let ram = FREE_RAM.call_once(|| free_ram(&booted.start.ram));
    // SAFETY: 1: the boot code's tables are in use, there are no others, and no other CPU was started; this is
    // the one reference to them. 2: they map what `free_ram` leaves where it is, and the image lies before it.
    // 3: they map nothing there, and this is called once.
    let mut kernel = unsafe { Embedded::new(boot_table(), ram.as_slice()) };
    first_steps::bring_ram_online(&mut kernel, booted.start.ram.as_slice());
    check_ram(&mut kernel, &booted.start.ram, &mut report);
    start_heap(kernel.frames);
    kernel.hand_over();

    let free = || allocator::FRAMES.lock().free();
    let free_at_first = free();
    report.line(format_args!("{free_at_first} frames free"));
    first_steps::run(&mut kernel);
    equal(
        &mut report,
        "frames free after the first steps",
        free(),
        free_at_first,
    );
    run_device(&mut kernel, &booted, &mut report);
    equal(
        &mut report,
        "frames free after the device",
        free(),
        free_at_first,
    );
    run_fold(&mut kernel, &mut report);
    equal(
        &mut report,
        "frames free after the fold",
        free(),
        free_at_first,
    );
    exit(report.finish())
}

/// The RAM behind the image, as far as the boot code's tables map it.
fn free_ram(ram: &RangeList) -> RangeList {
    let mut free = RangeList::default();
    let mapped = bytes((image_end(), IDENTITY_END - image_end()));
    for range in ram.as_slice() {
        if let Some(range) = range.intersection(mapped) {
            // There is room, since there was for more.
            let _ = free.add(range);
        }
    }
    free
}

/// The table that the boot code has made.
///
/// # Safety
///
/// 1. The CPU translates by it still, and nobody else has a reference to it.
unsafe fn boot_table() -> OffsetPageTable<'static> {
    let root = OFFSET + Cr3::read().0.start_address().as_u64();
    // SAFETY: the boot code's tables map memory at the offset; there is one reference (duty 1).
    unsafe { OffsetPageTable::new(&mut *root.as_mut_ptr::<PageTable>(), OFFSET) }
}

/// All RAM has descriptors, which are online already.
fn check_ram(kernel: &mut Embedded, ram: &RangeList, report: &mut Report<'_>) {
    let used = in_use(kernel.frames)();
    let (descriptors, engine) = kernel.parts();
    let whole = descriptors
        .model()
        .whole_subsections(ram.as_slice().iter().copied());
    let described: u64 = whole.map(PfnRange::frames).sum();
    report.line(format_args!(
        "{described} frames of RAM online: {used} frames"
    ));
    for range in ram.as_slice() {
        for frame in [range.start(), range.last()] {
            equal(
                report,
                "the head of a frame of RAM",
                head_of(descriptors, &engine, frame),
                frame.get(),
            );
        }
    }
}

/// Gives the kernel its heap, in which its frame allocator keeps its lists.
fn start_heap(frames: &Frames) {
    let order = Order::new(HEAP_ORDER).unwrap_or(Order::BASE);
    let Some(heap) = frames.allocator().allocate(order, NodeId::new(0)) else {
        panic!("no memory for the heap");
    };
    let start = OFFSET + heap.first().base(Granule::Size4K).get();
    let size = order.frames() * Granule::Size4K.bytes();
    // SAFETY: RAM that nobody else has, mapped at the offset.
    unsafe {
        allocator::HEAP
            .lock()
            .init(start.as_u64() as usize, size as usize)
    };
}

/// Device memory online in pages of 1 GiB, and offline.
fn run_device(kernel: &mut Embedded, booted: &Booted, report: &mut Report<'_>) {
    let device = bytes(DEVICE);
    let in_use = in_use(kernel.frames);
    let before = in_use();
    let (descriptors, mut engine) = kernel.parts();
    let pagemap = pagemap_of(descriptors, device, device.frames());
    let region = descriptors
        .online(&mut engine, &pagemap)
        .unwrap_or_else(|error| panic!("{error}"));
    let used = in_use() - before;
    report.line(format_args!(
        "a device of 1 GiB online as one page: {used} frames"
    ));
    // The head's, the tails', and 8 leaf tables.
    equal(report, "frames of the device", used, 2 + 8);
    for frame in [
        device.start(),
        device.start().saturating_add(100_000),
        device.last(),
    ] {
        let head = head_of(descriptors, &engine, frame);
        report.line(format_args!("the head of frame {frame} is {head:#x}"));
        equal(report, "the head of a frame", head, device.start().get());
    }
    descriptors
        .offline(&mut engine, region)
        .unwrap_or_else(|error| panic!("{error}"));
    let at = descriptors.descriptor_address(device.start());
    let faults = at.is_some_and(|at| booted.probe.load(at).is_err());
    equal(report, "faults after offline", faults.into(), 1);
    report.line(format_args!("offline again: {} frames", in_use() - before));
}

/// Memory online in base pages, folded to pages of 2 MiB, unfolded, and offline.
fn run_fold(kernel: &mut Embedded, report: &mut Report<'_>) {
    let memory = bytes(HOTPLUGGED);
    let in_use = in_use(kernel.frames);
    let before = in_use();
    let (descriptors, mut engine) = kernel.parts();
    let base = pagemap_of(descriptors, memory, Order::BASE.frames()).with_huge_leaves(false);
    let region = descriptors
        .online(&mut engine, &base)
        .unwrap_or_else(|error| panic!("{error}"));
    let used = in_use() - before;
    report.line(format_args!("128 MiB online in base pages: {used} frames"));
    equal(report, "frames in base pages", used, 512 + 1);

    // What the kernel keeps in the descriptor of a page that is to be a head.
    let head = memory.start().saturating_add(512);
    let page = live(descriptors, &engine, head);
    page.private()[0].store(42, Ordering::Relaxed);

    let huge = pagemap_of(descriptors, memory, 512);
    let folded = descriptors
        .fold(&mut engine, &huge, memory)
        .unwrap_or_else(|error| panic!("{error}"));
    let used = in_use() - before;
    let pages = folded.changed;
    report.line(format_args!(
        "folded to {pages} pages of 2 MiB: {used} frames"
    ));
    equal(report, "frames when folded", used, 2 * 64 + 1);
    for frame in [head, head.saturating_add(511)] {
        equal(
            report,
            "the head when folded",
            head_of(descriptors, &engine, frame),
            head.get(),
        );
    }

    let unfolded = descriptors
        .unfold(&mut engine, &huge, memory)
        .unwrap_or_else(|error| panic!("{error}"));
    let used = in_use() - before;
    report.line(format_args!(
        "{} pages unfolded: {used} frames",
        unfolded.changed
    ));
    equal(report, "frames when unfolded", used, 512 + 1);

    // Each descriptor has memory of its own again, so the pages can be taken apart.
    descriptors
        .reshape(&engine, &base, memory)
        .unwrap_or_else(|error| panic!("{error}"));
    for frame in [head, head.saturating_add(511)] {
        equal(
            report,
            "the head when taken apart",
            head_of(descriptors, &engine, frame),
            frame.get(),
        );
    }
    let page = live(descriptors, &engine, head);
    let kept = page.private()[0].load(Ordering::Relaxed);
    equal(report, "what the kernel keeps in a descriptor", kept, 42);

    descriptors
        .offline(&mut engine, region)
        .unwrap_or_else(|error| panic!("{error}"));
    report.line(format_args!("offline again: {} frames", in_use() - before));
}

/// The frames of `(start, bytes)`.
fn bytes((start, bytes): (u64, u64)) -> PfnRange {
    let range = PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K);
    range.unwrap_or_else(|error| panic!("{error}"))
}

/// `range`, used in pages of `frames` frames.
fn pagemap_of(descriptors: &Descriptors, range: PfnRange, frames: u64) -> DevPagemap<'static> {
    let bytes = frames * Granule::Size4K.bytes();
    let Some(geometry) = Geometry::from_bytes(bytes, Granule::Size4K) else {
        panic!("there are no pages of {frames} frames");
    };
    DevPagemap::of_range(descriptors.model(), range, geometry)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Counts the frames that the vmemmap has, tables included.
fn in_use(frames: &'static Frames) -> impl Fn() -> u64 {
    move || frames.outstanding().unwrap_or(0)
}

/// The descriptor of `frame`, which is online and has one of its own, where the MMU has it.
fn live<'d>(descriptors: &'d Descriptors, engine: &Engine<'_>, frame: Pfn) -> &'d Page<Mask> {
    assert!(
        descriptors.is_valid(engine, frame),
        "frame {frame} is not online"
    );
    // SAFETY: 1 and 2: it is online on the tables that the CPU translates by, and stays so while `descriptors`
    // is borrowed. 3 and 4: nothing works on it meanwhile.
    let descriptor = unsafe { LIVE.descriptor(frame) };
    let Some(own) = descriptor.and_then(Described::own) else {
        panic!("frame {frame} has no descriptor of its own");
    };
    own
}

/// The number of the head of `frame`, by what its descriptor says to the CPU.
fn head_of(descriptors: &Descriptors, engine: &Engine<'_>, frame: Pfn) -> u64 {
    assert!(
        descriptors.is_valid(engine, frame),
        "frame {frame} is not online"
    );
    // SAFETY: 1: it is online on the tables that the CPU translates by.
    let head = unsafe { LIVE.head_of(frame) };
    head.map_or(u64::MAX, Pfn::get)
}

/// Counts a check.
fn equal(report: &mut Report<'_>, what: &str, found: u64, expected: u64) {
    let same = match found == expected {
        true => Ok(()),
        false => Err(Unequal { found, expected }),
    };
    report.check(what, same);
}

struct Unequal {
    found: u64,
    expected: u64,
}

impl fmt::Display for Unequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}, not {:#x}", self.found, self.expected)
    }
}
