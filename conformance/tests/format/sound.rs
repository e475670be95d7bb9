//! A format that keeps all duties, and is like none of the backends' formats: three levels, leaves
//! in each of them, frame numbers that do not start at the page's bit.

use mm_core::addr::{Block, Granule, Order, Pfn, VirtAddr};
use mm_core::paging::{Entry, EntryFormat, Leaf, Level, Link, Role};

/// Sv39 of RISC-V, supervisor pages: V, R, W, G in bits 0, 1, 2, 5; A and D in 6 and 7; two bits
/// for software in 8 and 9; the frame number from 10 on. An entry with none of R and W is a link.
pub(crate) enum Sound {}

pub(crate) const VALID: u64 = 1;
pub(crate) const READ: u64 = 1 << 1;
pub(crate) const WRITE: u64 = 1 << 2;
pub(crate) const GLOBAL: u64 = 1 << 5;
pub(crate) const ACCESSED: u64 = 1 << 6;
pub(crate) const DIRTY: u64 = 1 << 7;
pub(crate) const FRAME: u64 = (1 << 54) - (1 << 10);

pub(crate) const LEVELS: [Level; 3] = [level(30), level(21), level(12)];

pub(crate) const fn level(shift: u32) -> Level {
    Level {
        shift,
        index_bits: 9,
        leaf: true,
    }
}

/// The size of a leaf at `depth`.
pub(crate) fn order(depth: usize) -> Order {
    Order::new(18 - 9 * depth as u8).unwrap()
}

// SAFETY: 1: see `LEVELS`. 2: `decode` reads what `leaf` and `table` write, and neither A nor D;
// whatever is not zero is something. 3: OWNED is in all that `decode` takes for this library's, in
// a bit for software. 4: `invalidated` clears V, and `decode` reads all else the same. 5: the frame
// number starts at bit 10 and ends below bit 54, which nothing here sets. 6: another bit for
// software, set for these alone. 7: 44 bits hold a frame number. 8: bits 39 and up are those of bit
// 38.
unsafe impl EntryFormat for Sound {
    const GRANULE: Granule = Granule::Size4K;
    const LEVELS: &'static [Level] = &LEVELS;
    const LAST_FRAME: Pfn = Pfn::new((1 << 44) - 1).unwrap();
    const FRAME_STEP: u64 = 1 << 10;
    const STATUS_BITS: u64 = ACCESSED | DIRTY;
    const OWNED: u64 = 1 << 8;
    const TAIL: u64 = 1 << 9;

    fn translates(at: VirtAddr) -> bool {
        let upper = (at.get() as i64) >> 38;
        upper == 0 || upper == -1
    }

    fn leaf(leaf: Leaf, _depth: usize) -> u64 {
        let role = match leaf.role {
            Role::Descriptors => Self::OWNED,
            Role::Tail => Self::OWNED | Self::TAIL,
            Role::Foreign => 0,
        };
        let rights = if leaf.writable { READ | WRITE } else { READ };
        let frame = leaf.block.first().get() << 10 & FRAME;
        frame | role | rights | GLOBAL | ACCESSED | DIRTY | VALID
    }

    fn table(frame: Pfn, shared: bool) -> u64 {
        let tail = if shared { Self::TAIL } else { 0 };
        frame.get() << 10 & FRAME | tail | Self::OWNED | VALID
    }

    fn decode(entry: u64, depth: usize) -> Entry {
        let has = |bit| entry & bit != 0;
        let (present, owned, tail) = (has(VALID), has(Self::OWNED), has(Self::TAIL));
        if entry == 0 {
            return Entry::Free;
        }
        if !present && !owned || entry & !(FRAME | 0x3ff) != 0 {
            return Entry::Reserved;
        }
        let frame = Pfn::new((entry & FRAME) >> 10).unwrap();
        if !has(READ | WRITE) {
            return match (depth < LEVELS.len() - 1, present) {
                (true, true) => Entry::Table {
                    frame,
                    link: Link::of(owned, tail),
                },
                (true, false) => Entry::InvalidTable { frame },
                (false, _) => Entry::Reserved,
            };
        }
        let role = match (owned, tail) {
            (false, _) => Role::Foreign,
            (true, false) => Role::Descriptors,
            (true, true) => Role::Tail,
        };
        let leaf = |block| Leaf {
            block,
            role,
            writable: has(WRITE),
        };
        match (Block::new(frame, order(depth)).map(leaf), present) {
            (Some(leaf), true) => Entry::Leaf(leaf),
            (Some(leaf), false) => Entry::InvalidLeaf(leaf),
            (None, _) => Entry::Reserved,
        }
    }

    fn invalidated(entry: u64) -> u64 {
        entry & !VALID
    }
}
