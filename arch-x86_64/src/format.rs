//! What page-table entries look like in 4-level and 5-level paging.
//!
//! ```text
//!    63 62..59 58 57   56    55..52 51        12 11..9 8 7  6 5 4 3 2 1 0
//!   ┌──┬──────┬──┬────┬─────┬──────┬────────────┬─────┬─┬──┬─┬─┬───┬─┬─┬─┐
//!   │XD│ key  │  │TAIL│OWNED│      │ frame      │     │G│PS│D│A│   │U│W│P│
//!   └──┴──────┴──┴────┴─────┴──────┴────────────┴─────┴─┴──┴─┴─┴───┴─┴─┴─┘
//! ```
//!
//! The MMU ignores bits 52 to 58 in every present entry of every level, and all bits but P in one
//! that is not present (SDM, "Paging-Structure Entries" with its tables of formats). Two of them
//! are this library's: [`OWNED`] and [`TAIL`]. They are not among the older software bits 9 to 11,
//! where kernels tend to keep things of their own; not among 59 to 62, which are the protection
//! key; and not bit 52, which the carry of a run of frames would reach behind the last frame
//! number.
//!
//! Bit 58 says something of invalidated links only ([`EntryFormat::ALIKE`]), for the time of one operation.
//!
//! A processor may look at what a not-present entry points at all the same, without any effect but
//! on its caches (Intel, "L1 Terminal Fault"). Invalidated entries name frames of the kernel's, and
//! only until they are reclaimed.
//!
//! What this crate enters is supervisor-only, execute-disabled, global unless the kernel [chooses
//! otherwise](crate::Choices), and *accessed* from the
//! start, and *dirty* where it is writable: the processor then has no reason to write to an entry,
//! which it does with a locked operation. A leaf that is dirty and read-only would be shadow-stack
//! memory (SDM, "Shadow-Stack Pages"), which a kernel with supervisor shadow stacks could write
//! to. Caching is write-back (PAT entry 0).

use mm_core::addr::{Block, Granule, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};
use x86_64::structures::paging::PageTableFlags as Flags;
#[cfg(all(
    target_arch = "x86_64",
    not(any(miri, address_sanitizer, thread_sanitizer))
))]
use {
    core::sync::atomic::AtomicU64,
    mm_core::paging::{EntryLines, SeenBits},
};

/// The entry is this library's. Entries without this bit are foreign.
///
/// Nobody else may set it in entries of the root slots that the vmemmap uses, present or not.
pub const OWNED: Flags = Flags::BIT_56;

/// The leaf maps tail descriptors that other entries map too. Of a table: it is linked elsewhere
/// too, and holds nothing but the same tail.
pub const TAIL: Flags = Flags::BIT_57;

/// The entry, which is not present any more, linked a leaf table whose first entries tell of all others.
const ALIKE: Flags = Flags::BIT_58;

/// What every leaf of this library's has set.
const LEAF: Flags = Flags::PRESENT
    .union(Flags::NO_EXECUTE)
    .union(Flags::GLOBAL)
    .union(Flags::ACCESSED)
    .union(OWNED);

/// What every writable leaf has set besides.
const WRITABLE: Flags = Flags::WRITABLE.union(Flags::DIRTY);

/// What every link to a table has set. Rights are decided by the leaves.
const TABLE: Flags = Flags::PRESENT
    .union(Flags::WRITABLE)
    .union(Flags::ACCESSED)
    .union(OWNED);

/// The frame number, in place: bits 12 to 51.
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !(GRANULE.bytes() - 1);

/// The most bits that a physical address has, and the position of the first bit above it.
const PHYSICAL_BITS: u32 = 52;

/// In a leaf above the last level, bit 12 belongs to the memory type.
const HUGE_PAT: u64 = 1 << 12;

const GRANULE: Granule = Granule::Size4K;

/// The bits of an address that index one table.
const INDEX_BITS: u32 = 9;

/// The levels of 5-level paging, root first; 4-level paging lacks the first.
///
/// Leaves of 1 GiB are read but never made, since not every processor has them: `leaf` is false
/// for their level.
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

/// The entry format of 64-bit paging with `LEVELS` levels: [`FourLevel`] or [`FiveLevel`].
///
/// Physical addresses have 52 bits (SDM, "Physical-Address Width" and the tables of formats); the
/// engine refuses frames further up.
#[derive(Clone, Copy, Debug)]
pub enum LongMode<const LEVELS: usize> {}

/// The formats of this crate, [`FourLevel`] and [`FiveLevel`], which one [`Tlb`](crate::Tlb) serves:
/// their pages and their rules are the same.
pub trait LongModeFormat: EntryFormat + Sealed {}

impl<const LEVELS: usize> LongModeFormat for LongMode<LEVELS> {}

/// Other crates have no say in what is such a format.
pub trait Sealed {}

impl<const LEVELS: usize> Sealed for LongMode<LEVELS> {}

/// 4-level paging: 48-bit addresses.
pub type FourLevel = LongMode<4>;

/// 5-level paging (LA57): 57-bit addresses.
pub type FiveLevel = LongMode<5>;

impl<const DEPTHS: usize> LongMode<DEPTHS> {
    /// How many levels lie below that at `depth`.
    const fn levels_below(depth: usize) -> usize {
        (DEPTHS - 1).saturating_sub(depth)
    }
}

// SAFETY: 1: `LEVELS` steps by 9 bits down to the granule's 12, with leaves there, and 512 entries
// of 8 bytes are 4 KiB. 2: `decode` takes address, role and rights from the very bits that `leaf`
// and `table` put them in, and looks at neither A nor D; all entries but zero decode as something
// else than `Free`. 3: entries have P and OWNED set; their format is the SDM's, and OWNED and TAIL
// are ignored by the MMU. 4: `invalidated` clears P, which leaves OWNED, and `decode` differs by P
// only in the kind that it answers. 5: a base page's frame number starts at bit 12, and the carry
// behind the last frame ends in bit 52, which no entry of this crate has set. 6: `leaf` and `table`
// set TAIL for these alone, and `invalidated` leaves it. 7: a frame number has the bits 12 to 51.
// 8: canonical addresses are those. 9: it keeps the default. 10: `table` leaves bit 58 clear, as does hardware, and `decode` does not look
// at it. 11: `seen_bits` and `entry_lines` say so.
unsafe impl<const DEPTHS: usize> EntryFormat for LongMode<DEPTHS> {
    const GRANULE: Granule = GRANULE;

    const LEVELS: &'static [Level] = {
        assert!(DEPTHS == 4 || DEPTHS == 5, "4-level or 5-level paging");
        LEVELS.split_at(LEVELS.len() - DEPTHS).1
    };

    const LAST_FRAME: Pfn = match Pfn::new((1 << (PHYSICAL_BITS - GRANULE.shift())) - 1) {
        Some(frame) => frame,
        None => Pfn::MAX,
    };

    const FRAME_STEP: u64 = GRANULE.bytes();

    const STATUS_BITS: u64 = Flags::ACCESSED.union(Flags::DIRTY).bits();

    const OWNED: u64 = OWNED.bits();

    const TAIL: u64 = TAIL.bits();

    const ALIKE: u64 = ALIKE.bits();

    /// Whether `at` is canonical: all bits above those translated are copies of the highest of
    /// these.
    #[inline]
    fn translates(at: VirtAddr) -> bool {
        let upper = (at.get() as i64) >> (Self::VIRTUAL_BITS - 1);
        upper == 0 || upper == -1
    }

    #[inline]
    fn leaf(leaf: Leaf, depth: usize) -> u64 {
        let mut flags = match leaf.role {
            Role::Descriptors => LEAF,
            Role::Tail => LEAF.union(TAIL),
            Role::Foreign => LEAF.difference(OWNED),
        };
        flags.set(WRITABLE, leaf.writable);
        flags.set(Flags::HUGE_PAGE, Self::levels_below(depth) != 0);
        address_of(leaf.block.first()) | flags.bits()
    }

    #[inline]
    fn table(frame: Pfn, shared: bool) -> u64 {
        let mut flags = TABLE;
        flags.set(TAIL, shared);
        address_of(frame) | flags.bits()
    }

    #[inline]
    fn decode(entry: u64, depth: usize) -> Entry {
        if entry == 0 {
            return Entry::Free;
        }
        let flags = Flags::from_bits_retain(entry);
        let present = flags.contains(Flags::PRESENT);
        let owned = flags.contains(OWNED);
        if !present && !owned {
            return Entry::Reserved;
        }
        match (kind(flags, Self::levels_below(depth)), present) {
            (Kind::Table, true) => {
                frame_of(entry & ADDRESS).map_or(Entry::Reserved, |frame| Entry::Table {
                    frame,
                    link: Link::of(owned, flags.contains(TAIL)),
                })
            }
            (Kind::Table, false) => frame_of(entry & ADDRESS)
                .map_or(Entry::Reserved, |frame| Entry::InvalidTable { frame }),
            (Kind::Leaf(order), true) => leaf_of(entry, order).map_or(Entry::Reserved, Entry::Leaf),
            (Kind::Leaf(order), false) => {
                leaf_of(entry, order).map_or(Entry::Reserved, Entry::InvalidLeaf)
            }
            (Kind::Malformed, _) => Entry::Reserved,
        }
    }

    #[inline]
    fn invalidated(entry: u64) -> u64 {
        entry & !Flags::PRESENT.bits()
    }

    #[cfg(all(
        target_arch = "x86_64",
        not(any(miri, address_sanitizer, thread_sanitizer))
    ))]
    #[inline]
    fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
        crate::seen_bits::seen_bits(entries)
    }

    #[cfg(all(
        target_arch = "x86_64",
        not(any(miri, address_sanitizer, thread_sanitizer))
    ))]
    #[inline]
    fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
        crate::entry_lines::are_lines(entries, lines)
    }
}

/// What an entry that is not free is for.
enum Kind {
    Table,
    Leaf(Order),
    /// The MMU faults on it, or it is not read by this crate.
    Malformed,
}

/// What an entry is for in a table with `below` levels below its own. PS makes a leaf of 2 MiB or 1
/// GiB where these exist, is reserved further up, and is part of the memory type (PAT) in the last
/// level.
#[inline]
fn kind(flags: Flags, below: usize) -> Kind {
    const ORDERS: [Option<Order>; 3] = [
        Order::new(0),
        Order::new(INDEX_BITS as u8),
        Order::new(2 * INDEX_BITS as u8),
    ];
    if below != 0 && !flags.contains(Flags::HUGE_PAGE) {
        return Kind::Table;
    }
    match ORDERS.get(below) {
        Some(Some(order)) => Kind::Leaf(*order),
        _ => Kind::Malformed,
    }
}

/// The leaf that `entry` is; `None` where its address is not aligned to its size, which the MMU
/// refuses too.
#[inline]
fn leaf_of(entry: u64, order: Order) -> Option<Leaf> {
    let flags = Flags::from_bits_retain(entry);
    let memory_type = if order == Order::BASE { 0 } else { HUGE_PAT };
    let block = Block::new(frame_of(entry & ADDRESS & !memory_type)?, order)?;
    let role = if !flags.contains(OWNED) {
        Role::Foreign
    } else if flags.contains(TAIL) {
        Role::Tail
    } else {
        Role::Descriptors
    };
    Some(Leaf {
        block,
        role,
        writable: flags.contains(Flags::WRITABLE),
    })
}

/// The frame's number, in place.
#[inline]
fn address_of(frame: Pfn) -> u64 {
    frame.base(GRANULE).get() & ADDRESS
}

/// The frame at the physical address `address`.
#[inline]
fn frame_of(address: u64) -> Option<Pfn> {
    Pfn::new(address >> GRANULE.shift())
}
