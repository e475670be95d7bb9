//! The shape of the tables, for each granule.
//!
//! With 48-bit addresses (TCR_EL1.T1SZ = 16) each table but the root fills a page, and the root
//! takes the bits that are left (Arm ARM, "Translation using the 4KB granule", "... 16KB granule",
//! "... 64KB granule"):
//!
//! | granule | level 0 | level 1 | level 2 | level 3 |
//! |---|---|---|---|---|
//! | 4K | \[47:39\] | \[38:30\] or block of 1 GiB | \[29:21\] or block of 2 MiB | \[20:12\] |
//! | 16K | \[47\] | \[46:36\] | \[35:25\] or block of 32 MiB | \[24:14\] |
//! | 64K | - | \[47:42\] | \[41:29\] or block of 512 MiB | \[28:16\] |
//!
//! Larger blocks exist only with 52-bit output addresses (FEAT_LPA, FEAT_LPA2), which are not used
//! here.

use mm_core::addr::Granule;
use mm_core::paging::Level;

/// The bits of an address: of one that TTBR1 translates, and of a physical one.
pub(crate) const ADDRESS_BITS: u32 = 48;

/// What differs from granule to granule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The size of a base page and of a table.
    pub(crate) granule: Granule,
    /// The levels, root first.
    pub(crate) levels: &'static [Level],
}

impl Shape {
    /// The shape with pages of 2^`page_shift` bytes, if there is such a granule.
    pub(crate) const fn of(page_shift: u32) -> Option<Self> {
        match page_shift {
            12 => Some(Self {
                granule: Granule::Size4K,
                levels: &LEVELS_4K,
            }),
            14 => Some(Self {
                granule: Granule::Size16K,
                levels: &LEVELS_16K,
            }),
            16 => Some(Self {
                granule: Granule::Size64K,
                levels: &LEVELS_64K,
            }),
            _ => None,
        }
    }
}

const LEVELS_4K: [Level; 4] = [
    level(39, 9, false),
    level(30, 9, true),
    level(21, 9, true),
    level(12, 9, true),
];

const LEVELS_16K: [Level; 4] = [
    level(47, 1, false),
    level(36, 11, false),
    level(25, 11, true),
    level(14, 11, true),
];

const LEVELS_64K: [Level; 3] = [
    level(42, 6, false),
    level(29, 13, true),
    level(16, 13, true),
];

/// The level whose entries translate 2^`shift` bytes, in tables of 2^`index_bits` entries.
const fn level(shift: u32, index_bits: u32, leaf: bool) -> Level {
    Level {
        shift,
        index_bits,
        leaf,
    }
}

const _: () = {
    let mut page_shift = 12;
    while page_shift <= 16 {
        if let Some(shape) = Shape::of(page_shift) {
            let root = shape.levels[0];
            assert!(
                root.table_shift() == ADDRESS_BITS,
                "the root takes the upper bits"
            );
            assert!(
                shape.granule.shift() == page_shift,
                "the granule is the one that was asked for"
            );
        }
        page_shift += 1;
    }
};
