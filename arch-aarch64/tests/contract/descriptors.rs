//! Descriptors: the contract of formats, and bits worked out by hand from the Arm ARM ("VMSAv8-64
//! translation table format descriptors").

use crate::machine::{LOWEST, Paging, for_each_granule};
use arch_aarch64::{Format4K, Format16K, Format64K, NORMAL_MEMORY, NORMAL_MEMORY_INDEX};
use conformance::Outcome;
use mm_core::addr::{Block, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};

/// V, P, SH = inner shareable, AF, PXN, UXN, and bit 56 for this library. AttrIndx, AP, nG, DBM are
/// zero.
const PAGE: u64 = 0x0160_0000_0000_0703;
/// The same without P.
const BLOCK: u64 = 0x0160_0000_0000_0701;
/// V, P, AF, bit 56.
const TABLE: u64 = 0x0100_0000_0000_0403;
/// Bit 57.
const TAIL: u64 = 0x0200_0000_0000_0000;
/// AP\[2\].
const READ_ONLY: u64 = 0x80;

const ROLES: [(Role, u64); 3] = [
    (Role::Descriptors, 0),
    (Role::Tail, TAIL),
    (Role::Foreign, 1 << 56),
];

fn leaf(frame: u64, order: u32, role: Role, writable: bool) -> Leaf {
    let order = Order::new(u8::try_from(order).unwrap()).unwrap();
    Leaf {
        block: Block::new(Pfn::new(frame).unwrap(), order).unwrap(),
        role,
        writable,
    }
}

fn last_depth<F: EntryFormat>() -> usize {
    F::LEVELS.len() - 1
}

/// The last frame below 2^48.
fn last_frame<F: EntryFormat>() -> u64 {
    (1 << (48 - F::GRANULE.shift())) - 1
}

/// The depths at which `F` has blocks, with the order of each.
fn blocks<F: EntryFormat>() -> Vec<(usize, u32)> {
    (0..last_depth::<F>())
        .filter(|depth| F::LEVELS[*depth].leaf)
        .map(|depth| (depth, F::LEVELS[depth].shift - F::GRANULE.shift()))
        .collect()
}

for_each_granule! {
    fn the_contract_of_formats_is_kept<F>() {
        conformance::format::run::<F>(&mut |name, outcome| {
            assert_eq!(outcome, Outcome::Passed, "{name}");
        });
    }

    fn pages_and_tables_have_the_bits_of_the_manual<F>() {
        let depth = last_depth::<F>();
        for frame in [0, 1, 0x1234, last_frame::<F>()] {
            let address = frame << F::GRANULE.shift();
            for (role, bits) in ROLES {
                let entry = F::leaf(leaf(frame, 0, role, true), depth);
                assert_eq!(entry, (address | PAGE) ^ bits);
                let entry = F::leaf(leaf(frame, 0, role, false), depth);
                assert_eq!(entry, (address | PAGE | READ_ONLY) ^ bits);
            }
            let frame = Pfn::new(frame).unwrap();
            assert_eq!(F::table(frame, false), address | TABLE);
            assert_eq!(F::table(frame, true), address | TABLE | TAIL);
        }
        // Without V.
        assert_eq!([PAGE, BLOCK, TABLE].map(F::invalidated), [PAGE - 1, BLOCK - 1, TABLE - 1]);
        assert_eq!((F::OWNED, F::TAIL), (1 << 56, TAIL));
        // The access flag, and nothing else.
        assert_eq!((F::STATUS_BITS, F::LAST_FRAME.get()), (0x400, last_frame::<F>()));
    }

    fn blocks_have_the_bits_of_the_manual<F>() {
        for (depth, order) in blocks::<F>() {
            for number in [0, 1, last_frame::<F>() >> order] {
                let frame = number << order;
                for (role, bits) in ROLES {
                    let block = leaf(frame, order, role, true);
                    let entry = F::leaf(block, depth);
                    assert_eq!(entry, (frame << F::GRANULE.shift() | BLOCK) ^ bits);
                    // nT says nothing about where the block is.
                    assert_eq!(F::decode(entry | 1 << 16, depth), Entry::Leaf(block));
                }
            }
        }
    }

    fn what_this_library_cannot_read_is_reserved<F>() {
        let last = last_depth::<F>();
        for depth in 0..=last {
            // 0b01 where there are no blocks.
            if depth == last || !F::LEVELS[depth].leaf {
                assert_eq!(F::decode(BLOCK, depth), Entry::Reserved);
                assert_eq!(F::decode(BLOCK & !1, depth), Entry::Reserved);
            }
            // Upper address bits that this crate does not use: FEAT_LPA2's bits 48 and 49,
            // FEAT_LPA's 12 to 15.
            for bit in (12..F::GRANULE.shift()).chain([48, 49]) {
                for entry in [PAGE, TABLE, TABLE ^ 1 << 56] {
                    assert_eq!(F::decode(entry | 1 << bit, depth), Entry::Reserved);
                }
            }
        }
        for (depth, order) in blocks::<F>() {
            for bit in (12..F::GRANULE.shift() + order).filter(|bit| *bit != 16) {
                assert_eq!(F::decode(BLOCK | 1 << bit, depth), Entry::Reserved);
            }
        }
    }

    fn attributes_of_foreign_entries_do_not_hide_where_they_point<F>() {
        let page = leaf(5, 0, Role::Foreign, true);
        let entry = 5 << F::GRANULE.shift() | (PAGE ^ 1 << 56);
        // AttrIndx, NS, AP[1], SH, AF, nG; GP, DBM, contiguous, PXN, UXN; software's 55 and 58,
        // PBHA, 63.
        for bit in (2..=6).chain(8..=11).chain(50..=55).chain(58..=63) {
            assert_eq!(F::decode(entry ^ 1 << bit, last_depth::<F>()), Entry::Leaf(page));
        }
        let table = Entry::Table {
            frame: Pfn::new(5).unwrap(),
            link: Link::Foreign,
        };
        let entry = 5 << F::GRANULE.shift() | 0x3;
        for bit in (2..=11).chain(50..=55).chain(57..=63) {
            assert_eq!(F::decode(entry ^ 1 << bit, 0), table);
        }
    }

    fn the_region_is_that_of_ttbr1<F>() {
        let translated = [LOWEST - 1, LOWEST].map(|at| F::translates(VirtAddr::new(at)));
        assert_eq!(translated, [false, true]);
    }
}

#[test]
fn levels_index_the_bits_of_the_manual_and_have_blocks_where_the_granule_has_them() {
    let bits = |level: &Level| (level.shift + level.index_bits - 1, level.shift);
    let levels = |levels: &[Level]| levels.iter().map(bits).collect::<Vec<_>>();
    assert_eq!(
        levels(Format4K::LEVELS),
        [(47, 39), (38, 30), (29, 21), (20, 12)]
    );
    assert_eq!(
        levels(Format16K::LEVELS),
        [(47, 47), (46, 36), (35, 25), (24, 14)]
    );
    assert_eq!(levels(Format64K::LEVELS), [(47, 42), (41, 29), (28, 16)]);
    // Level 1 and 2; 1 GiB and 2 MiB.
    assert_eq!(blocks::<Format4K>(), [(1, 18), (2, 9)]);
    // Level 2; 32 MiB.
    assert_eq!(blocks::<Format16K>(), [(2, 11)]);
    // Level 2; 512 MiB.
    assert_eq!(blocks::<Format64K>(), [(1, 13)]);
    assert_eq!((NORMAL_MEMORY_INDEX, NORMAL_MEMORY.0), (0, 0xff));
}
