//! Descriptors, bit by bit, against constants worked out by hand from the Arm ARM ("VMSAv8-64
//! translation table format descriptors").
use arch_aarch64::{Format4K, Format16K, Format64K, NORMAL_MEMORY, NORMAL_MEMORY_INDEX};
use mm_core::addr::{Block, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Link, Role};

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

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

fn leaf(frame: u64, order: u32, role: Role, writable: bool) -> Leaf {
    let order = Order::new(u8::try_from(order).unwrap()).unwrap();
    Leaf {
        block: Block::new(pfn(frame), order).unwrap(),
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

fn pages_have_the_bits_of_the_manual<F: EntryFormat>() {
    let depth = last_depth::<F>();
    for frame in [0, 1, 0x1234, last_frame::<F>()] {
        for (role, bits) in ROLES {
            let address = frame << F::GRANULE.shift();
            let writable = leaf(frame, 0, role, true);
            assert_eq!(F::leaf(writable, depth), (address | PAGE) ^ bits);
            let read_only = leaf(frame, 0, role, false);
            let entry = F::leaf(read_only, depth);
            assert_eq!(entry, (address | PAGE | READ_ONLY) ^ bits);
            assert_eq!(F::decode(entry, depth), Entry::Leaf(read_only));
        }
        let link = F::table(pfn(frame), false);
        assert_eq!(link, frame << F::GRANULE.shift() | TABLE);
        let table = Entry::Table {
            frame: pfn(frame),
            link: Link::Private,
        };
        (0..depth).for_each(|depth| assert_eq!(F::decode(link, depth), table));
    }
}

#[test]
fn pages_and_tables_have_the_bits_of_the_manual() {
    pages_have_the_bits_of_the_manual::<Format4K>();
    pages_have_the_bits_of_the_manual::<Format16K>();
    pages_have_the_bits_of_the_manual::<Format64K>();
    assert_eq!((NORMAL_MEMORY_INDEX, NORMAL_MEMORY.0), (0, 0xff));
}

fn blocks_have_the_bits_of_the_manual<F: EntryFormat>() {
    for (depth, order) in blocks::<F>() {
        for number in [0, 1, last_frame::<F>() >> order] {
            let frame = number << order;
            for (role, bits) in ROLES {
                let block = leaf(frame, order, role, true);
                let entry = F::leaf(block, depth);
                assert_eq!(entry, (frame << F::GRANULE.shift() | BLOCK) ^ bits);
                assert_eq!(F::decode(entry, depth), Entry::Leaf(block));
                // nT says nothing about where the block is.
                assert_eq!(F::decode(entry | 1 << 16, depth), Entry::Leaf(block));
            }
        }
    }
}

#[test]
fn blocks_have_the_bits_of_the_manual_and_exist_where_the_granule_has_them() {
    blocks_have_the_bits_of_the_manual::<Format4K>();
    blocks_have_the_bits_of_the_manual::<Format16K>();
    blocks_have_the_bits_of_the_manual::<Format64K>();
    // Level 1 and 2; 1 GiB and 2 MiB.
    assert_eq!(blocks::<Format4K>(), [(1, 18), (2, 9)]);
    // Level 2; 32 MiB.
    assert_eq!(blocks::<Format16K>(), [(2, 11)]);
    // Level 2; 512 MiB.
    assert_eq!(blocks::<Format64K>(), [(1, 13)]);
}

#[test]
fn levels_index_the_bits_of_the_manual() {
    let levels = |levels: &[mm_core::paging::Level]| -> Vec<(u32, u32)> {
        let bits = levels
            .iter()
            .map(|level| (level.shift + level.index_bits - 1, level.shift));
        bits.collect()
    };
    assert_eq!(
        levels(Format4K::LEVELS),
        [(47, 39), (38, 30), (29, 21), (20, 12)]
    );
    assert_eq!(
        levels(Format16K::LEVELS),
        [(47, 47), (46, 36), (35, 25), (24, 14)]
    );
    assert_eq!(levels(Format64K::LEVELS), [(47, 42), (41, 29), (28, 16)]);
}

fn invalid_entries_remember<F: EntryFormat>() {
    let depth = last_depth::<F>();
    let frame = last_frame::<F>();
    for role in [Role::Descriptors, Role::Tail] {
        let page = leaf(frame, 0, role, false);
        let entry = F::invalidated(F::leaf(page, depth));
        assert_eq!(entry & 1, 0);
        assert_eq!(F::decode(entry, depth), Entry::InvalidLeaf(page));
        for (depth, order) in blocks::<F>() {
            let block = leaf(frame >> order << order, order, role, true);
            let entry = F::invalidated(F::leaf(block, depth));
            assert_eq!(entry & 1, 0);
            assert_eq!(F::decode(entry, depth), Entry::InvalidLeaf(block));
        }
    }
    let entry = F::invalidated(F::table(pfn(frame), false));
    assert_eq!(entry & 1, 0);
    for depth in 0..depth {
        let frame = pfn(frame);
        assert_eq!(F::decode(entry, depth), Entry::InvalidTable { frame });
    }
}

#[test]
fn an_invalidated_entry_remembers_what_it_was_and_is_not_valid() {
    invalid_entries_remember::<Format4K>();
    invalid_entries_remember::<Format16K>();
    invalid_entries_remember::<Format64K>();
}

fn what_cannot_be_read_is_reserved<F: EntryFormat>() {
    let last = last_depth::<F>();
    for depth in 0..=last {
        assert_eq!(F::decode(0, depth), Entry::Free);
        // Somebody's note in an invalid entry.
        for bit in (1..64).filter(|bit| *bit != 56) {
            assert_eq!(F::decode(1 << bit, depth), Entry::Reserved, "bit {bit}");
        }
        // 0b01 where there are no blocks.
        if depth == last || !F::LEVELS[depth].leaf {
            assert_eq!(F::decode(BLOCK, depth), Entry::Reserved);
            assert_eq!(F::decode(BLOCK & !1, depth), Entry::Reserved);
        }
        // Upper address bits that this crate does not use: FEAT_LPA2's bits 48 and 49, FEAT_LPA's
        // 12 to 15.
        let below = (12..F::GRANULE.shift()).chain([48, 49]);
        for bit in below {
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

#[test]
fn what_this_library_cannot_read_is_reserved_and_only_zero_is_free() {
    what_cannot_be_read_is_reserved::<Format4K>();
    what_cannot_be_read_is_reserved::<Format16K>();
    what_cannot_be_read_is_reserved::<Format64K>();
}

fn ignored_bits_say_nothing<F: EntryFormat>() {
    let depth = last_depth::<F>();
    let page = leaf(5, 0, Role::Foreign, true);
    let entry = 5 << F::GRANULE.shift() | (PAGE ^ 1 << 56);
    // AttrIndx, NS, AP[1], SH, AF, nG; GP, DBM, contiguous, PXN, UXN; software's 55 and 58, PBHA,
    // 63.
    for bit in [2, 3, 4, 5, 6, 8, 9, 10, 11]
        .into_iter()
        .chain(50..=55)
        .chain(58..=63)
    {
        assert_eq!(F::decode(entry ^ 1 << bit, depth), Entry::Leaf(page));
    }
    let table = Entry::Table {
        frame: pfn(5),
        link: Link::Foreign,
    };
    let entry = 5 << F::GRANULE.shift() | 0x3;
    for bit in (2..=11).chain(50..=55).chain(57..=63) {
        assert_eq!(F::decode(entry ^ 1 << bit, 0), table);
    }
}

#[test]
fn attributes_of_foreign_entries_do_not_hide_where_they_point() {
    ignored_bits_say_nothing::<Format4K>();
    ignored_bits_say_nothing::<Format16K>();
    ignored_bits_say_nothing::<Format64K>();
}

fn one_step_is_one_frame<F: EntryFormat>() {
    let depth = last_depth::<F>();
    for frame in [0, 7, last_frame::<F>() - 1] {
        for role in [Role::Descriptors, Role::Tail] {
            let entry = F::leaf(leaf(frame, 0, role, true), depth);
            let next = F::leaf(leaf(frame + 1, 0, role, true), depth);
            assert_eq!(entry + F::FRAME_STEP, next);
        }
    }
    // Behind the last frame the carry does not reach a bit of this library's.
    let last = F::leaf(leaf(last_frame::<F>(), 0, Role::Descriptors, true), depth);
    assert_eq!((last + F::FRAME_STEP) & (3 << 56), 1 << 56);
    assert_eq!(F::decode(last + F::FRAME_STEP, depth), Entry::Reserved);
    // The access flag, and nothing else.
    assert_eq!(F::STATUS_BITS, 0x400);
}

#[test]
fn one_step_is_one_frame_up_to_the_last() {
    one_step_is_one_frame::<Format4K>();
    one_step_is_one_frame::<Format16K>();
    one_step_is_one_frame::<Format64K>();
}

fn the_region_is_that_of_ttbr1<F: EntryFormat>() {
    let translates = |at| F::translates(VirtAddr::new(at));
    assert!(translates(0xffff_0000_0000_0000));
    assert!(translates(u64::MAX));
    assert!(!translates(0xfffe_ffff_ffff_ffff));
    assert!(!translates(0x0000_ffff_ffff_ffff));
    assert!(!translates(0));
}

#[test]
fn the_region_is_that_of_ttbr1_at_both_ends() {
    the_region_is_that_of_ttbr1::<Format4K>();
    the_region_is_that_of_ttbr1::<Format16K>();
    the_region_is_that_of_ttbr1::<Format64K>();
}
