//! Tables written by hand, byte by byte, and what the walker reads in them.

use super::super::Scanned;
use super::*;
use crate::memory::SimMemory;
use mm_core::addr::PfnRange;

const SV39: RiscV64Walker = RiscV64Walker::sv39();
const SV48: RiscV64Walker = RiscV64Walker::sv48();
const SV57: RiscV64Walker = RiscV64Walker::sv57();
/// V.
const LINK: u64 = 0x1;
/// V, R, W, A, D: what boot code writes.
const PAGE: u64 = 0xc7;

/// Memory of 64 frames, in which the given words stand.
fn memory(words: &[(u64, u64)]) -> SimMemory {
    let frames = PfnRange::new(Pfn::ZERO, 64).unwrap();
    let memory = SimMemory::new(Granule::Size4K, &[frames]).unwrap();
    for (at, word) in words {
        memory.write_u64(PhysAddr::new(*at), *word).unwrap();
    }
    memory
}

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

/// Translates by the root in frame 1.
fn translate(walker: RiscV64Walker, memory: &SimMemory, at: u64) -> Result<Translation, Hole> {
    walker.translate(memory, pfn(1), VirtAddr::new(at))
}

fn address(walker: RiscV64Walker, memory: &SimMemory, at: u64) -> Option<u64> {
    let leaf = translate(walker, memory, at).ok()?;
    Some(leaf.address(VirtAddr::new(at), Granule::Size4K).get())
}

/// Why there is no translation for the first address, by tables in frames 1 to 3 of which the last has `entry`.
fn hole_of(entry: u64) -> Option<HoleKind> {
    let words = [
        (0x1000, 2 << 10 | LINK),
        (0x2000, 3 << 10 | LINK),
        (0x3000, entry),
    ];
    translate(SV39, &memory(&words), 0)
        .err()
        .map(|hole| hole.kind)
}

#[test]
fn a_page_is_found_through_three_four_and_five_tables() {
    // 0xffff_ffc7_1234_5678 in Sv39: indices 284, 145, 325.
    let words = [
        (0x1000 + 284 * 8, 2 << 10 | LINK),
        (0x2000 + 145 * 8, 3 << 10 | LINK),
        // Frame 0x123_4567_8901, read-only, G.
        (0x3000 + 325 * 8, 0x123_4567_8901 << 10 | 0x63),
    ];
    let leaf = translate(SV39, &memory(&words), 0xffff_ffc7_1234_5678).unwrap();
    assert_eq!(leaf.frame.get(), 0x123_4567_8901);
    assert_eq!(leaf.entry.get(), 0x3000 + 325 * 8);
    assert!(leaf.global && !leaf.writable && !leaf.executable);

    // 0xffff_8d80_1234_5678 in Sv48: indices 283, 0, 145, 325.
    let words = [
        (0x1000 + 283 * 8, 2 << 10 | LINK),
        (0x2000, 3 << 10 | LINK),
        (0x3000 + 145 * 8, 4 << 10 | LINK),
        (0x4000 + 325 * 8, 0x1234 << 10 | PAGE | 1 << 3),
    ];
    let leaf = translate(SV48, &memory(&words), 0xffff_8d80_1234_5678).unwrap();
    assert!(!leaf.global && leaf.writable && leaf.executable);
    assert_eq!(
        address(SV48, &memory(&words), 0xffff_8d80_1234_5678),
        Some(0x123_4678)
    );

    // 0xff1c_0000_1234_5678 in Sv57: indices 284, 0, 0, 145, 325.
    let words = [
        (0x1000 + 284 * 8, 2 << 10 | LINK),
        (0x2000, 3 << 10 | LINK),
        (0x3000, 4 << 10 | LINK),
        (0x4000 + 145 * 8, 5 << 10 | LINK),
        (0x5000 + 325 * 8, 0x1234 << 10 | PAGE),
    ];
    let memory = memory(&words);
    assert_eq!(
        address(SV57, &memory, 0xff1c_0000_1234_5678),
        Some(0x123_4678)
    );
    let walk = SV57.walk(&memory, pfn(1), VirtAddr::new(0xff1c_0000_1234_5678));
    let tables = walk.tables.iter();
    let tables: Vec<_> = tables
        .map(|table| (table.level, table.frame.get(), table.span.start().get()))
        .collect();
    assert_eq!(
        tables,
        [
            (5, 1, 0xff00_0000_0000_0000),
            (4, 2, 0xff1c_0000_0000_0000),
            (3, 3, 0xff1c_0000_0000_0000),
            (2, 4, 0xff1c_0000_0000_0000),
            (1, 5, 0xff1c_0000_1220_0000),
        ]
    );
}

#[test]
fn leaves_end_the_walk_at_any_level_and_are_aligned_to_their_size() {
    for (walker, level) in [(SV39, 2), (SV39, 3), (SV48, 4), (SV57, 5)] {
        let levels = u64::from(walker.levels());
        let order = 9 * (level - 1);
        let last_table = levels - level + 1;
        let with = |frame: u64| {
            let words: Vec<_> = (1..=last_table)
                .map(|table| match table == last_table {
                    true => (table * 0x1000, frame << 10 | PAGE),
                    false => (table * 0x1000, (table + 1) << 10 | LINK),
                })
                .collect();
            memory(&words)
        };
        let leaf = translate(walker, &with(3 << order), 0x1234).unwrap();
        assert_eq!(u64::from(leaf.order(Granule::Size4K).get()), order);
        assert_eq!(
            address(walker, &with(3 << order), 0x1234),
            Some((3 << order << 12) + 0x1234)
        );
        for bit in 0..order {
            let hole = translate(walker, &with(3 << order | 1 << bit), 0x1234);
            let entry = PhysAddr::new(last_table * 0x1000);
            assert_eq!(hole.unwrap_err().kind, HoleKind::ReservedBits { entry });
        }
    }
}

#[test]
fn what_is_reserved_faults() {
    let entry = PhysAddr::new(0x3000);
    let reserved = Some(HoleKind::ReservedBits { entry });
    // Bits 54 to 60, PBMT, and N without the bit that says how large.
    for bit in (54..=62).chain([63]) {
        assert_eq!(hole_of(16 << 10 | PAGE | 1 << bit), reserved, "{bit}");
    }
    // W without R; a link where there are leaves.
    assert_eq!(hole_of(PAGE & !READ), reserved);
    assert_eq!(hole_of(4 << 10 | LINK), reserved);
    // In a link: U, A, D, and what is above the frame.
    for bit in [4, 6, 7].into_iter().chain(54..=63) {
        let words = [(0x1000, 2 << 10 | LINK | 1 << bit)];
        let entry = PhysAddr::new(0x1000);
        assert_eq!(
            translate(SV39, &memory(&words), 0).unwrap_err().kind,
            HoleKind::ReservedBits { entry },
            "{bit}"
        );
    }
}

#[test]
fn an_entry_that_is_not_valid_ends_the_walk_whatever_else_it_says() {
    let memory = memory(&[(0x1000, 2 << 10 | LINK), (0x2000, !1)]);
    let hole = translate(SV39, &memory, 0x1234).unwrap_err();
    assert_eq!(hole.kind, HoleKind::NotPresent);
    assert_eq!(
        (hole.span.start().get(), hole.span.last().get()),
        (0, 0x1f_ffff)
    );
}

#[test]
fn a_and_d_are_nobody_elses_to_set() {
    let entry = PhysAddr::new(0x3000);
    assert_eq!(
        hole_of(PAGE & !ACCESSED),
        Some(HoleKind::AccessFlag { entry })
    );
    let words = [
        (0x1000, 2 << 10 | LINK),
        (0x2000, 3 << 10 | LINK),
        (0x3000, PAGE & !DIRTY),
    ];
    assert!(!translate(SV39, &memory(&words), 0).unwrap().writable);
}

#[test]
fn what_is_for_user_mode_or_for_fetches_only_is_not_read() {
    let entry = PhysAddr::new(0x3000);
    for bits in [PAGE | USER, VALID | EXECUTE | ACCESSED] {
        assert_eq!(hole_of(bits), Some(HoleKind::NotAllowed { entry }));
    }
}

#[test]
fn sixteen_pages_are_one_leaf_by_svnapot() {
    let entry = |frame: u64| frame << 10 | PAGE | NAPOT;
    let mut words = vec![(0x1000, 2 << 10 | LINK), (0x2000, 3 << 10 | LINK)];
    words.extend((16..32).map(|index| (0x3000 + index * 8, entry(0x4560 | 8))));
    let memory = memory(&words);
    for page in 16..32 {
        let leaf = translate(SV39, &memory, page << 12).unwrap();
        assert_eq!(leaf.span.start().get(), 0x1_0000);
        assert_eq!(leaf.order(Granule::Size4K).get(), 4);
        assert_eq!(
            address(SV39, &memory, (page << 12) + 5),
            Some(((0x4560 + page - 16) << 12) + 5)
        );
    }
    let mut seen = 0;
    SV39.scan(&memory, pfn(1), ALL, &mut |scanned| {
        seen += u64::from(matches!(scanned, Scanned::Leaf(_)));
    });
    assert_eq!(seen, 1);
    // Other sizes are reserved.
    let reserved = PhysAddr::new(0x3000);
    for low in (0..16).filter(|low| *low != 8) {
        assert_eq!(
            hole_of(entry(0x4560 | low)),
            Some(HoleKind::ReservedBits { entry: reserved })
        );
    }
}

#[test]
fn addresses_between_the_halves_are_not_translated() {
    for (walker, half) in [(SV39, 1_u64 << 38), (SV48, 1 << 47), (SV57, 1 << 56)] {
        let memory = memory(&[]);
        let kind = |at| translate(walker, &memory, at).unwrap_err().kind;
        assert_eq!(
            [half - 1, half, half.wrapping_neg() - 1, half.wrapping_neg()].map(kind),
            [
                HoleKind::NotPresent,
                HoleKind::NotCanonical,
                HoleKind::NotCanonical,
                HoleKind::NotPresent
            ]
        );
    }
}

#[test]
fn a_table_where_there_is_no_memory_is_a_hole_of_its_own() {
    let memory = memory(&[(0x1000, 0x7_fff0 << 10 | LINK)]);
    let hole = translate(SV39, &memory, 8 << 21).unwrap_err();
    let entry = PhysAddr::new(0x7fff_0040);
    assert_eq!(hole.kind, HoleKind::NoMemory { entry });
    assert!(memory.violations().is_empty());
}
