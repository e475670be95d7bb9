//! What page-table entries look like in Sv39, Sv48 and Sv57.
//!
//! ```text
//!    63 62..61 60..54 53         10   9     8   7 6 5 4 3 2 1 0
//!   ┌──┬──────┬──────┬─────────────┬────┬─────┬─┬─┬─┬─┬─┬─┬─┬─┐
//!   │N │ PBMT │ zero │ frame       │TAIL│OWNED│D│A│G│U│X│W│R│V│
//!   └──┴──────┴──────┴─────────────┴────┴─────┴─┴─┴─┴─┴─┴─┴─┴─┘
//! ```
//!
//! From the privileged manual, 4.4.1 to 4.6.1 ("Addressing and Memory Protection"). The entries of the three modes differ
//! in nothing. R, W and X of a link to a table are zero, and so are its U, A and D. Leaves are possible at
//! every level.
//!
//! Bits 8 and 9 (RSW) are reserved for software in entries with V set, and all others but V where it is clear:
//! an entry with V = 0 keeps what it said. Both of them are this library's: [`OWNED`] and [`TAIL`].
//!
//! What this crate enters is for supervisor mode only, never executable, global unless the kernel [chooses
//! otherwise](crate::Choices), of the memory type that the platform gives to the address (PBMT = 0), *accessed* from the
//! start, and *dirty* where it is writable. So a hart has no reason to write to an entry (Svadu), nor to fault because A or D
//! is clear (Svade).

use crate::flags::PteFlags;
use mm_core::addr::{Block, Granule, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};

/// The entry is this library's. Entries without this bit are foreign.
///
/// Nobody else may set it in entries of the root slots that the vmemmap uses, valid or not.
pub const OWNED: PteFlags = PteFlags::SOFTWARE_1;

/// The leaf maps tail descriptors that other entries map too. Of a table: it is linked elsewhere too, and holds nothing but
/// the same tail.
pub const TAIL: PteFlags = PteFlags::SOFTWARE_2;

/// What every leaf of this library's has set.
const LEAF: PteFlags = PteFlags::VALID
    .union(PteFlags::READ)
    .union(PteFlags::GLOBAL)
    .union(PteFlags::ACCESSED)
    .union(OWNED);

/// What every writable leaf has set besides.
const WRITABLE: PteFlags = PteFlags::WRITE.union(PteFlags::DIRTY);

/// What every link to a table has set.
const TABLE: PteFlags = PteFlags::VALID.union(OWNED);

/// What tells a leaf from a link.
const RIGHTS: PteFlags = PteFlags::READ
    .union(PteFlags::WRITE)
    .union(PteFlags::EXECUTE);

/// What is zero in a link, as far as it is looked at: A and D are never set there, and say nothing about where it leads.
const ZERO_IN_LINKS: PteFlags = PteFlags::USER
    .union(PteFlags::MEMORY_TYPE)
    .union(PteFlags::NAPOT);

/// The lowest bit of the frame number.
const FRAME_SHIFT: u32 = 10;

/// How many bits the frame number has: physical addresses have 56.
const FRAME_BITS: u32 = 44;

/// Bits 54 to 60: above the frame number, and zero.
const ABOVE_FRAME: u64 = 0x7f << (FRAME_SHIFT + FRAME_BITS);

const GRANULE: Granule = Granule::Size4K;

/// The bits of an address that index one table.
const INDEX_BITS: u32 = 9;

/// The levels of Sv57, root first; Sv48 lacks the first, and Sv39 the first two.
///
/// Leaves of 1 GiB and more are read but never made: `leaf` is false for their levels.
const LEVELS: [Level; 5] = [
    level(4, false),
    level(3, false),
    level(2, false),
    level(1, true),
    level(0, true),
];

/// The level with `below` levels below it.
const fn level(below: u32, leaf: bool) -> Level {
    Level {
        shift: GRANULE.shift() + below * INDEX_BITS,
        index_bits: INDEX_BITS,
        leaf,
    }
}

/// The entry format with `LEVELS` levels: [`Sv39`], [`Sv48`] or [`Sv57`].
///
/// Physical addresses have 56 bits; the engine refuses frames further up.
#[derive(Clone, Copy, Debug)]
pub enum Sv<const LEVELS: usize> {}

/// 39-bit addresses, 3 levels.
pub type Sv39 = Sv<3>;

/// 48-bit addresses, 4 levels.
pub type Sv48 = Sv<4>;

/// 57-bit addresses, 5 levels.
pub type Sv57 = Sv<5>;

/// The formats of this crate, which one [`Tlb`](crate::Tlb) serves: their pages and their rules are the same.
pub trait SvFormat: EntryFormat + Sealed {}

impl<const LEVELS: usize> SvFormat for Sv<LEVELS> {}

/// Other crates have no say in what is such a format.
pub trait Sealed {}

impl<const LEVELS: usize> Sealed for Sv<LEVELS> {}

impl<const DEPTHS: usize> Sv<DEPTHS> {
    /// How many levels lie below that at `depth`.
    const fn levels_below(depth: usize) -> usize {
        (DEPTHS - 1).saturating_sub(depth)
    }

    /// The leaf that `entry` at `depth` is; `None` where bits are set that have to be zero, or a combination
    /// that is reserved.
    #[inline]
    fn leaf_of(entry: u64, depth: usize) -> Option<Leaf> {
        let flags = PteFlags::of(entry);
        let writable = flags.contains(PteFlags::WRITE);
        // Of PBMT, the last value is reserved.
        if entry & ABOVE_FRAME != 0
            || flags.contains(PteFlags::MEMORY_TYPE)
            || (writable && !flags.contains(PteFlags::READ))
        {
            return None;
        }
        // This library makes none of several pages.
        let is_last = Self::levels_below(depth) == 0;
        if flags.contains(PteFlags::NAPOT)
            && (flags.contains(OWNED) || !is_last || napot_frame(entry, VirtAddr::new(0)).is_none())
        {
            return None;
        }
        let order = Self::levels_below(depth) as u32 * INDEX_BITS;
        let order = Order::new(u8::try_from(order).ok()?)?;
        Some(Leaf {
            block: Block::new(frame_of(entry)?, order)?,
            role: match (flags.contains(OWNED), flags.contains(TAIL)) {
                (false, _) => Role::Foreign,
                (true, false) => Role::Descriptors,
                (true, true) => Role::Tail,
            },
            writable,
        })
    }

    /// The frame of the table that `entry` at `depth` links; `None` where bits are set that have to be zero.
    #[inline]
    fn table_of(entry: u64, depth: usize) -> Option<Pfn> {
        let flags = PteFlags::of(entry);
        if Self::levels_below(depth) == 0
            || entry & ABOVE_FRAME != 0
            || flags.intersects(ZERO_IN_LINKS)
        {
            return None;
        }
        frame_of(entry)
    }
}

// SAFETY: 1: `LEVELS` steps by 9 bits down to the granule's 12, with leaves there, and 512 entries of 8 bytes are 4 KiB. 2: `decode`
// takes frame, role and rights from the very bits that `leaf` and `table` put them in, and looks at neither A nor D; all entries but zero decode as something else than `Free`. 3: entries have V and OWNED set; their
// format is the manual's, and OWNED and TAIL are RSW, which harts ignore. 4: `invalidated` clears V, which leaves OWNED, and
// `decode` differs by V only in the kind that it answers. 5: a base page's frame number starts at bit 10, and the carry behind the last
// frame ends in bit 54, which no entry of this crate has set. 6: `leaf` and `table` set TAIL for these alone, and `invalidated` leaves it.
// 7: a frame number has the bits 10 to 53. 8: the addresses that are translated have bits above the translated ones which are all equal
// to the highest of these. 9: it asks `decode`, by which an
// entry with N is foreign or reserved. 10: `table` leaves D clear, harts set it in leaves alone, and `decode` does not look at it. 11: it keeps the default.
unsafe impl<const DEPTHS: usize> EntryFormat for Sv<DEPTHS> {
    const GRANULE: Granule = GRANULE;

    const LEVELS: &'static [Level] = {
        assert!(
            3 <= DEPTHS && DEPTHS <= 5,
            "Sv39, Sv48 or Sv57: 3 to 5 levels"
        );
        LEVELS.split_at(LEVELS.len() - DEPTHS).1
    };

    const LAST_FRAME: Pfn = match Pfn::new((1 << FRAME_BITS) - 1) {
        Some(frame) => frame,
        None => Pfn::MAX,
    };

    const FRAME_STEP: u64 = 1 << FRAME_SHIFT;

    const STATUS_BITS: u64 = PteFlags::ACCESSED.union(PteFlags::DIRTY).bits();

    const OWNED: u64 = OWNED.bits();

    const TAIL: u64 = TAIL.bits();

    /// D, which no link has.
    const ALIKE: u64 = PteFlags::DIRTY.bits();

    /// Whether all bits above those translated are copies of the highest of these.
    #[inline]
    fn translates(at: VirtAddr) -> bool {
        let upper = (at.get() as i64) >> (Self::VIRTUAL_BITS - 1);
        upper == 0 || upper == -1
    }

    #[inline]
    fn leaf(leaf: Leaf, _depth: usize) -> u64 {
        let flags = match leaf.role {
            Role::Descriptors => LEAF,
            Role::Tail => LEAF.union(TAIL),
            Role::Foreign => LEAF.difference(OWNED),
        };
        in_place(leaf.block.first()) | flags.with(WRITABLE, leaf.writable).bits()
    }

    #[inline]
    fn table(frame: Pfn, shared: bool) -> u64 {
        in_place(frame) | TABLE.with(TAIL, shared).bits()
    }

    #[inline]
    fn decode(entry: u64, depth: usize) -> Entry {
        if entry == 0 {
            return Entry::Free;
        }
        let flags = PteFlags::of(entry);
        let valid = flags.contains(PteFlags::VALID);
        let owned = flags.contains(OWNED);
        if !valid && !owned {
            return Entry::Reserved;
        }
        let decoded = if flags.intersects(RIGHTS) {
            Self::leaf_of(entry, depth).map(|leaf| match valid {
                true => Entry::Leaf(leaf),
                false => Entry::InvalidLeaf(leaf),
            })
        } else {
            Self::table_of(entry, depth).map(|frame| match valid {
                true => Entry::Table {
                    frame,
                    link: Link::of(owned, flags.contains(TAIL)),
                },
                false => Entry::InvalidTable { frame },
            })
        };
        decoded.unwrap_or(Entry::Reserved)
    }

    /// Of 16 entries with N, each says where the first one leads (chapter 5, "Svnapot").
    #[inline]
    fn leaf_at(entry: u64, at: VirtAddr) -> Option<Leaf> {
        let flags = PteFlags::of(entry);
        if !flags.contains(PteFlags::NAPOT)
            || !matches!(Self::decode(entry, DEPTHS - 1), Entry::Leaf(_))
        {
            return None;
        }
        Some(Leaf {
            writable: flags.contains(PteFlags::WRITE),
            ..Leaf::single(napot_frame(entry, at)?, Role::Foreign)
        })
    }

    #[inline]
    fn invalidated(entry: u64) -> u64 {
        entry & !PteFlags::VALID.bits()
    }
}

/// The pages that are translated as one with N, and what the lower bits of the frame number say then. There is this size only, 64 KiB at the
/// last level: all other encodings are reserved, and fault (chapter 5, table 5.1).
const NAPOT_PAGES: u64 = 16;
const NAPOT_SIZE: u64 = 8;

/// The frame that `entry`, with N, translates `at` to; `None` where it is of another size.
fn napot_frame(entry: u64, at: VirtAddr) -> Option<Pfn> {
    let number = frame_of(entry)?.get();
    let first = number.checked_sub(NAPOT_SIZE)?;
    let index = at.get() >> GRANULE.shift() & (NAPOT_PAGES - 1);
    match first & (NAPOT_PAGES - 1) {
        0 => Pfn::new(first | index),
        _ => None,
    }
}

/// The number of `frame`, in place.
#[inline]
fn in_place(frame: Pfn) -> u64 {
    (frame.get() & ((1 << FRAME_BITS) - 1)) << FRAME_SHIFT
}

/// The frame whose number is in `entry`.
#[inline]
fn frame_of(entry: u64) -> Option<Pfn> {
    Pfn::new(entry >> FRAME_SHIFT & ((1 << FRAME_BITS) - 1))
}
