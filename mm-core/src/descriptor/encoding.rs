//! How a tail descriptor names its head.
//!
//! A word in each descriptor, and the descriptor's own address in the vmemmap, give the address of
//! the head. The address is always the one in the vmemmap, never that of some reference to the
//! descriptor, which may lie in the direct map.

use crate::addr::VirtAddr;

/// The rule by which a descriptor's address and word give the address of its head.
///
/// The library tells by it which descriptors stand for one frame alone.
///
/// # Safety
///
/// 1. `head_of(head, head_word())` is `head`, and for every tail of a compound page whose descriptors
///    fill `array_bytes` bytes from `head` on, `head_of(tail, tail_word(head, array_bytes))` is
///    `head`.
/// 2. `is_tail` is true of words of tails, and false of that of a head.
/// 3. Where `SAME_FOR_ALL` is true, `tail_word` gives the same for all compound pages of one size that
///    are aligned to it, and 1 holds for the tails of all of them.
/// 4. Where `HAS_STUBS` is true, so is `SAME_FOR_ALL`, and 1 to 3 hold of `stub_word` as of `tail_word`: for
///    all descriptors of a compound page, the first one too. `is_stub` is true of what `stub_word` gives, and
///    false of all other words. `vacant_word` is a tail's by `is_tail`, and neither `head_word` nor what
///    `tail_word` or `stub_word` gives. `stub_array` of what `stub_word` gives is what that was told.
pub unsafe trait TailEncoding: Sync + 'static {
    /// Whether tails of all compound pages of one order are the same bytes.
    const SAME_FOR_ALL: bool;

    /// Whether there are words for stubs and vacant places, which [packed
    /// heads](crate::pagemap::Heads::Packed) need. If not, the methods that give them are not called.
    const HAS_STUBS: bool = false;

    /// Which encoding it is, for programs that read a [dump of memory](crate::vmemmap::Description). The library itself
    /// does not ask.
    const SCHEME: Scheme = Scheme::Other;

    /// The word of a head, or of a page by itself.
    fn head_word() -> u64;

    /// The word of every tail of the compound page whose descriptors start at `head` and fill
    /// `array_bytes` bytes, a power of two.
    fn tail_word(head: VirtAddr, array_bytes: u64) -> u64;

    /// The address of the head of the descriptor at `at` with `word`.
    fn head_of(at: VirtAddr, word: u64) -> VirtAddr;

    /// Whether `word` is that of a tail.
    fn is_tail(word: u64) -> bool;

    /// The word of every descriptor in the vmemmap of a compound page whose head is elsewhere, and whose
    /// descriptors fill `array_bytes` bytes, a power of two. [`head_of`](Self::head_of) gives the address of
    /// the first of them.
    fn stub_word(array_bytes: u64) -> u64 {
        let _ = array_bytes;
        Self::head_word()
    }

    /// Whether `word` is that of a stub.
    fn is_stub(word: u64) -> bool {
        let _ = word;
        false
    }

    /// How many bytes the descriptors fill of a compound page with stubs of this word. A reader tells where the head
    /// is by this one word, since the stub may be another one when it looks again.
    fn stub_array(word: u64) -> u64 {
        let _ = word;
        0
    }

    /// The word of a place for a head that no page has.
    fn vacant_word() -> u64 {
        Self::head_word()
    }
}

/// How tails name their heads, as a number for dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Scheme {
    /// In another way than these.
    Other = 0,
    /// As [`Pointer`] does.
    Pointer = 1,
    /// As [`Mask`] does.
    Mask = 2,
}

/// Marks the word of a tail. Addresses of descriptors are multiples of 8, so the bit is free.
const TAIL: u64 = 1;

/// Marks the word of a tail as that of a stub. An address is a multiple of 8, so a mask may have the bit.
const STUB: u64 = 2;

/// A tail stores the address of its head. Works for any vmemmap; tails differ from one compound
/// page to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {}

// SAFETY: 1 and 2: a tail's word is the head's address, which is even, and the bit; a head's is 0. 3: it
// is false.
unsafe impl TailEncoding for Pointer {
    const SAME_FOR_ALL: bool = false;
    const SCHEME: Scheme = Scheme::Pointer;

    fn head_word() -> u64 {
        0
    }

    fn tail_word(head: VirtAddr, _array_bytes: u64) -> u64 {
        head.get() | TAIL
    }

    fn head_of(at: VirtAddr, word: u64) -> VirtAddr {
        if Self::is_tail(word) {
            VirtAddr::new(word & !TAIL)
        } else {
            at
        }
    }

    fn is_tail(word: u64) -> bool {
        word & TAIL != 0
    }
}

/// A tail stores the mask that makes its own address that of its head. Branch-free, and the same
/// for all compound pages of one order; the model sees to it that the vmemmap is aligned as this
/// needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {}

// SAFETY: 1 and 2: a tail's word keeps the bits of an address above the compound page's, and has bit 0,
// which no address of a descriptor has; a head's keeps all but bit 0. 3: it follows from the size. 4: a
// stub's word is a tail's, with bit 1 besides, which only a head's has otherwise, and the size is what the mask
// leaves out; a vacant place's keeps no
// bit of an address, and a tail's at least one.
unsafe impl TailEncoding for Mask {
    const SAME_FOR_ALL: bool = true;
    const HAS_STUBS: bool = true;
    const SCHEME: Scheme = Scheme::Mask;

    fn head_word() -> u64 {
        !TAIL
    }

    fn tail_word(_head: VirtAddr, array_bytes: u64) -> u64 {
        !array_bytes.wrapping_sub(1) | TAIL
    }

    fn head_of(at: VirtAddr, word: u64) -> VirtAddr {
        VirtAddr::new(at.get() & word)
    }

    fn is_tail(word: u64) -> bool {
        word & TAIL != 0
    }

    fn stub_word(array_bytes: u64) -> u64 {
        !array_bytes.wrapping_sub(1) | TAIL | STUB
    }

    #[inline]
    fn is_stub(word: u64) -> bool {
        word & (TAIL | STUB) == TAIL | STUB
    }

    #[inline]
    fn stub_array(word: u64) -> u64 {
        (!(word & !(TAIL | STUB))).wrapping_add(1)
    }

    fn vacant_word() -> u64 {
        TAIL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_descriptor_finds_its_head<E: TailEncoding>() {
        for order in 1..12 {
            let array = 64u64 << order;
            for index in [0u64, 1, 1000] {
                let head = VirtAddr::new(0xffff_ea00_0000_0000 + index * array);
                assert_eq!(E::head_of(head, E::head_word()), head);
                assert!(!E::is_tail(E::head_word()));
                let word = E::tail_word(head, array);
                assert!(E::is_tail(word));
                for tail in [1, (1u64 << order) - 1] {
                    let at = head.checked_add(tail * 64).unwrap();
                    assert_eq!(E::head_of(at, word), head);
                }
            }
        }
    }

    #[test]
    fn every_descriptor_finds_its_head_by_pointer() {
        every_descriptor_finds_its_head::<Pointer>();
    }

    #[test]
    fn every_descriptor_finds_its_head_by_mask() {
        every_descriptor_finds_its_head::<Mask>();
    }

    #[test]
    fn stubs_name_the_first_of_their_page_and_are_neither_heads_nor_tails_nor_vacant() {
        let vacant = Mask::vacant_word();
        assert!(Mask::is_tail(vacant) && !Mask::is_stub(vacant));
        assert!(!Mask::is_stub(Mask::head_word()));
        for order in 1..40 {
            let array = 64u64 << order;
            let first = VirtAddr::new(0xffff_e000_0000_0000);
            let word = Mask::stub_word(array);
            assert!(Mask::is_tail(word) && Mask::is_stub(word));
            assert_eq!(Mask::stub_array(word), array);
            for of_page in [0, 1, (1u64 << order) - 1] {
                let at = first.checked_add(of_page * 64).unwrap();
                assert_eq!(Mask::head_of(at, word), first);
            }
            let tail = Mask::tail_word(first, array);
            assert!(!Mask::is_stub(tail) && tail != vacant && word != vacant);
        }
    }

    #[test]
    fn masks_of_one_order_are_the_same_for_all_compound_pages() {
        let at = |address| VirtAddr::new(address);
        assert_eq!(
            Mask::tail_word(at(0xffff_ea00_0000_0000), 1 << 15),
            Mask::tail_word(at(0xffff_ea00_0000_8000), 1 << 15)
        );
        assert_ne!(
            Pointer::tail_word(at(0xffff_ea00_0000_0000), 1 << 15),
            Pointer::tail_word(at(0xffff_ea00_0000_8000), 1 << 15)
        );
    }
}
