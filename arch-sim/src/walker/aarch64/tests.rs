//! Tables written by hand, byte by byte, and what the walker reads in them.

use super::super::Scanned;
use super::*;
use crate::memory::SimMemory;
use mm_core::addr::PfnRange;

const WALK_4K: AArch64Walker = AArch64Walker::new(Granule::Size4K);
const WALK_16K: AArch64Walker = AArch64Walker::new(Granule::Size16K);
const WALK_64K: AArch64Walker = AArch64Walker::new(Granule::Size64K);
/// Valid, table.
const LINK: u64 = 0x3;
/// Valid, page, inner shareable, access flag: what boot code writes.
const PAGE: u64 = 0x703;
/// The same, as a block.
const BLOCK: u64 = 0x701;

/// Memory of 64 frames, in which the given words stand.
fn memory(granule: Granule, words: &[(u64, u64)]) -> SimMemory {
    let frames = PfnRange::new(Pfn::ZERO, 64).unwrap();
    let memory = SimMemory::new(granule, &[frames]).unwrap();
    for (at, word) in words {
        memory.write_u64(PhysAddr::new(*at), *word).unwrap();
    }
    memory
}

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

/// Translates by the root in frame 1.
fn translate(walker: AArch64Walker, memory: &SimMemory, at: u64) -> Result<Translation, Hole> {
    walker.translate(memory, pfn(1), VirtAddr::new(at))
}

fn address(walker: AArch64Walker, memory: &SimMemory, at: u64) -> Option<u64> {
    let leaf = translate(walker, memory, at).ok()?;
    Some(leaf.address(VirtAddr::new(at), walker.granule).get())
}

/// Level, frame and start of each table on the way to `at`.
fn tables(walker: AArch64Walker, memory: &SimMemory, at: u64) -> Vec<(u8, u64, u64)> {
    let walk = walker.walk(memory, pfn(1), VirtAddr::new(at));
    let tables = walk.tables.iter();
    tables
        .map(|t| (t.level, t.frame.get(), t.span.start().get()))
        .collect()
}

#[test]
fn a_page_of_4_kib_is_found_through_four_tables() {
    // 0xffff_f800_1234_5678: indices 496, 0, 145, 325.
    let memory = memory(
        Granule::Size4K,
        &[
            (0x1000 + 496 * 8, 0x2000 | LINK),
            (0x2000, 0x3000 | LINK),
            (0x3000 + 145 * 8, 0x4000 | LINK),
            (0x4000 + 325 * 8, 0x0060_0123_4567_8f03),
        ],
    );
    assert_eq!(
        tables(WALK_4K, &memory, 0xffff_f800_1234_5678),
        [
            (4, 1, LOWEST),
            (3, 2, 0xffff_f800_0000_0000),
            (2, 3, 0xffff_f800_0000_0000),
            (1, 4, 0xffff_f800_1220_0000),
        ]
    );
    let leaf = translate(WALK_4K, &memory, 0xffff_f800_1234_5678).unwrap();
    assert_eq!(leaf.frame.get(), 0x1234_5678);
    assert_eq!(leaf.entry.get(), 0x4000 + 325 * 8);
    assert!(!leaf.global && leaf.writable && !leaf.executable);
    assert_eq!(
        address(WALK_4K, &memory, 0xffff_f800_1234_5678),
        Some(0x123_4567_8678)
    );
}

#[test]
fn a_page_of_16_kib_is_found_through_a_root_of_two_entries() {
    // 0xffff_8012_3545_789a: indices 1, 1, 282, 1301; offset 0x389a.
    let memory = memory(
        Granule::Size16K,
        &[
            (0x4008, 0x8000 | LINK),
            (0x8000 + 8, 0xc000 | LINK),
            (0xc000 + 282 * 8, 0x1_0000 | LINK),
            (0x1_0000 + 1301 * 8, 0x0000_fedc_ba98_4000 | PAGE),
        ],
    );
    let at = 0xffff_8012_3545_789a;
    assert_eq!(
        tables(WALK_16K, &memory, at),
        [
            (4, 1, LOWEST),
            (3, 2, 0xffff_8000_0000_0000),
            (2, 3, 0xffff_8010_0000_0000),
            (1, 4, 0xffff_8012_3400_0000),
        ]
    );
    let leaf = translate(WALK_16K, &memory, at).unwrap();
    assert!(leaf.global && leaf.writable && leaf.executable);
    assert_eq!(leaf.span.start().get(), 0xffff_8012_3545_4000);
    assert_eq!(
        address(WALK_16K, &memory, at),
        Some(0x0000_fedc_ba98_4000 + 0x389a)
    );
    // The lower half has the other entry of the root.
    assert!(translate(WALK_16K, &memory, at & !(1 << 47)).is_err());
}

#[test]
fn a_page_of_64_kib_is_found_through_three_tables() {
    // 0xffff_fc00_6543_1234: indices 63, 3, 1347.
    let memory = memory(
        Granule::Size64K,
        &[
            (0x1_0000 + 63 * 8, 0x2_0000 | LINK),
            (0x2_0000 + 3 * 8, 0x3_0000 | LINK),
            (0x3_0000 + 1347 * 8, 0x0000_8765_0001_0000 | PAGE),
        ],
    );
    let at = 0xffff_fc00_6543_1234;
    assert_eq!(
        tables(WALK_64K, &memory, at),
        [
            (3, 1, LOWEST),
            (2, 2, 0xffff_fc00_0000_0000),
            (1, 3, 0xffff_fc00_6000_0000),
        ]
    );
    assert_eq!(address(WALK_64K, &memory, at), Some(0x0000_8765_0001_1234));
}

#[test]
fn blocks_end_the_walk_where_the_granule_has_them() {
    let small = memory(
        Granule::Size4K,
        &[
            (0x1000, 0x2000 | LINK),
            // 1 GiB, with nT.
            (0x2000 + 8, 0x0000_0008_c001_0000 | BLOCK),
            (0x2000 + 16, 0x3000 | LINK),
            // 2 MiB, read-only.
            (0x3000 + 3 * 8, 0x0ea0_0000 | BLOCK | READ_ONLY),
        ],
    );
    let gib = translate(WALK_4K, &small, LOWEST + 0x7fff_ffff).unwrap();
    assert_eq!(gib.order(Granule::Size4K).get(), 18);
    assert_eq!(
        address(WALK_4K, &small, LOWEST + 0x7fff_ffff),
        Some(0x8_ffff_ffff)
    );
    let mib = translate(WALK_4K, &small, LOWEST + 0x8060_0000).unwrap();
    assert_eq!(mib.order(Granule::Size4K).get(), 9);
    assert!(!mib.writable && mib.executable && mib.global);

    // 32 MiB.
    let medium = memory(
        Granule::Size16K,
        &[
            (0x4000, 0x8000 | LINK),
            (0x8000, 0xc000 | LINK),
            (0xc000 + 8, 0x0000_1234_5600_0000 | BLOCK),
        ],
    );
    assert_eq!(
        address(WALK_16K, &medium, LOWEST + 0x3ff_ffff),
        Some(0x1234_57ff_ffff)
    );
    // 512 MiB, with nT.
    let large = memory(
        Granule::Size64K,
        &[
            (0x1_0000, 0x2_0000 | LINK),
            (0x2_0000 + 8, 0x0000_1234_6001_0000 | BLOCK),
        ],
    );
    assert_eq!(
        address(WALK_64K, &large, LOWEST + 0x3fff_ffff),
        Some(0x1234_7fff_ffff)
    );
}

#[test]
fn blocks_where_the_granule_has_none_are_reserved() {
    let kind = |walker, memory: &SimMemory| translate(walker, memory, LOWEST).unwrap_err().kind;
    let reserved = |at| HoleKind::ReservedBits {
        entry: PhysAddr::new(at),
    };
    // The root.
    let words = [(0x1000, BLOCK)];
    assert_eq!(
        kind(WALK_4K, &memory(Granule::Size4K, &words)),
        reserved(0x1000)
    );
    // 16K: level 1 (64 GiB).
    let words = [(0x4000, 0x8000 | LINK), (0x8000, BLOCK)];
    assert_eq!(
        kind(WALK_16K, &memory(Granule::Size16K, &words)),
        reserved(0x8000)
    );
    // 64K: level 1 (4 TiB).
    let words = [(0x1_0000, BLOCK)];
    assert_eq!(
        kind(WALK_64K, &memory(Granule::Size64K, &words)),
        reserved(0x1_0000)
    );
    // The last level.
    let words = [
        (0x1_0000, 0x2_0000 | LINK),
        (0x2_0000, 0x3_0000 | LINK),
        (0x3_0000, BLOCK),
    ];
    assert_eq!(
        kind(WALK_64K, &memory(Granule::Size64K, &words)),
        reserved(0x3_0000)
    );
}

#[test]
fn bits_around_the_address_are_reserved() {
    for (walker, granule, bits) in [
        (WALK_4K, Granule::Size4K, [48, 49].as_slice()),
        (WALK_16K, Granule::Size16K, &[12, 13, 48, 49]),
        (WALK_64K, Granule::Size64K, &[12, 13, 14, 15, 48, 49]),
    ] {
        let page = granule.bytes();
        let levels = u64::from(walker.levels());
        for level in 1..=levels {
            for bit in bits {
                let words: Vec<_> = (1..=levels)
                    .map(|table| {
                        let flags = if table == levels { PAGE } else { LINK };
                        let wrong = u64::from(table == level) << bit;
                        (table * page, ((table + 1) * page) | flags | wrong)
                    })
                    .collect();
                let hole = translate(walker, &memory(granule, &words), LOWEST).unwrap_err();
                let entry = PhysAddr::new(level * page);
                assert_eq!(hole.kind, HoleKind::ReservedBits { entry });
            }
        }
    }
    // Below the address of a block, all but nT.
    for bit in (12..29).filter(|bit| *bit != 16) {
        let words = [(0x1_0000, 0x2_0000 | LINK), (0x2_0000, BLOCK | 1 << bit)];
        let memory = memory(Granule::Size64K, &words);
        let entry = PhysAddr::new(0x2_0000);
        assert_eq!(
            translate(WALK_64K, &memory, LOWEST).unwrap_err().kind,
            HoleKind::ReservedBits { entry }
        );
    }
}

#[test]
fn an_entry_that_is_not_valid_ends_the_walk_whatever_else_it_says() {
    let memory = memory(Granule::Size16K, &[(0x4000, 0x8000 | LINK), (0x8000, !1)]);
    let hole = translate(WALK_16K, &memory, LOWEST + 0x1234).unwrap_err();
    assert_eq!(hole.kind, HoleKind::NotPresent);
    assert_eq!(
        (hole.span.start().get(), hole.span.last().get()),
        (LOWEST, LOWEST + 0xf_ffff_ffff)
    );
}

#[test]
fn a_leaf_without_access_flag_faults() {
    let words = [
        (0x1_0000, 0x2_0000 | LINK),
        (0x2_0000, 0x3_0000 | LINK),
        (0x3_0000, 0x4_0000 | PAGE & !ACCESS_FLAG),
    ];
    let memory = memory(Granule::Size64K, &words);
    assert_eq!(
        translate(WALK_64K, &memory, LOWEST).unwrap_err().kind,
        HoleKind::AccessFlag {
            entry: PhysAddr::new(0x3_0000)
        }
    );
}

#[test]
fn rights_are_those_of_all_levels() {
    let words = [
        (0x1_0000, 0x2_0000 | LINK),
        (0x2_0000, 0x3_0000 | LINK),
        (0x3_0000, 0x4_0000 | PAGE),
    ];
    let with = |table: usize, bits: u64| {
        let mut words = words;
        words[table].1 |= bits;
        let leaf = translate(WALK_64K, &memory(Granule::Size64K, &words), LOWEST).unwrap();
        (leaf.writable, leaf.executable)
    };
    for table in 0..2 {
        assert_eq!(with(table, 1 << 62), (false, true));
        assert_eq!(with(table, 1 << 59), (true, false));
        // EL0's limits, and bits that mean something in leaves only.
        assert_eq!(
            with(table, 1 << 61 | 1 << 60 | 1 << 53 | 1 << 7),
            (true, true)
        );
    }
    assert_eq!(with(2, 1 << 7), (false, true));
    assert_eq!(with(2, 1 << 53), (true, false));
    assert_eq!(with(2, 1 << 54), (true, true));
    // EL0 may write.
    assert_eq!(with(2, 1 << 6), (true, false));
    assert_eq!(with(2, 1 << 6 | 1 << 7), (false, true));
}

#[test]
fn addresses_below_the_region_are_not_translated_and_its_first_and_last_page_are() {
    let last = |granule: Granule| u64::try_from(granule.entries_per_table() - 1).unwrap() * 8;
    let words = [
        (0x1_0000, 0x2_0000 | LINK),
        (0x1_0000 + 63 * 8, 0x2_0000 | LINK),
        (0x2_0000, 0x3_0000 | LINK),
        (0x2_0000 + last(Granule::Size64K), 0x3_0000 | LINK),
        (0x3_0000, 0x4_0000 | PAGE),
        (0x3_0000 + last(Granule::Size64K), 0x5_0000 | PAGE),
    ];
    let memory = memory(Granule::Size64K, &words);
    assert_eq!(address(WALK_64K, &memory, LOWEST), Some(0x4_0000));
    assert_eq!(address(WALK_64K, &memory, u64::MAX), Some(0x5_ffff));
    let hole = translate(WALK_64K, &memory, LOWEST - 1).unwrap_err();
    assert_eq!(hole.kind, HoleKind::NotCanonical);
    assert_eq!(
        (hole.span.start().get(), hole.span.last().get()),
        (0, LOWEST - 1)
    );
    let mut leaves = Vec::new();
    WALK_64K.scan(&memory, pfn(1), ALL, &mut |scanned| {
        if let Scanned::Leaf(leaf) = scanned {
            leaves.push(leaf.span.start().get());
        }
    });
    assert_eq!(leaves.len(), 8);
    assert_eq!(leaves.first(), Some(&LOWEST));
    assert_eq!(leaves.last(), Some(&0xffff_ffff_ffff_0000));
}

#[test]
fn a_table_where_there_is_no_memory_is_a_hole_of_its_own() {
    let memory = memory(Granule::Size16K, &[(0x4000, 0x7fff_c000 | LINK)]);
    let hole = translate(WALK_16K, &memory, LOWEST + (8 << 36)).unwrap_err();
    let entry = PhysAddr::new(0x7fff_c040);
    assert_eq!(hole.kind, HoleKind::NoMemory { entry });
    assert!(memory.violations().is_empty());
}
