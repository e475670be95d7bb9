//! The encodings by themselves: what the trait asks of its implementers.

use super::slim::Log2;
use super::wide::Compact;
use mm_core::addr::VirtAddr;
use mm_core::descriptor::{Mask, Pointer, TailEncoding};

/// Every tail of compound pages of every order finds its head, at both ends of the address space
/// and in between.
fn every_descriptor_finds_its_head<E: TailEncoding>(descriptor_bytes: u64) {
    for order in 1..36 {
        let array = descriptor_bytes << order;
        let last = !(array - 1);
        for head in [0, array, 0xffff_ea00_0000_0000 & !(array - 1), last] {
            let head = VirtAddr::new(head);
            assert!(!E::is_tail(E::head_word()));
            assert_eq!(E::head_of(head, E::head_word()), head);
            let word = E::tail_word(head, array);
            assert!(E::is_tail(word));
            let count = 1u64 << order;
            for tail in [1, count / 2, count - 1] {
                let at = VirtAddr::new(head.get() + tail * descriptor_bytes);
                assert_eq!(E::head_of(at, word), head, "order {order}, tail {tail}");
            }
        }
    }
}

#[test]
fn every_descriptor_finds_its_head_by_each_encoding() {
    for descriptor_bytes in [8, 32, 64, 4096] {
        every_descriptor_finds_its_head::<Mask>(descriptor_bytes);
        every_descriptor_finds_its_head::<Log2>(descriptor_bytes);
    }
    for descriptor_bytes in [64, 128] {
        every_descriptor_finds_its_head::<Pointer>(descriptor_bytes);
        every_descriptor_finds_its_head::<Compact>(descriptor_bytes);
    }
}

#[test]
fn those_that_say_so_have_the_same_tails_for_all_compound_pages_of_an_order() {
    fn same<E: TailEncoding>() -> bool {
        let words = [0, 1 << 20, 0xffff_ea00_0000_0000, u64::MAX << 20]
            .map(|head| E::tail_word(VirtAddr::new(head), 1 << 20));
        words.iter().all(|word| *word == words[0])
    }
    assert!(same::<Mask>() && Mask::SAME_FOR_ALL);
    assert!(same::<Log2>() && Log2::SAME_FOR_ALL);
    assert!(!same::<Pointer>() && !Pointer::SAME_FOR_ALL);
    assert!(!same::<Compact>() && !Compact::SAME_FOR_ALL);
}

/// Finding a head by mask is one `and`, whatever the address and the word are: bit by bit, and with
/// no case for heads, which a table of all pairs of bits shows. (That it compiles to no jump, the
/// program text shows.)
#[test]
fn a_mask_is_applied_bit_by_bit_and_knows_no_cases() {
    let patterns = |bit: u32| [0, 1 << bit, !(1 << bit), u64::MAX];
    for bit in 0..64 {
        for at in patterns(bit) {
            for word in patterns(bit) {
                let head = Mask::head_of(VirtAddr::new(at), word).get();
                for each in 0..64 {
                    let (a, w) = (at >> each & 1, word >> each & 1);
                    assert_eq!(head >> each & 1, a * w, "{at:#x} {word:#x} bit {each}");
                }
            }
        }
    }
    // The bit that says tail is no address bit of a descriptor.
    assert!(Mask::is_tail(1) && !Mask::is_tail(!1));
    for at in [0u64, 8, 0xffff_ea00_1234_5678, !7] {
        assert_eq!(
            Mask::head_of(VirtAddr::new(at), Mask::head_word()).get(),
            at
        );
    }
}
