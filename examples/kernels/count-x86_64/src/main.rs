//! A kernel that counts its own instructions while it brings memory online and takes it offline, and while RAM
//! becomes base pages as it is used.
//!
//! ```text
//!   boot-x86_64 ▶ main ▶ does the clock count? ▶ each case in two sizes, a line for each ▶ RAM as it is used ▶ exit
//! ```
//!
//! It is for QEMU with `-icount shift=0`, where the time stamp goes on by one with each instruction. It runs on
//! the boot code's tables, on one CPU, and uses the real MMU: its flushes are counted too.
#![no_std]
#![no_main]

mod bump;
mod cases;
mod clock;
mod lazy;
mod machine;
mod memory;

use arch_x86_64::{Choices, Cpu, FourLevel};
use boot_x86_64::{Booted, Serial, exit, println};
use cases::{Case, GIB, cases};
use clock::Clock;
use core::fmt;
use experiment::{RangeList, Report};
use machine::{COUNT_WORDS, Machine, on_machine};
use mm_core::addr::{Granule, PfnRange, PhysAddr};
use mm_core::frame::SharedCounts;

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
    lazy::count(cpu, clock, &booted.start.ram, &mut report);
    exit(report.finish())
}

/// The instructions of bringing `gib` online, and of taking it offline.
fn count(
    cpu: Cpu,
    clock: Clock,
    case: &Case,
    gib: u64,
    ram: &RangeList,
) -> Result<(u64, u64), &'static str> {
    let range = PfnRange::from_bytes(PhysAddr::new(64 * GIB), gib * GIB, Granule::Size4K);
    let ranges = [range.map_err(|_| "there is no such range")?];
    let pagemap = case.pagemap(&ranges).ok_or("there is no such pagemap")?;
    if SharedCounts::words_for(pagemap.shared_frames()) > COUNT_WORDS as u64 {
        return Err("there are more shared frames than are counted");
    }
    on_machine(cpu, ram, |Machine { vmemmap, table, .. }| {
        let (region, online) = clock.count(|| vmemmap.online(table, &pagemap));
        let region = region.map_err(|_| "it does not come online")?;
        if !region.notes().is_empty() {
            return Err("it comes online otherwise than asked");
        }
        let (done, offline) = clock.count(|| vmemmap.offline(table, region).is_ok());
        match done {
            true => Ok((online, offline)),
            false => Err("it does not go offline"),
        }
    })
}
