//! How many levels of tables there are, and what a table of each translates, by arithmetic.

use core::iter::successors;
use mm_core::addr::{Granule, VirtAddr};

/// An entry of a table has eight bytes.
const ENTRY_SHIFT: u32 = 3;

/// Tables of a page each, for addresses of some number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// The page.
    pub granule: Granule,
    /// How many bits of an address are translated.
    pub address_bits: u32,
}

impl TableShape {
    /// How many bits of an address each table takes, but for the root, which may take fewer.
    const fn index_bits(&self) -> u32 {
        self.granule.shift() - ENTRY_SHIFT
    }

    /// How much of the address space a table of base-page leaves translates, as a shift. A huge
    /// leaf stands for as much.
    pub const fn leaf_span(&self) -> u32 {
        self.granule.shift() + self.index_bits()
    }

    /// The same of the tables above those and below the root, upwards.
    pub fn upper_spans(&self) -> impl Iterator<Item = u32> + use<> {
        let Self { address_bits, .. } = *self;
        let bits = self.index_bits();
        let above = move |span: &u32| Some(span + bits);
        successors(above(&self.leaf_span()), above).take_while(move |span| *span < address_bits)
    }

    /// What an entry of the root translates, as a shift.
    pub(super) fn root_shift(&self) -> u32 {
        self.upper_spans().last().unwrap_or(self.leaf_span())
    }

    /// The next smaller shift; `None` below the page.
    pub(super) fn below(&self, shift: u32) -> Option<u32> {
        let below = shift.checked_sub(self.index_bits())?;
        (below >= self.granule.shift()).then_some(below)
    }

    /// The sizes of leaves of at most 2^`largest` bytes, from the largest to the page, as shifts.
    pub(super) fn leaf_shifts(&self, largest: u32) -> impl Iterator<Item = u32> + use<> {
        let shape = *self;
        successors(Some(self.root_shift()), move |shift| shape.below(*shift))
            .filter(move |shift| *shift <= largest)
    }

    /// The index of `at` in a table whose entries translate 2^`shift` bytes.
    pub(super) fn index(&self, shift: u32, at: VirtAddr) -> usize {
        let bits = self.index_bits().min(self.address_bits - shift);
        (at.get() >> shift) as usize & ((1 << bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_spans(granule: Granule, address_bits: u32, leaf: u32, upper: &[u32]) {
        let shape = TableShape {
            granule,
            address_bits,
        };
        assert_eq!(shape.leaf_span(), leaf);
        assert!(shape.upper_spans().eq(upper.iter().copied()));
        assert_eq!(Some(shape.root_shift()), upper.last().copied());
    }

    /// SDM, "Paging"; Arm ARM, "Translation using the 4KB granule", and likewise for the others.
    #[test]
    fn tables_translate_what_the_manuals_say() {
        assert_spans(Granule::Size4K, 48, 21, &[30, 39]);
        assert_spans(Granule::Size4K, 57, 21, &[30, 39, 48]);
        assert_spans(Granule::Size4K, 39, 21, &[30]);
        assert_spans(Granule::Size16K, 48, 25, &[36, 47]);
        assert_spans(Granule::Size64K, 48, 29, &[42]);
    }

    #[test]
    fn leaves_are_of_whole_levels() {
        let shape = TableShape {
            granule: Granule::Size4K,
            address_bits: 48,
        };
        assert!(shape.leaf_shifts(30).eq([30, 21, 12]));
        assert!(shape.leaf_shifts(29).eq([21, 12]));
        assert_eq!(shape.below(12), None);
    }
}
