//! A kernel with a page table and an allocator of its own that embeds the library.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ the tables that the CPU walks, frames ▶ the conformance battery ▶ exit
//! ```
//!
//! What it writes to embed the library is `glue.rs`. The battery tells whether that was done right, by one
//! call, on the tables that the CPU walks meanwhile. What it needs for that is here: a [`Harness`].
#![no_std]
#![no_main]

mod frames;
mod glue;
mod tables;

use boot_x86_64::{Booted, IDENTITY_END, Instructions, Serial, exit, image_end, println};
use conformance::{Controls, Failure, Harness, Outcome, Parts, Seen};
use core::cell::Cell;
use core::ptr::with_exposed_provenance_mut;
use core::slice;
use core::sync::atomic::AtomicU32;
use experiment::{CpuProbe, Limited, Probe, RangeList, Report};
use frames::{ALLOCATOR, FRAMES};
use glue::{OwnFrames, OwnTable};
use mm_core::addr::{Granule, NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr, VirtRange};
use mm_core::frame::{Counted, DeviceAltmap, LinearMap, WordCounts};
use mm_core::model::{MemoryModel, ModelConfig};
use mm_core::paging::{Flush, Leaf, NoRecords, PageTable};
use mm_core::vmemmap::AuditSlot;
use spin::{Mutex, MutexGuard};
use tables::{ACCESSED, DIRTY, NO_EXECUTE, PRESENT, WRITABLE};
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::structures::paging::mapper::{Translate, TranslateResult};
use x86_64::structures::paging::{OffsetPageTable, PageTable as CrateTable, PageTableFlags};

/// Where descriptors are: in a slot of the root table that nothing else uses.
const VMEMMAP: VirtAddr = VirtAddr::new(0xffff_c000_0000_0000);

/// Memory that stands for a device's, whose descriptors are brought online. It begins in RAM that nothing
/// else uses, since the altmap lies there. Behind that nothing is touched.
const DEVICE: (u64, u64) = (512 << 20, (512 << 20) + (3 << 30));

/// How many frames audits count in.
const SCRATCH_FRAMES: u64 = 64;

/// What other code of the kernel may keep in an entry that is not present.
const SWAPPED_OUT: u64 = 0x5a00;

static COUNTS: Mutex<[AtomicU32; FRAMES as usize]> =
    Mutex::new([const { AtomicU32::new(0) }; FRAMES as usize]);

boot_x86_64::entry!(main);

fn main(booted: Booted) -> ! {
    println!("embed-own-table");
    if Cr4::read().contains(Cr4Flags::L5_PAGING) {
        panic!(
            "the CPU walks 5 levels, and this kernel's tables have 4; choose a CPU without LA57"
        );
    }
    let ram = start_allocator(&booted.start.ram);
    let words: &'static mut [AtomicU32; FRAMES as usize] = MutexGuard::leak(COUNTS.lock());
    let counts = WordCounts::new(ram, words).unwrap_or_else(|error| panic!("{error}"));
    let limited = Limited::new(OwnFrames);
    // SAFETY: 1 and 2: the boot code's tables map what `start_allocator` and `start_altmap` take where it is.
    let direct_map = unsafe { LinearMap::new(VirtAddr::new(0), Granule::Size4K) };
    let mut kernel = Kernel {
        model: model(),
        // SAFETY: 1: there are 4 levels, mapped where they are by the boot code; there is no other thread.
        // 2: the boot code starts no other CPU, and nobody loads CR3 again with another table.
        table: unsafe { OwnTable::current() },
        frames: Counted::new(&limited, counts),
        direct_map,
        altmap: start_altmap(&booted.start.ram, direct_map),
        controls: Live {
            limited: &limited,
            probe: booted.probe,
            contradictions: Cell::new(0),
        },
        scratch: scratch(),
    };
    let out = &mut Serial::new();
    let mut report = Report::new(out);
    report.line(format_args!("{} frames free", ram.frames()));
    conformance::run(&mut kernel, &mut |name, outcome| match outcome {
        Outcome::Passed => report.check::<Failure>(name, Ok(())),
        Outcome::Failed(failure) => report.check(name, Err(failure)),
        Outcome::Skipped(why) => report.skip(format_args!("{name}"), format_args!("{why}")),
    });
    exit(report.finish())
}

/// Descriptors of 64 bytes for 1 TiB of memory.
fn model() -> MemoryModel {
    let order = |order| Order::new(order).unwrap_or(Order::BASE);
    let model = MemoryModel::new(ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base: VMEMMAP,
        frames: 1 << 28,
        section: order(15),
        subsection: order(9),
        max_order: order(18),
    });
    model.unwrap_or_else(|error| panic!("{error}"))
}

/// Gives the allocator RAM behind the image, which the boot code has mapped; says which.
fn start_allocator(ram: &RangeList) -> PfnRange {
    let mapped = bytes((image_end(), IDENTITY_END - image_end()));
    for range in ram.as_slice() {
        let range = range.intersection(mapped);
        let first = range.and_then(|range| Pfn::new(range.start().get().next_multiple_of(64)));
        let frames = first.and_then(|first| PfnRange::new(first, FRAMES).ok());
        if let (Some(range), Some(frames)) = (range, frames)
            && range.contains_range(frames)
            && !frames.overlaps(bytes(DEVICE))
        {
            // SAFETY: 1: RAM by the firmware's word, behind the image and below the end of what is mapped.
            unsafe { ALLOCATOR.lock().set(frames.start().get()) };
            return frames;
        }
    }
    panic!("there are no {FRAMES} frames of RAM behind the image");
}

/// An altmap in the first subsection of the device.
fn start_altmap(ram: &RangeList, direct_map: LinearMap) -> DeviceAltmap<LinearMap> {
    let (reserved, _) = bytes(DEVICE).take_first(model().subsection().frames());
    let is_ram = |range: &PfnRange| range.contains_range(reserved);
    if !ram.as_slice().iter().any(is_ram) {
        panic!(
            "the altmap lies in RAM from {:#x} on; give the machine more",
            DEVICE.0
        );
    }
    // SAFETY: 1: RAM behind what the allocator has, and of no other altmap. 2: mapped where it is. 3: checks
    // have one vmemmap at a time. 4: there is one thread.
    let altmap = unsafe { DeviceAltmap::new(&model(), direct_map, reserved, NodeId::new(0)) };
    altmap.unwrap_or_else(|error| panic!("{error}"))
}

/// Memory for audits to count in.
fn scratch() -> &'static mut [AuditSlot] {
    let Some(first) = ALLOCATOR.lock().allocate(SCRATCH_FRAMES) else {
        panic!("no memory for audits");
    };
    let start = with_exposed_provenance_mut::<AuditSlot>((first << 12) as usize);
    let slots = (SCRATCH_FRAMES << 12) as usize / size_of::<AuditSlot>();
    // SAFETY: so many slots fit into these frames, which are mapped where they are and nobody else's.
    unsafe {
        for slot in 0..slots {
            start.add(slot).write(AuditSlot::default());
        }
        slice::from_raw_parts_mut(start, slots)
    }
}

/// The frames of `(start, bytes)`.
fn bytes((start, bytes): (u64, u64)) -> PfnRange {
    let range = PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K);
    range.unwrap_or_else(|error| panic!("{error}"))
}

/// What the battery works with: what the kernel has.
struct Kernel<'k> {
    model: MemoryModel,
    table: OwnTable,
    frames: Counted<&'k Limited<OwnFrames>, WordCounts<'static>>,
    direct_map: LinearMap,
    controls: Live<'k>,
    altmap: DeviceAltmap<LinearMap>,
    scratch: &'static mut [AuditSlot],
}

impl<'k> Harness for Kernel<'k> {
    type Table = OwnTable;
    type Frames = Counted<&'k Limited<OwnFrames>, WordCounts<'static>>;
    type DirectMap = LinearMap;
    type Controls = Live<'k>;

    fn parts(&mut self) -> Parts<'_, Self> {
        Parts {
            model: self.model,
            table: &mut self.table,
            frames: &self.frames,
            direct_map: &self.direct_map,
            controls: &self.controls,
            device: bytes(DEVICE),
            node: NodeId::new(0),
            altmap: Some(&self.altmap),
            scratch: self.scratch,
            ends_are_free: true,
        }
    }
}

/// What the CPU, the kernel's allocator and its other code can do besides.
struct Live<'k> {
    limited: &'k Limited<OwnFrames>,
    probe: CpuProbe<Instructions>,
    /// How often the CPU and the reader of tables did not agree.
    contradictions: Cell<u64>,
}

/// What `at` translates to, by the tables as the `x86_64` crate reads them: other code than the kernel's.
fn read(at: VirtAddr) -> Option<Seen> {
    let root = Cr3::read().0.start_address().as_u64();
    let root = with_exposed_provenance_mut::<CrateTable>(root as usize);
    let offset = x86_64::VirtAddr::zero();
    // SAFETY: the tables are mapped where they are, and nobody changes them meanwhile.
    let tables = unsafe { OffsetPageTable::new(&mut *root, offset) };
    match tables.translate(x86_64::VirtAddr::new_truncate(at.get())) {
        TranslateResult::Mapped {
            frame,
            offset,
            flags,
        } => Some(Seen {
            frame: Pfn::new((frame.start_address().as_u64() + offset) >> 12)?,
            writable: flags.contains(PageTableFlags::WRITABLE),
            executable: !flags.contains(PageTableFlags::NO_EXECUTE),
        }),
        _ => None,
    }
}

/// Changes the entry for the page at `at` as other code of the kernel would, if it is `old`; new tables
/// stay. Says whether it was.
fn change(table: &mut OwnTable, at: VirtAddr, old: impl Fn(u64) -> bool, new: u64) -> bool {
    let new_table = || ALLOCATOR.lock().allocate_zeroed();
    let entry = table.tables.page_entry(at.get(), new_table);
    let Some(entry) = entry.ok().filter(|entry| old(entry.get())) else {
        return false;
    };
    entry.set(new);
    let mut flush = Flush::nothing();
    flush.add(VirtRange::single(at));
    table.flush(flush, &NoRecords);
    true
}

impl Controls<OwnTable> for Live<'_> {
    fn translate(&self, _table: &OwnTable, at: VirtAddr) -> Option<Option<Seen>> {
        let seen = read(at);
        if self.probe.load(at.align_down(3)).is_ok() != seen.is_some() {
            self.contradictions.set(self.contradictions.get() + 1);
        }
        Some(seen)
    }

    fn fail_after(&self, n: Option<u64>) -> bool {
        self.limited.set_call_limit(n);
        true
    }

    fn map_foreign(&self, table: &mut OwnTable, at: VirtAddr, leaf: Leaf) -> bool {
        let frame = leaf.block.first().base(Granule::Size4K).get();
        let value = frame | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE;
        leaf.block.order() == Order::BASE && change(table, at, |old| old == 0, value)
    }

    fn unmap_foreign(&self, table: &mut OwnTable, at: VirtAddr) {
        change(table, at, |_| true, 0);
    }

    fn plant_reserved(&self, table: &mut OwnTable, at: VirtAddr, order: Order) -> bool {
        order == Order::BASE && change(table, at, |old| old == 0, SWAPPED_OUT)
    }

    fn take_reserved(&self, table: &mut OwnTable, at: VirtAddr) -> bool {
        change(table, at, |old| old == SWAPPED_OUT, 0)
    }

    fn untranslated(&self, at: VirtAddr) -> Option<VirtAddr> {
        Some(VirtAddr::new(at.get() ^ 1 << 62))
    }

    /// A load from every page.
    fn speculate(&self, _table: &OwnTable, range: VirtRange) {
        for page in 0..range.pages(Granule::Size4K) {
            if let Some(at) = range.start().checked_add(page << 12) {
                // What is not mapped faults, and is not cached.
                let _ = self.probe.load(at);
            }
        }
    }

    fn flushes(&self, table: &OwnTable) -> Option<u64> {
        Some(table.flushes)
    }

    fn violations(&self) -> u64 {
        self.contradictions.get()
    }
}
