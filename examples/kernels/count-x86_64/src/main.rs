//! A kernel that counts its own instructions while it brings memory online and takes it offline.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ does the clock count? ▶ each case in two sizes, a line for each ▶ exit
//! ```
//!
//! It is for QEMU with `-icount shift=0`, where the time stamp goes on by one with each instruction. It runs on
//! the boot code's tables, on one CPU, and uses the real MMU: its flushes are counted too.
#![no_std]
#![no_main]

mod bump;
mod cases;
mod clock;
mod memory;

use arch_x86_64::{Choices, Cpu, FourLevel, FourLevelTable, MODEL_4_LEVEL, SingleCpu, Tlb};
use boot_x86_64::{Booted, IDENTITY_END, Serial, exit, image_end, println};
use bump::Bump;
use cases::{Case, GIB, cases};
use clock::Clock;
use core::fmt;
use experiment::{RangeList, Report};
use mm_core::addr::{Granule, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::{Counted, LinearMap, SharedCounts};
use mm_core::paging::OneRoot;
use mm_core::vmemmap::Vmemmap;
use x86_64::registers::control::Cr3;

/// For how many frames references are counted. A case that needs more has them in memory of its own.
const COUNT_WORDS: usize = SharedCounts::words_for(1 << 15) as usize;

boot_x86_64::entry!(main);

fn main(booted: Booted) -> ! {
    println!("count-x86_64");
    let out = &mut Serial::new();
    let mut report = Report::new(out);
    // SAFETY: 1: this is ring 0. 2: there is one.
    let cpu = unsafe { Cpu::new() };
    cpu.check::<FourLevel>(Choices::new())
        .unwrap_or_else(|error| panic!("{error}"));
    let clock = Clock::new();
    report.check("the clock counts instructions", clock.check());
    for case in cases() {
        for gib in case.sizes {
            match count(cpu, clock, &case, gib, &booted.start.ram) {
                Ok((online, offline)) => {
                    report.line(format_args!(
                        "counted {} {} {} {} {gib} {online} {offline}",
                        case.pages, case.tails, case.tables, case.piece
                    ));
                    report.check::<fmt::Error>(case.pages, Ok(()));
                }
                Err(error) => report.check(case.pages, Err(error)),
            }
        }
    }
    exit(report.finish())
}

/// RAM behind the image that the boot code has mapped where it is, in one piece.
fn free_ram(ram: &RangeList) -> Option<PfnRange> {
    let behind = PfnRange::whole_frames(
        PhysAddr::new(image_end()),
        IDENTITY_END - image_end(),
        Granule::Size4K,
    )?;
    let parts = ram.as_slice().iter().filter_map(|range| {
        let start = range.start().max(behind.start());
        let last = range.last().min(behind.last());
        PfnRange::new(start, (last.get() + 1).checked_sub(start.get())?).ok()
    });
    parts.max_by_key(|range| range.frames())
}

/// The instructions of bringing `gib` online, and of taking it offline.
fn count(
    cpu: Cpu,
    clock: Clock,
    case: &Case,
    gib: u64,
    ram: &RangeList,
) -> Result<(u64, u64), &'static str> {
    static mut WORDS: [u64; COUNT_WORDS] = [0; COUNT_WORDS];
    let ram = free_ram(ram).ok_or("there is no RAM")?;
    // SAFETY: there is one thread, and the one before has ended.
    let words = unsafe { &mut *(&raw mut WORDS) };
    let frames = Counted::new(Bump::new(ram), SharedCounts::new(words));
    // SAFETY: 1 and 2: what `free_ram` says is mapped where it is; address 0 is before the image.
    let direct_map = unsafe { LinearMap::new(VirtAddr::new(0), Granule::Size4K) };
    // SAFETY: 1: no other CPU was started.
    let mmu = Tlb::new(cpu, unsafe { SingleCpu::new() });
    let root = Cr3::read().0.start_address().as_u64();
    let root = Pfn::new(root >> Granule::Size4K.shift()).ok_or("there is no root")?;
    // SAFETY: 1: the boot code's tables, the only ones.
    let one_root = unsafe { OneRoot::new() };
    // SAFETY: 1: four levels, which the CPU walks. 2: the direct map has all of them. 3 and 4: one thread on one
    // CPU. 5: there is one root. 6: there is one allocator.
    let mut table = unsafe { FourLevelTable::new(root, one_root, &frames, &direct_map, mmu) };
    // SAFETY: 1 and 4: nobody else uses these addresses. 2: the direct map has all frames. 3: there is one table.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(MODEL_4_LEVEL, &frames, &direct_map) };
    let mut vmemmap = vmemmap.map_err(|_| "the descriptor is not the model's")?;
    let range = PfnRange::from_bytes(PhysAddr::new(64 * GIB), gib * GIB, Granule::Size4K);
    let ranges = [range.map_err(|_| "there is no such range")?];
    let pagemap = case.pagemap(&ranges).ok_or("there is no such pagemap")?;
    if SharedCounts::words_for(pagemap.shared_frames()) > COUNT_WORDS as u64 {
        return Err("there are more shared frames than are counted");
    }
    let (region, online) = clock.count(|| vmemmap.online(&mut table, &pagemap));
    let region = region.map_err(|_| "it does not come online")?;
    if !region.notes().is_empty() {
        return Err("it comes online otherwise than asked");
    }
    let (done, offline) = clock.count(|| vmemmap.offline(&mut table, region).is_ok());
    match done && frames.allocator().is_all_back() {
        true => Ok((online, offline)),
        false => Err("frames are still out"),
    }
}
