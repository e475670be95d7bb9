//! How often tables are looked into.
//!
//! An operation on many pages goes down to each table once, and neither walks from the root nor
//! looks over a table again for each page. Visits of tables are counted where they pass: each takes
//! a pointer from the direct map. How often the entries of a table are read in one visit cannot be
//! counted from outside; what that costs is in the benchmarks (clear entries, against memset).

use arch_sim::walker::X86_64Walker;
use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use arch_x86_64::{FourLevel, MODEL_4_LEVEL};
use mm_core::addr::{Granule, NodeId, Pfn, PfnRange, PhysAddr};
use mm_core::descriptor::{Mask, Page};
use mm_core::frame::DirectMap;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::RadixTable;
use mm_core::vmemmap::Vmemmap;
use std::cell::Cell;
use std::ptr::NonNull;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// The direct map of a page table, which counts.
struct Counting<'m> {
    memory: &'m SimMemory,
    visits: Cell<u64>,
}

// SAFETY: 1 to 3 hold because they hold for the memory behind it.
unsafe impl DirectMap for Counting<'_> {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.visits.set(self.visits.get() + 1);
        self.memory.frame_pointer(frame)
    }
}

/// Visits of tables while a GiB in pages of `align` bytes comes online, and while it goes.
fn visits(align: u64, tails: Tails, piece: Piece) -> (u64, u64) {
    let frame = |frame| Pfn::new(frame).unwrap();
    let ram = PfnRange::new(frame(1 << 34), 1 << 16).unwrap();
    let root = ram.last().saturating_add(1 << 10);
    let memory = SimMemory::new(Granule::Size4K, &[ram, PfnRange::single(root)]).unwrap();
    let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
    let mmu = SimMmu::new(vec![SimTlb::new(X86_64Walker::four_level(), &memory, root)]);
    let map = Counting {
        memory: &memory,
        visits: Cell::new(0),
    };
    // SAFETY: 1: simulated memory is zero at first. 2: it has all frames. 3 to 5: one table, one
    // CPU, one root. 6: there is one allocator.
    let mut table =
        unsafe { RadixTable::<FourLevel, _, _, _, _>::new(root, &mmu, &frames, &map, &mmu) };
    // SAFETY: 1 to 3: one memory, one table, one vmemmap.
    let vmemmap = unsafe { Vmemmap::<Page<Mask>, _, _>::new(MODEL_4_LEVEL, &frames, &memory) };
    let mut vmemmap = vmemmap.unwrap();
    let ranges = [PfnRange::from_bytes(PhysAddr::new(GIB), GIB, Granule::Size4K).unwrap()];
    let geometry = Geometry::from_bytes(align, Granule::Size4K).unwrap();
    let pagemap = DevPagemap::new(&MODEL_4_LEVEL, &ranges, geometry).unwrap();
    let pagemap = pagemap.with_tails(tails).with_piece(piece);
    let pagemap = pagemap.with_huge_leaves(false);
    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    let online = map.visits.replace(0);
    vmemmap.offline(&mut table, region).unwrap();
    let offline = map.visits.get();
    assert_eq!(frames.outstanding(), 0);
    (online, offline)
}

#[test]
fn a_page_that_comes_or_goes_costs_no_visit_of_its_tables() {
    // 4096 pages in 8 leaf tables, below 3 others.
    for (align, tails) in [
        (4 << 10, Tails::None),
        (2 * MIB, Tails::PerCompound),
        (2 * MIB, Tails::PerOrder),
        (GIB, Tails::PerCompound),
    ] {
        let (online, offline) = visits(align, tails, Piece::Range);
        assert!(online < 64, "{online}");
        assert!(offline < 64, "{offline}");
        // By section there is a walk for each of the eight, and no more.
        let (online, offline) = visits(align, tails, Piece::Section);
        assert!(online < 256, "{online}");
        assert!(offline < 64, "{offline}");
    }
}
