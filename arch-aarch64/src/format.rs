//! What descriptors look like in VMSAv8-64 stage 1, for each granule.
//!
//! ```text
//!  page and block descriptors (levels 1 to 3)
//!    63 62..59 58 57   56    55  54  53 52 51  50 49..48 47    m  ..  16 .. 11 10 9..8  7   6  5 4..2  1 0
//!   ┌──┬──────┬──┬────┬─────┬──┬───┬───┬──┬───┬──┬──────┬─────────┬─┬──┬─┬──┬──┬────┬───┬───┬──┬─────┬─┬─┐
//!   │  │      │  │TAIL│OWNED│  │UXN│PXN│C │DBM│GP│ res0 │ address │0│nT│0│nG│AF│ SH │RO │EL0│NS│index│P│V│
//!   └──┴──────┴──┴────┴─────┴──┴───┴───┴──┴───┴──┴──────┴─────────┴─┴──┴─┴──┴──┴────┴───┴───┴──┴─────┴─┴─┘
//!  table descriptors (not in the last level)
//!    63    59  58 57   56    55..51  50..48 47    m   .. 11 10  9..2  1 0
//!   ┌────────┬──┬────┬─────┬───────┬──────┬─────────┬───┬──┬──┬──────┬─┬─┐
//!   │ limits │  │TAIL│OWNED│       │ res0 │ address │ 0 │  │AF│      │1│V│
//!   └────────┴──┴────┴─────┴───────┴──────┴─────────┴───┴──┴──┴──────┴─┴─┘
//! ```
//!
//! From the Arm ARM, "VMSAv8-64 translation table format descriptors". `m` is the base-2 logarithm
//! of the page, or of the block; P tells a page (level 3) or a table from a block. An address has
//! 48 bits on every granule, so what lies between it and bit 11 is zero: the upper address bits
//! that FEAT_LPA (64K) and FEAT_LPA2 put there are never set, nor is anything but shareability in
//! bits 8 and 9, which means TCR_EL1.DS = 0.
//!
//! Bits 55 to 58 of page and block descriptors are reserved for software, bits 51 to 58 of table
//! descriptors are ignored, and so are all bits but V of an invalid one. Two of them are this
//! library's: [`OWNED`] and [`TAIL`].
//!
//! What this crate enters is for EL1 only, never executable, global (nG = 0) unless the
//! kernel [chooses otherwise](crate::Choices), inner shareable,
//! normal memory by index [`NORMAL_MEMORY_INDEX`], and has the access flag from the start: there is
//! no access flag fault, and the MMU has no reason to write to it. DBM is clear, so that hardware
//! management of dirty state (FEAT_HAFDBS) leaves bit 7 alone: what is read-only stays so.

use crate::granule::{ADDRESS_BITS, Shape};
use aarch64_paging::descriptor::El1Attributes as Attributes;
use aarch64_paging::mair::MairAttribute;
use aarch64_paging::mair::NormalMemory::WriteBackNonTransientReadWriteAllocate as WriteBack;
use mm_core::addr::{Block, Granule, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};

/// The descriptor is this library's. Descriptors without this bit are foreign.
///
/// Nobody else may set it in entries of the root slots that the vmemmap uses, valid or not.
pub const OWNED: Attributes = Attributes::SWFLAG_1;

/// The page or block holds tail descriptors that other entries map too. Of a table: it is linked
/// elsewhere too, and holds nothing but the same tail.
pub const TAIL: Attributes = Attributes::SWFLAG_2;

/// The descriptor, which is not valid any more, linked a leaf table whose first entries tell of all others.
const ALIKE: Attributes = Attributes::SWFLAG_3;

/// Which of the eight fields of MAIR_EL1 describes the memory of leaves: AttrIndx of every leaf
/// that this crate makes.
///
/// The kernel has [`NORMAL_MEMORY`] there.
pub const NORMAL_MEMORY_INDEX: u8 = 0;

/// What field [`NORMAL_MEMORY_INDEX`] of MAIR_EL1 has to say: normal memory, write-back, read- and
/// write-allocate, inner and outer (0xff).
pub const NORMAL_MEMORY: MairAttribute = MairAttribute::normal(WriteBack, WriteBack);

/// AttrIndx.
const MEMORY_TYPE: Attributes =
    Attributes::from_bits_retain((NORMAL_MEMORY_INDEX as usize & 7) << 2);

/// What every leaf of this library's has set, apart from P.
const LEAF: Attributes = Attributes::VALID
    .union(MEMORY_TYPE)
    .union(Attributes::INNER_SHAREABLE)
    .union(Attributes::ACCESSED)
    .union(Attributes::PXN)
    .union(Attributes::UXN)
    .union(OWNED);

/// What every link to a table has set. Rights are decided by the leaves. Bit 10 is ignored, or the
/// access flag of tables (FEAT_HAFT).
const TABLE: Attributes = Attributes::VALID
    .union(Attributes::TABLE_OR_PAGE)
    .union(Attributes::ACCESSED)
    .union(OWNED);

/// Bits 48 and 49: above the address, and zero.
const ABOVE_ADDRESS: u64 = 0b11 << ADDRESS_BITS;

/// VMSAv8-64 stage 1 below TTBR1, with pages of 2^`PAGE_SHIFT` bytes: [`Format4K`], [`Format16K`]
/// or [`Format64K`].
///
/// The same descriptors serve EL1&0, and EL2&0 with HCR_EL2.E2H. The kernel has set TCR_EL1.T1SZ =
/// 16 (48-bit addresses), TG1 to the granule, DS = 0, and SH1, ORGN1 and IRGN1 to what its direct
/// map uses.
///
/// Physical addresses have 48 bits. Machines with FEAT_LPA or FEAT_LPA2 may have memory further up;
/// the engine refuses its frames.
#[derive(Clone, Copy, Debug)]
pub enum Stage1<const PAGE_SHIFT: u32> {}

/// 4 KiB pages, 4 levels, blocks of 2 MiB and 1 GiB.
pub type Format4K = Stage1<12>;

/// 16 KiB pages, 4 levels, blocks of 32 MiB.
pub type Format16K = Stage1<14>;

/// 64 KiB pages, 3 levels, blocks of 512 MiB.
pub type Format64K = Stage1<16>;

impl<const PAGE_SHIFT: u32> Stage1<PAGE_SHIFT> {
    const SHAPE: Shape = match Shape::of(PAGE_SHIFT) {
        Some(shape) => shape,
        None => panic!("pages are of 4, 16 or 64 KiB"),
    };

    /// The address of a page or table, in place.
    const ADDRESS: u64 = (1 << ADDRESS_BITS) - (1 << PAGE_SHIFT);

    /// The bits between the attributes and the address of a page or table. They are zero.
    const BELOW_ADDRESS: u64 = (1 << PAGE_SHIFT) - (1 << 12);

    /// The level at `depth`.
    #[inline]
    fn level(depth: usize) -> Option<&'static Level> {
        Self::SHAPE.levels.get(depth)
    }

    /// Whether entries at `depth` have no tables below them.
    #[inline]
    const fn is_last(depth: usize) -> bool {
        depth == const { Self::SHAPE.levels.len() - 1 }
    }

    /// The address of `frame`, in place.
    #[inline]
    fn address_of(frame: Pfn) -> u64 {
        frame.base(Self::SHAPE.granule).get() & Self::ADDRESS
    }

    /// The frame of the table that `entry` links; `None` where bits are set that have to be zero.
    #[inline]
    fn table_of(entry: u64) -> Option<Pfn> {
        if entry & (ABOVE_ADDRESS | Self::BELOW_ADDRESS) != 0 {
            return None;
        }
        Pfn::new((entry & Self::ADDRESS) >> PAGE_SHIFT)
    }

    /// The leaf that `entry` at `depth` is; `None` where bits are set that have to be zero, or the
    /// level has no leaves.
    #[inline]
    fn leaf_of(entry: u64, depth: usize) -> Option<Leaf> {
        let level = Self::level(depth).filter(|level| level.leaf)?;
        let order = level.shift.checked_sub(PAGE_SHIFT)?;
        let order = Order::new(u8::try_from(order).ok()?)?;
        let attributes = attributes_of(entry);
        let mut entry = entry;
        if !Self::is_last(depth) {
            // nT of a block: it may not be cached for now. Says nothing about where it points.
            entry &= !(Attributes::NT.bits() as u64);
        }
        let frame = Self::table_of(entry)?;
        let role = if !attributes.contains(OWNED) {
            Role::Foreign
        } else if attributes.contains(TAIL) {
            Role::Tail
        } else {
            Role::Descriptors
        };
        Some(Leaf {
            block: Block::new(frame, order)?,
            role,
            writable: !attributes.contains(Attributes::READ_ONLY),
        })
    }
}

// SAFETY: 1: `Shape` has the levels, with leaves in the last; the root is checked there against the
// 48 bits of an address, and the engine checks that each level begins where the one below ends. 2:
// `decode` takes address, role and rights from the very bits that `leaf` and `table` put them in,
// and does not look at AF; all entries but zero decode as something else than `Free`. 3: entries
// have V and OWNED set; their format is the Arm ARM's, and OWNED and TAIL are ignored by the MMU.
// 4: `invalidated` clears V, which leaves OWNED, and `decode` differs by V only in the kind that it
// answers. 5: a page's frame number starts at the bit of the page size, and the carry behind the
// last frame ends in bit 48, which no entry of this crate has set. 6: `leaf` and `table` set TAIL
// for these alone, and `invalidated` leaves it. 7: a frame number has the bits from there to 47. 8:
// TTBR1 translates the addresses whose bits from 48 on are all set. 9 and 11: it keeps the defaults. 10: `table`
// leaves bit 58 clear, and so does hardware; `decode` does not look at it.
unsafe impl<const PAGE_SHIFT: u32> EntryFormat for Stage1<PAGE_SHIFT> {
    const GRANULE: Granule = Self::SHAPE.granule;

    const LEVELS: &'static [Level] = Self::SHAPE.levels;

    const LAST_FRAME: Pfn = match Pfn::new((1 << (ADDRESS_BITS - PAGE_SHIFT)) - 1) {
        Some(frame) => frame,
        None => Pfn::MAX,
    };

    const FRAME_STEP: u64 = 1 << PAGE_SHIFT;

    /// AF only. The other bit that the MMU writes of its own is bit 7 where DBM is set, and here it
    /// never is; dirty state is no bit of its own.
    const STATUS_BITS: u64 = Attributes::ACCESSED.bits() as u64;

    const OWNED: u64 = OWNED.bits() as u64;

    const TAIL: u64 = TAIL.bits() as u64;

    const ALIKE: u64 = ALIKE.bits() as u64;

    /// Whether `at` is in the region of TTBR1: all bits above those translated are set.
    #[inline]
    fn translates(at: VirtAddr) -> bool {
        at.get() >= u64::MAX << ADDRESS_BITS
    }

    #[inline]
    fn leaf(leaf: Leaf, depth: usize) -> u64 {
        let mut attributes = match leaf.role {
            Role::Descriptors => LEAF,
            Role::Tail => LEAF.union(TAIL),
            Role::Foreign => LEAF.difference(OWNED),
        };
        attributes.set(Attributes::READ_ONLY, !leaf.writable);
        attributes.set(Attributes::TABLE_OR_PAGE, Self::is_last(depth));
        Self::address_of(leaf.block.first()) | attributes.bits() as u64
    }

    #[inline]
    fn table(frame: Pfn, shared: bool) -> u64 {
        let mut attributes = TABLE;
        attributes.set(TAIL, shared);
        Self::address_of(frame) | attributes.bits() as u64
    }

    #[inline]
    fn decode(entry: u64, depth: usize) -> Entry {
        if entry == 0 {
            return Entry::Free;
        }
        let attributes = attributes_of(entry);
        let valid = attributes.contains(Attributes::VALID);
        let owned = attributes.contains(OWNED);
        if !valid && !owned {
            return Entry::Reserved;
        }
        // In the last level P has to be set: without it, the descriptor is as good as invalid.
        let decoded = match (
            attributes.contains(Attributes::TABLE_OR_PAGE),
            Self::is_last(depth),
        ) {
            (true, false) => Self::table_of(entry).map(|frame| match valid {
                true => Entry::Table {
                    frame,
                    link: Link::of(owned, attributes.contains(TAIL)),
                },
                false => Entry::InvalidTable { frame },
            }),
            (true, true) | (false, false) => Self::leaf_of(entry, depth).map(|leaf| match valid {
                true => Entry::Leaf(leaf),
                false => Entry::InvalidLeaf(leaf),
            }),
            (false, true) => None,
        };
        decoded.unwrap_or(Entry::Reserved)
    }

    #[inline]
    fn invalidated(entry: u64) -> u64 {
        entry & !(Attributes::VALID.bits() as u64)
    }
}

/// The bits of `entry` that have names.
#[inline]
fn attributes_of(entry: u64) -> Attributes {
    Attributes::from_bits_retain(entry as usize)
}
