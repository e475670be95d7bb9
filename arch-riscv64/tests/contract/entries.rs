//! Entries: the contract of formats, and bits worked out by hand from the privileged manual (4.4.1).

use crate::machine::for_each_mode;
use arch_riscv64::{Sv39, Sv48, Sv57};
use conformance::Outcome;
use mm_core::addr::{Block, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};

/// V, R, G, A, and bit 8 for this library.
const READ_ONLY: u64 = 0x163;
/// W and D.
const WRITABLE: u64 = 0x84;
/// V, bit 8.
const TABLE: u64 = 0x101;
/// Bit 9.
const TAIL: u64 = 0x200;

const ROLES: [(Role, u64); 3] = [
    (Role::Descriptors, 0),
    (Role::Tail, TAIL),
    (Role::Foreign, 0x100),
];

const LAST_FRAME: u64 = (1 << 44) - 1;

fn leaf(frame: u64, order: u8, role: Role, writable: bool) -> Leaf {
    let block = Block::new(Pfn::new(frame).unwrap(), Order::new(order).unwrap()).unwrap();
    Leaf {
        block,
        role,
        writable,
    }
}

fn last_depth<F: EntryFormat>() -> usize {
    F::LEVELS.len() - 1
}

for_each_mode! {
    fn the_contract_of_formats_is_kept<F>() {
        conformance::format::run::<F>(&mut |name, outcome| {
            assert_eq!(outcome, Outcome::Passed, "{name}");
        });
    }

    fn entries_have_the_bits_of_the_manual<F>() {
        let last = last_depth::<F>();
        for (depth, order) in [(last, 0), (last - 1, 9)] {
            for number in [0, 1, 0x1234, LAST_FRAME >> order] {
                let frame = number << order;
                for (role, bits) in ROLES {
                    let read_only = F::leaf(leaf(frame, order, role, false), depth);
                    assert_eq!(read_only, (frame << 10 | READ_ONLY) ^ bits);
                    let writable = F::leaf(leaf(frame, order, role, true), depth);
                    assert_eq!(writable, read_only | WRITABLE);
                }
                let frame = Pfn::new(number).unwrap();
                assert_eq!(F::table(frame, false), number << 10 | TABLE);
                assert_eq!(F::table(frame, true), number << 10 | TABLE | TAIL);
            }
        }
        // Without V.
        assert_eq!([READ_ONLY, TABLE].map(F::invalidated), [READ_ONLY - 1, TABLE - 1]);
        assert_eq!((F::OWNED, F::TAIL), (0x100, TAIL));
        // A and D.
        assert_eq!((F::STATUS_BITS, F::LAST_FRAME.get()), (0xc0, LAST_FRAME));
    }

    fn somebody_elses_leaf_is_read_at_any_level<F>() {
        for depth in 0..F::LEVELS.len() {
            let order = 9 * (last_depth::<F>() - depth) as u8;
            let frame = 3 << order;
            // V, and R, W or X, with G, U and D as they may be.
            for bits in [0x43, 0xc7, 0x4b, 0x49, 0xef, 0x53] {
                let foreign = leaf(frame, order, Role::Foreign, bits & 4 != 0);
                assert_eq!(F::decode(frame << 10 | bits, depth), Entry::Leaf(foreign));
                // Not a multiple of its size.
                for bit in 0..order {
                    let entry = (frame | 1 << bit) << 10 | bits;
                    assert_eq!(F::decode(entry, depth), Entry::Reserved);
                }
            }
        }
    }

    // Table 5.1 of the manual: of all encodings with N, one is defined, 64 KiB at the last level.
    fn svnapot_has_one_size_and_all_others_are_reserved<F>() {
        let last = last_depth::<F>();
        let napot = |number: u64, bits: u64| 1 << 63 | number << 10 | bits;
        for depth in 0..=last {
            for low in 0..16 {
                // Frames of whole superpages, so that N alone decides.
                let number = 3 << (9 * (last - depth).max(1)) | low;
                for bits in [0x43, 0xc7, 0xef] {
                    let is_defined = depth == last && low == 8;
                    let entry = F::decode(napot(number, bits), depth);
                    assert_eq!(matches!(entry, Entry::Leaf(_)), is_defined, "{depth} {low}");
                    assert_eq!(entry == Entry::Reserved, !is_defined, "{depth} {low}");
                    let page = |index: u64| F::leaf_at(napot(number, bits), VirtAddr::new(index << 12));
                    if depth == last {
                        for index in 0..32 {
                            let frame = (number & !15) | (index & 15);
                            let seen = is_defined.then(|| leaf(frame, 0, Role::Foreign, bits & 4 != 0));
                            assert_eq!(page(index), seen, "{low} {index}");
                        }
                    }
                    // None is this library's, valid or not.
                    for owned in [bits | 0x100, bits ^ 1 | 0x100] {
                        assert_eq!(F::decode(napot(number, owned), depth), Entry::Reserved);
                    }
                }
            }
        }
    }

    fn what_is_reserved_is_reserved<F>() {
        let last = last_depth::<F>();
        for owned in [0, 0x100] {
            for depth in 0..=last {
                // Bits 54 to 60; W without R.
                for bit in 54..=60 {
                    for entry in [0x43, 0x1] {
                        assert_eq!(F::decode(entry | owned | 1 << bit, depth), Entry::Reserved);
                    }
                }
                assert_eq!(F::decode(0xc5 | owned, depth), Entry::Reserved);
                // In a link: U, PBMT, N.
                for bit in [4, 61, 62, 63] {
                    assert_eq!(F::decode(0x1 | owned | 1 << bit, depth), Entry::Reserved);
                }
            }
            // A link where there are leaves.
            assert_eq!(F::decode(0x1 | owned, last), Entry::Reserved);
        }
        // A note in an entry that is not valid.
        assert_eq!(F::decode(0x1234_5602, last), Entry::Reserved);
        let link = Entry::Table { frame: Pfn::new(5).unwrap(), link: Link::Foreign };
        assert_eq!(F::decode(5 << 10 | 0x1, 0), link);
        // G of a link is of all below it.
        assert_eq!(F::decode(5 << 10 | 0x21, 0), link);
    }
}

#[test]
fn levels_index_the_bits_of_the_manual() {
    let bits = |level: &Level| (level.shift + level.index_bits - 1, level.shift);
    let levels = |levels: &[Level]| levels.iter().map(bits).collect::<Vec<_>>();
    assert_eq!(levels(Sv39::LEVELS), [(38, 30), (29, 21), (20, 12)]);
    assert_eq!(
        levels(Sv48::LEVELS),
        [(47, 39), (38, 30), (29, 21), (20, 12)]
    );
    assert_eq!(
        levels(Sv57::LEVELS),
        [(56, 48), (47, 39), (38, 30), (29, 21), (20, 12)]
    );
}

#[test]
fn addresses_are_those_whose_upper_bits_are_alike() {
    fn translated<F: EntryFormat>(bits: u32) {
        let half = 1_u64 << (bits - 1);
        let ends = [half - 1, half, !half, !(half - 1), u64::MAX];
        assert_eq!(
            ends.map(|at| F::translates(VirtAddr::new(at))),
            [true, false, false, true, true]
        );
    }
    translated::<Sv39>(39);
    translated::<Sv48>(48);
    translated::<Sv57>(57);
}
