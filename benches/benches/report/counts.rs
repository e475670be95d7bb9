//! Instructions of whole operations, by callgrind: where `valgrind` is installed, this program runs under it
//! again and again, each time for one size of one case, and does nothing else.
//!
//! What is counted is the difference between two sizes, by the GiB: what every call costs is not in it, nor
//! what differs in how a case is set up.

use super::bump::{Kernel, Memory};
use arch_x86_64::MODEL_4_LEVEL;
use benches::instructions;
use figures::{Counted, Frames, Instructions, Pages, Piece, Tables, Tails};
use mm_core::addr::{PfnRange, PhysAddr};
use mm_core::pagemap::{self, DevPagemap, Geometry};

/// Names the case that is counted, to this program under `valgrind`.
const COUNTED: &str = "COUNTED";

const GIB: u64 = 1 << 30;

/// Does what was asked for by the environment, if anything was.
pub(crate) fn is_counted() -> bool {
    let Ok(counted) = std::env::var(COUNTED) else {
        return false;
    };
    let (index, gib) = counted.split_once(' ').unwrap();
    let mut all = Instructions::all();
    let (counted, frames) = all.nth(index.parse().unwrap()).unwrap();
    let gib = gib.parse().unwrap();
    with_pagemap(&counted, gib, |pagemap| {
        let memory = Memory::for_gib(gib_of_frames(&counted, gib), frames);
        Kernel::new(&memory, pagemap, |linear| linear).there_and_back(pagemap);
    });
    true
}

/// The instructions of all cases; `None` where there is nothing to count with.
pub(crate) fn measure() -> Option<Vec<Instructions>> {
    let of = |(index, (counted, frames)): (usize, (Counted, Frames))| {
        let [small, large] = counted.sizes();
        let slope = |function| {
            let count = |gib| instructions(function, COUNTED, &format!("{index} {gib}"));
            Some((count(large)? as f64 - count(small)? as f64) / (large - small) as f64)
        };
        Some(Instructions {
            counted,
            frames,
            online_per_gib: slope("bump*counted_online")?,
            offline_per_gib: slope("bump*counted_offline")?,
        })
    };
    Instructions::all().enumerate().map(of).collect()
}

/// For how much memory in base pages there are frames.
const fn gib_of_frames(counted: &Counted, gib: u64) -> u64 {
    match counted.case {
        Pages::Size4K => gib,
        Pages::Size2M => gib / 4 + 1,
        Pages::Size1G => gib / 256 + 1,
    }
}

fn with_pagemap(counted: &Counted, gib: u64, work: impl FnOnce(&DevPagemap<'_>)) {
    let granule = MODEL_4_LEVEL.granule();
    let range = PfnRange::from_bytes(PhysAddr::new(0), gib * GIB, granule);
    let ranges = [range.unwrap()];
    let pagemap = of_policy(
        &ranges,
        counted.case,
        counted.tails,
        counted.tables,
        counted.piece,
    );
    work(&pagemap);
}

/// A pagemap of `ranges`, as the names say.
pub(crate) fn of_policy(
    ranges: &[PfnRange],
    pages: Pages,
    tails: Tails,
    tables: Tables,
    piece: Piece,
) -> DevPagemap<'_> {
    let granule = MODEL_4_LEVEL.granule();
    let geometry = match pages {
        Pages::Size4K => Geometry::BASE_PAGES,
        other => Geometry::from_bytes(other.bytes(), granule).unwrap(),
    };
    DevPagemap::new(&MODEL_4_LEVEL, ranges, geometry)
        .unwrap()
        .with_tails(match tails {
            Tails::None => pagemap::Tails::None,
            Tails::PerCompound => pagemap::Tails::PerCompound,
            Tails::PerOrder => pagemap::Tails::PerOrder,
        })
        .with_tables(match tables {
            Tables::Private => pagemap::Tables::Private,
            Tables::Shared => pagemap::Tables::Shared,
        })
        .with_piece(match piece {
            Piece::Section => pagemap::Piece::Section,
            Piece::Range => pagemap::Piece::Range,
        })
}
