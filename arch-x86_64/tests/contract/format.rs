//! The contract of `EntryFormat`, bit by bit.

use crate::machine::{HUGE, Paging, for_both_formats};
use arch_x86_64::{OWNED, TAIL};
use mm_core::addr::{Block, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, Leaf, Link, Role};
use x86_64::structures::paging::PageTableFlags as Flags;

const GIANT: Order = Order::new(18).unwrap();

fn block(first: u64, order: Order) -> Block {
    Block::new(Pfn::new(first).unwrap(), order).unwrap()
}

fn own_leaves(order: Order) -> impl Iterator<Item = Leaf> {
    let last = (1 << 40) - order.frames();
    let firsts = [0, order.frames(), last];
    firsts.into_iter().flat_map(move |first| {
        [Role::Descriptors, Role::Tail]
            .into_iter()
            .flat_map(move |role| {
                [true, false].map(|writable| Leaf {
                    block: block(first, order),
                    role,
                    writable,
                })
            })
    })
}

for_both_formats! {
    fn what_is_entered_is_read_back_whatever_the_hardware_has_set<F>() {
        let leaf_depth = F::LEVELS.len() - 1;
        for (depth, order) in [(leaf_depth, Order::BASE), (leaf_depth - 1, HUGE)] {
            for leaf in own_leaves(order) {
                let entry = F::leaf(leaf, depth);
                assert_ne!(F::invalidated(entry), 0);
                for status in [0, Flags::ACCESSED.bits(), Flags::DIRTY.bits(), F::STATUS_BITS] {
                    let entry = entry & !F::STATUS_BITS | status;
                    assert_eq!(F::decode(entry, depth), Entry::Leaf(leaf));
                    let invalid = F::invalidated(entry);
                    assert_eq!(invalid, entry & !1);
                    assert_eq!(F::decode(invalid, depth), Entry::InvalidLeaf(leaf));
                }
            }
        }
        for depth in 0..leaf_depth {
            for frame in [0, 1, (1 << 40) - 1].map(|frame| Pfn::new(frame).unwrap()) {
                for (shared, link) in [(false, Link::Private), (true, Link::Shared)] {
                    let entry = F::table(frame, shared);
                    assert_eq!(F::decode(entry, depth), Entry::Table { frame, link });
                    let invalid = F::invalidated(entry);
                    assert_eq!(F::decode(invalid, depth), Entry::InvalidTable { frame });
                    let foreign = entry & !OWNED.bits();
                    let link = Link::Foreign;
                    assert_eq!(F::decode(foreign, depth), Entry::Table { frame, link });
                }
            }
        }
    }

    fn bits_are_where_the_manual_has_them<F>() {
        let leaf_depth = F::LEVELS.len() - 1;
        let mut leaf = Leaf::single(Pfn::new(0xab_cdef_0123).unwrap(), Role::Descriptors);
        assert_eq!(F::leaf(leaf, leaf_depth), 0x810a_bcde_f012_3163);
        leaf.role = Role::Tail;
        leaf.writable = false;
        assert_eq!(F::leaf(leaf, leaf_depth), 0x830a_bcde_f012_3121);
        leaf.block = block(0xab_cdef_0000, HUGE);
        assert_eq!(F::leaf(leaf, leaf_depth - 1), 0x830a_bcde_f000_01a1);
        let table = Pfn::new(0x123).unwrap();
        assert_eq!(F::table(table, false), 0x0100_0000_0012_3023);
        assert_eq!(F::table(table, true), 0x0300_0000_0012_3023);
    }

    fn only_zero_is_free<F>() {
        for depth in 0..F::LEVELS.len() {
            assert_eq!(F::decode(0, depth), Entry::Free);
            for bit in 0..64 {
                assert_ne!(F::decode(1 << bit, depth), Entry::Free);
            }
        }
    }

    fn what_others_keep_in_entries_that_are_not_present_is_reserved<F>() {
        for depth in 0..F::LEVELS.len() {
            for entry in [2, 0x1000, TAIL.bits(), !(OWNED | Flags::PRESENT).bits()] {
                assert_eq!(F::decode(entry, depth), Entry::Reserved);
            }
        }
    }

    fn leaves_of_others_are_foreign_at_every_size<F>() {
        let leaf_depth = F::LEVELS.len() - 1;
        let foreign = |first, order| Entry::Leaf(Leaf {
            block: block(first, order),
            role: Role::Foreign,
            writable: true,
        });
        // Bit 7 of a base page and bit 12 of a huge leaf belong to the memory type.
        assert_eq!(F::decode(0x1083, leaf_depth), foreign(1, Order::BASE));
        assert_eq!(F::decode(0x20_1083, leaf_depth - 1), foreign(0x200, HUGE));
        assert_eq!(F::decode(0x4000_1083, leaf_depth - 2), foreign(0x4_0000, GIANT));
        // A protection key and the bits that this crate leaves alone do not make it ours.
        let others = !(Flags::NO_EXECUTE | OWNED | TAIL).bits() & (!0 << 52);
        assert_eq!(F::decode(0x1083 | others, leaf_depth), foreign(1, Order::BASE));
    }

    fn what_the_mmu_would_fault_on_is_reserved<F>() {
        let leaf_depth = F::LEVELS.len() - 1;
        // Addresses that are not aligned to the leaf.
        assert_eq!(F::decode(0x20_2083, leaf_depth - 1), Entry::Reserved);
        assert_eq!(F::decode(0x20_0083, leaf_depth - 2), Entry::Reserved);
        // PS where there is no such leaf.
        for depth in 0..leaf_depth - 2 {
            assert_eq!(F::decode(0x83, depth), Entry::Reserved);
        }
    }

    fn a_step_is_the_next_frame_and_nothing_else<F>() {
        let depth = F::LEVELS.len() - 1;
        for frame in [0, 0xff, (1 << 40) - 2] {
            let leaf = |frame| Leaf::single(Pfn::new(frame).unwrap(), Role::Tail);
            assert_eq!(F::leaf(leaf(frame), depth) + F::FRAME_STEP, F::leaf(leaf(frame + 1), depth));
        }
        // Behind the last frame no entry of ours follows.
        let last = F::leaf(Leaf::single(Pfn::new((1 << 40) - 1).unwrap(), Role::Tail), depth);
        for leaf in own_leaves(Order::BASE) {
            assert_ne!(last + F::FRAME_STEP, F::leaf(leaf, depth));
        }
    }

    fn canonical_addresses_are_translated_and_no_others<F>() {
        let bits = 12 + 9 * F::LEVELS.len() as u32;
        let half = 1_u64 << (bits - 1);
        for (at, translated) in [
            (0, true),
            (half - 1, true),
            (half, false),
            (half.wrapping_neg() - 1, false),
            (half.wrapping_neg(), true),
            (u64::MAX, true),
        ] {
            assert_eq!(F::translates(VirtAddr::new(at)), translated, "{at:#x}");
        }
    }
}
