//! Entries: the contract of formats, and bits worked out by hand from the SDM.

use crate::machine::{HUGE, Paging, for_both_formats};
use arch_x86_64::{OWNED, TAIL};
use conformance::Outcome;
use mm_core::addr::{Block, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, Leaf, Role};
use x86_64::structures::paging::PageTableFlags as Flags;

const GIANT: Order = Order::new(18).unwrap();

fn block(first: u64, order: Order) -> Block {
    Block::new(Pfn::new(first).unwrap(), order).unwrap()
}

for_both_formats! {
    fn the_contract_of_formats_is_kept<F>() {
        conformance::format::run::<F>(&mut |name, outcome| {
            assert_eq!(outcome, Outcome::Passed, "{name}");
        });
    }

    fn bits_are_where_the_manual_has_them<F>() {
        let leaf_depth = F::LEVELS.len() - 1;
        let mut leaf = Leaf::single(Pfn::new(0xab_cdef_0123).unwrap(), Role::Descriptors);
        assert_eq!(F::leaf(leaf, leaf_depth), 0x810a_bcde_f012_3163);
        assert_eq!(F::invalidated(0x810a_bcde_f012_3163), 0x810a_bcde_f012_3162);
        leaf.role = Role::Tail;
        leaf.writable = false;
        assert_eq!(F::leaf(leaf, leaf_depth), 0x830a_bcde_f012_3121);
        leaf.block = block(0xab_cdef_0000, HUGE);
        assert_eq!(F::leaf(leaf, leaf_depth - 1), 0x830a_bcde_f000_01a1);
        let table = Pfn::new(0x123).unwrap();
        assert_eq!(F::table(table, false), 0x0100_0000_0012_3023);
        assert_eq!(F::table(table, true), 0x0300_0000_0012_3023);
        assert_eq!((F::OWNED, F::TAIL), (OWNED.bits(), TAIL.bits()));
        // A and D; 52 bits of physical address.
        assert_eq!((F::STATUS_BITS, F::LAST_FRAME.get()), (0x60, (1 << 40) - 1));
        // Which levels index which bits, and have leaves; those of 1 GiB are not made.
        let levels = F::LEVELS.iter().rev().map(|level| (level.shift, level.leaf));
        let expected = [(12, true), (21, true), (30, false), (39, false), (48, false)];
        assert!(levels.eq(expected.into_iter().take(leaf_depth + 1)));
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

    fn the_border_of_canonical_addresses_is_where_the_manual_has_it<F>() {
        let half = 1_u64 << (if F::LEVELS.len() == 4 { 47 } else { 56 });
        let translated = [half - 1, half, half.wrapping_neg() - 1, half.wrapping_neg()]
            .map(|at| F::translates(VirtAddr::new(at)));
        assert_eq!(translated, [true, false, false, true]);
    }
}
